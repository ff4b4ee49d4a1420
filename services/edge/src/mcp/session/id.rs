//! Ids of sessions, and whose they are.

use std::fmt;

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use drawbridge_proto::auth::v1 as auth;
use http::HeaderValue;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

const ID_BYTES: usize = 16;
const MAC_BYTES: usize = 16;

/// A session, without what proves whose it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::mcp) struct SessionId([u8; ID_BYTES]);

/// A principal: issuer, subject and kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::mcp) struct Owner([u8; 16]);

/// Whoever knows an id can, with the right token, use the session: logs have only its beginning.
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

impl Owner {
    pub(in crate::mcp) fn of(principal: &auth::Principal) -> Self {
        let mut digest = Sha256::new();
        digest.update([u8::from(principal.workload)]);
        for part in [&principal.issuer, &principal.subject] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        let mut owner = [0; 16];
        owner.copy_from_slice(&digest.finalize()[..16]);
        Self(owner)
    }
}

/// Binds ids to whom they were given. Replicas that share a secret accept one another's.
#[derive(Debug)]
pub(super) struct Binder(hmac::Key);

impl Binder {
    pub(super) fn new(secret: &SecretString) -> Self {
        // The label keeps this key apart from whatever else is made of the secret.
        let key = format!("drawbridge session id 2\0{}", secret.expose_secret());
        Self(hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()))
    }

    /// The id as its client gets it.
    pub(super) fn header(
        &self,
        id: SessionId,
        principal: &auth::Principal,
        resource: &str,
    ) -> Option<HeaderValue> {
        let mac = BASE64.encode(self.mac(id, principal, resource));
        HeaderValue::from_str(&format!("{}.{mac}", id.text())).ok()
    }

    /// The session that a client names. None: it is none, or was given to another principal, tenant or client,
    /// or at another endpoint.
    pub(super) fn id(
        &self,
        header: &HeaderValue,
        principal: &auth::Principal,
        resource: &str,
    ) -> Option<SessionId> {
        let (id, mac) = header.to_str().ok()?.split_once('.')?;
        let id = SessionId(BASE64.decode(id).ok()?.try_into().ok()?);
        let mac: [u8; MAC_BYTES] = BASE64.decode(mac).ok()?.try_into().ok()?;
        let expected = self.mac(id, principal, resource);
        // Constant time: the MAC is what keeps one principal out of another's session.
        aws_lc_rs::constant_time::verify_slices_are_equal(&expected, &mac).ok()?;
        Some(id)
    }

    fn mac(&self, id: SessionId, principal: &auth::Principal, resource: &str) -> [u8; MAC_BYTES] {
        let auth::Principal { issuer, subject, client_id, tenant, workload, .. } = principal;
        let mut context = hmac::Context::with_key(&self.0);
        context.update(&id.0);
        context.update(&[u8::from(*workload)]);
        for part in [issuer, subject, tenant, client_id, resource] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        let mut mac = [0; MAC_BYTES];
        mac.copy_from_slice(&context.sign().as_ref()[..MAC_BYTES]);
        mac
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESOURCE: &str = "https://edge.example/mcp";

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
        let (one, replica) = (Binder::new(&"one".into()), Binder::new(&"one".into()));
        let id = SessionId::random();
        let header = one.header(id, &alice(), RESOURCE).unwrap();
        assert_eq!(replica.id(&header, &alice(), RESOURCE), Some(id));
        // Scopes, groups and roles are decided on with each request.
        let scoped =
            auth::Principal { scopes: vec!["mcp".into()], roles: vec!["admin".into()], ..alice() };
        assert_eq!(replica.id(&header, &scoped, RESOURCE), Some(id));
        for other in [
            auth::Principal { subject: "bob".into(), ..alice() },
            auth::Principal { issuer: "https://evil".into(), ..alice() },
            auth::Principal { issuer: "https://idpa".into(), subject: "lice".into(), ..alice() },
            auth::Principal { client_id: "other".into(), ..alice() },
            auth::Principal { tenant: "globex".into(), ..alice() },
            auth::Principal { tenant: "acmee".into(), client_id: "ditor".into(), ..alice() },
            auth::Principal { workload: true, ..alice() },
        ] {
            assert_eq!(replica.id(&header, &other, RESOURCE), None, "{other:?}");
        }
        assert_eq!(replica.id(&header, &alice(), "https://edge.example/mcp/code"), None);
        assert_eq!(Binder::new(&"two".into()).id(&header, &alice(), RESOURCE), None);
    }

    #[test]
    fn a_forged_session_id_is_refused() {
        for id in
            ["", "abc", "abc.", ".", "abc.AAAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAAA.!!"]
        {
            let id = HeaderValue::from_str(id).unwrap();
            assert_eq!(Binder::new(&"one".into()).id(&id, &alice(), RESOURCE), None, "{id:?}");
        }
    }

    #[test]
    fn a_user_and_a_workload_of_one_subject_are_two_principals() {
        assert_ne!(Owner::of(&alice()), Owner::of(&auth::Principal { workload: true, ..alice() }));
        assert_eq!(
            Owner::of(&alice()),
            Owner::of(&auth::Principal { tenant: String::new(), ..alice() })
        );
    }
}
