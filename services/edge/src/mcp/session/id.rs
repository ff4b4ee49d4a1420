//! Session ids, and the principals that they are bound to.

use std::fmt;

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use drawbridge_proto::auth::v1 as auth;
use drawbridge_runtime::length_prefixed;
use http::HeaderValue;
use sha2::{Digest as _, Sha256};

const ID_BYTES: usize = 16;
const MAC_BYTES: usize = 16;

/// The id of a session, without the MAC that binds it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::mcp) struct SessionId([u8; ID_BYTES]);

/// A principal: issuer, subject and kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::mcp) struct SlotOwner([u8; 16]);

/// With the right token, an id gives access to its session: logs contain only its first bytes.
impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId({}…)", BASE64.encode(&self.0[..3]))
    }
}

impl SessionId {
    pub(super) fn random() -> Self {
        Self(rand::random())
    }

    pub(in crate::mcp) fn bytes(self) -> [u8; ID_BYTES] {
        self.0
    }

    pub(in crate::mcp) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.try_into().ok()?))
    }

    pub(super) fn text(self) -> String {
        BASE64.encode(self.0)
    }
}

impl SlotOwner {
    pub(in crate::mcp) fn of(principal: &auth::Principal) -> Self {
        let mut digest = Sha256::new();
        digest.update([u8::from(principal.workload)]);
        for part in [&principal.issuer, &principal.subject] {
            length_prefixed(part.as_bytes(), |bytes| digest.update(bytes));
        }
        let mut owner = [0; 16];
        owner.copy_from_slice(&digest.finalize()[..16]);
        Self(owner)
    }
}

/// Binds ids to their principals. Replicas that share a secret accept each other's ids.
#[derive(Debug)]
pub(super) struct SessionIdSigner(hmac::Key);

impl SessionIdSigner {
    pub(super) fn new(key: hmac::Key) -> Self {
        Self(key)
    }

    /// The id as its client receives it, with its MAC.
    pub(super) fn sign(
        &self,
        id: SessionId,
        principal: &auth::Principal,
        resource: &str,
    ) -> Option<HeaderValue> {
        let mac = BASE64.encode(self.mac(id, principal, resource));
        HeaderValue::from_str(&format!("{}.{mac}", id.text())).ok()
    }

    /// Verifies the session id that a client sends. `None`: it is malformed, or was issued to
    /// another principal, tenant or client, or at another endpoint.
    pub(super) fn verify(
        &self,
        header: &HeaderValue,
        principal: &auth::Principal,
        resource: &str,
    ) -> Option<SessionId> {
        let (id, mac) = header.to_str().ok()?.split_once('.')?;
        let id = SessionId(BASE64.decode(id).ok()?.try_into().ok()?);
        let mac: [u8; MAC_BYTES] = BASE64.decode(mac).ok()?.try_into().ok()?;
        let expected = self.mac(id, principal, resource);
        // Constant time: the MAC alone protects a session from other principals.
        aws_lc_rs::constant_time::verify_slices_are_equal(&expected, &mac).ok()?;
        Some(id)
    }

    fn mac(&self, id: SessionId, principal: &auth::Principal, resource: &str) -> [u8; MAC_BYTES] {
        let auth::Principal { issuer, subject, client_id, tenant, workload, .. } = principal;
        let mut context = hmac::Context::with_key(&self.0);
        context.update(&id.0);
        context.update(&[u8::from(*workload)]);
        for part in [issuer, subject, tenant, client_id, resource] {
            length_prefixed(part.as_bytes(), |bytes| context.update(bytes));
        }
        let mut mac = [0; MAC_BYTES];
        mac.copy_from_slice(&context.sign().as_ref()[..MAC_BYTES]);
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::EdgeKeys;

    const RESOURCE: &str = "https://edge.example/mcp";

    fn signer(secret: &str) -> SessionIdSigner {
        SessionIdSigner::new(EdgeKeys::for_tests(secret).mcp.sessions.ids)
    }

    fn alice() -> auth::Principal {
        auth::Principal {
            issuer: "https://idp".into(),
            subject: "alice".into(),
            client_id: "editor".into(),
            tenant: "acme".into(),
            ..Default::default()
        }
    }

    #[test]
    fn a_session_id_is_bound_to_principal_tenant_client_and_endpoint_on_every_replica() {
        let (one, replica) = (signer("one"), signer("one"));
        let id = SessionId::random();
        let header = one.sign(id, &alice(), RESOURCE).unwrap();
        assert_eq!(replica.verify(&header, &alice(), RESOURCE), Some(id));
        // Scopes, groups and roles are checked with each request.
        let scoped =
            auth::Principal { scopes: vec!["mcp".into()], roles: vec!["admin".into()], ..alice() };
        assert_eq!(replica.verify(&header, &scoped, RESOURCE), Some(id));
        for other in [
            auth::Principal { subject: "bob".into(), ..alice() },
            auth::Principal { issuer: "https://evil".into(), ..alice() },
            auth::Principal { issuer: "https://idpa".into(), subject: "lice".into(), ..alice() },
            auth::Principal { client_id: "other".into(), ..alice() },
            auth::Principal { tenant: "globex".into(), ..alice() },
            auth::Principal { tenant: "acmee".into(), client_id: "ditor".into(), ..alice() },
            auth::Principal { workload: true, ..alice() },
        ] {
            assert_eq!(replica.verify(&header, &other, RESOURCE), None, "{other:?}");
        }
        assert_eq!(replica.verify(&header, &alice(), "https://edge.example/mcp/code"), None);
        assert_eq!(signer("two").verify(&header, &alice(), RESOURCE), None);
    }

    #[test]
    fn a_forged_session_id_is_rejected() {
        for id in
            ["", "abc", "abc.", ".", "abc.AAAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAAA.!!"]
        {
            let id = HeaderValue::from_str(id).unwrap();
            assert_eq!(signer("one").verify(&id, &alice(), RESOURCE), None, "{id:?}");
        }
    }

    #[test]
    fn a_user_and_a_workload_with_one_subject_are_two_principals() {
        assert_ne!(
            SlotOwner::of(&alice()),
            SlotOwner::of(&auth::Principal { workload: true, ..alice() })
        );
        assert_eq!(
            SlotOwner::of(&alice()),
            SlotOwner::of(&auth::Principal { tenant: String::new(), ..alice() })
        );
    }
}
