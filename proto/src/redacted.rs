//! `Debug` for messages that contain a token: it never prints the token.

use std::fmt;

use crate::auth::v1::{
    AuthorizeRequest, ExchangeRequest, FilterCatalogRequest, RevokeRequest, TransactionToken,
};

const REDACTED: &str = "[REDACTED]";

impl fmt::Debug for AuthorizeRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { access_token: _, operation, resource, client_address } = self;
        f.debug_struct("AuthorizeRequest")
            .field("access_token", &REDACTED)
            .field("operation", operation)
            .field("resource", resource)
            .field("client_address", client_address)
            .finish()
    }
}

impl fmt::Debug for ExchangeRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subject_token: _, rpc, actor_token: _ } = self;
        f.debug_struct("ExchangeRequest")
            .field("subject_token", &REDACTED)
            .field("rpc", rpc)
            .field("actor_token", &REDACTED)
            .finish()
    }
}

impl fmt::Debug for FilterCatalogRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { access_token: _, kind, items, resource, client_address } = self;
        f.debug_struct("FilterCatalogRequest")
            .field("access_token", &REDACTED)
            .field("kind", kind)
            .field("items", items)
            .field("resource", resource)
            .field("client_address", client_address)
            .finish()
    }
}

impl fmt::Debug for RevokeRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subject_token: _, tokens } = self;
        f.debug_struct("RevokeRequest")
            .field("subject_token", &REDACTED)
            .field("tokens", tokens)
            .finish()
    }
}

impl fmt::Debug for TransactionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { token: _, expires_at } = self;
        f.debug_struct("TransactionToken")
            .field("token", &REDACTED)
            .field("expires_at", expires_at)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_token_is_printed() {
        let secret = || "a-secret".to_owned();
        let printed = [
            format!("{:?}", AuthorizeRequest { access_token: secret(), ..Default::default() }),
            format!(
                "{:?}",
                ExchangeRequest {
                    subject_token: secret(),
                    actor_token: secret(),
                    ..Default::default()
                }
            ),
            format!("{:?}", FilterCatalogRequest { access_token: secret(), ..Default::default() }),
            format!("{:?}", RevokeRequest { subject_token: secret(), ..Default::default() }),
            format!("{:?}", TransactionToken { token: secret(), ..Default::default() }),
        ];
        for text in printed {
            assert!(text.contains(REDACTED) && !text.contains("a-secret"), "{text}");
        }
    }
}
