//! Documents of the field, read as they are.
