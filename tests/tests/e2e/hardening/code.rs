//! Files that hold keys.
