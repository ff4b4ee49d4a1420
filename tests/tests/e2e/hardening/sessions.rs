//! Whose a session is, and when it ends.
