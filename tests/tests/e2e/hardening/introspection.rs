//! Opaque tokens that nobody knows.
