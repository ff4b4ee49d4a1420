//! Values as real clients write them.
