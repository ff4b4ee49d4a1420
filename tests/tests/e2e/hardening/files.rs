//! Files, folders and admin ports.
