//! What the documentation shows works in a checkout.
