//! Who may claim a name.
