//! What a transaction token is good for.
