//! Which issuer may name which tenant.
