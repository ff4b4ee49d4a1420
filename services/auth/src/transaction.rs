//! Transaction tokens: signed here, verified by every tool service (draft-ietf-oauth-transaction-tokens).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::Ed25519KeyPair;
use drawbridge_proto::auth::v1 as pb;
use drawbridge_sdk::{
    RequestId,
    identity::{ALGORITHM, TOKEN_TYPE, TransactionClaims, TransactionContext},
};
use jsonwebtoken::{
    EncodingKey, Header, encode,
    jwk::{Jwk, JwkSet, PublicKeyUse, ThumbprintHash},
};

/// A token or its key could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// The system gives no randomness.
    #[error("cannot generate a key pair")]
    KeyPair,
    /// The token could not be signed.
    #[error("cannot sign")]
    Sign(#[from] jsonwebtoken::errors::Error),
}

/// Signs transaction tokens with a key that never leaves the process.
pub(crate) struct Minter {
    issuer: String,
    ttl: Duration,
    key: EncodingKey,
    header: Header,
    jwks: JwkSet,
}

impl Minter {
    pub(crate) fn new(issuer: &str, ttl_seconds: u32) -> Result<Self, MintError> {
        let pair = Ed25519KeyPair::generate().map_err(|_| MintError::KeyPair)?;
        let document = pair.to_pkcs8v1().map_err(|_| MintError::KeyPair)?;
        let key = EncodingKey::from_ed_der(document.as_ref());
        let mut jwk = Jwk::from_encoding_key(&key, ALGORITHM)?;
        let id = jwk.thumbprint(ThumbprintHash::SHA256)?;
        jwk.common.key_id = Some(id.clone());
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        let mut header = Header::new(ALGORITHM);
        header.typ = Some(TOKEN_TYPE.to_owned());
        header.kid = Some(id);
        Ok(Self {
            issuer: issuer.to_owned(),
            ttl: Duration::from_secs(ttl_seconds.into()),
            key,
            header,
            jwks: JwkSet { keys: vec![jwk] },
        })
    }

    /// The public keys.
    pub(crate) fn jwks(&self) -> JwkSet {
        self.jwks.clone()
    }

    /// Signs the token that carries `principal` to the RPC behind `item`, and nowhere else.
    pub(crate) fn mint(
        &self,
        principal: &pb::Principal,
        item: &pb::CatalogItem,
        request_id: &RequestId,
    ) -> Result<pb::TransactionToken, MintError> {
        let now = SystemTime::now();
        let expires = now + self.ttl;
        let claims = TransactionClaims {
            iss: self.issuer.clone(),
            aud: item.service.clone(),
            sub: principal.subject.clone(),
            iat: seconds(now),
            exp: seconds(expires),
            txn: request_id.to_string(),
            scope: principal.scopes.join(" "),
            tctx: TransactionContext {
                iss: principal.issuer.clone(),
                tenant: Some(principal.tenant.clone()).filter(|tenant| !tenant.is_empty()),
                client_id: principal.client_id.clone(),
                tool: item.name.clone(),
                rpc: item.rpc.clone(),
            },
        };
        let token = encode(&self.header, &claims, &self.key)?;
        Ok(pb::TransactionToken { token, expires_at: Some(expires.into()) })
    }
}

fn seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed())
}
