//! The development authorization server.
