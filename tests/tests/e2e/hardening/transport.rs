//! Connections between services.
