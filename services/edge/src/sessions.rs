//! Sessions of the older revisions: whose they are, how many there may be, and where other replicas find
//! them.
//!
//! A session's id is bound to the principal who opened it by a MAC that stands in the id itself, so that
//! checking it needs no look-up and holds on every replica that shares the secret. What a replica needs to go
//! on with another's session lies in Redis.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use drawbridge_proto::auth::v1 as auth;
use http::HeaderValue;
use rmcp::transport::streamable_http_server::{
    SessionManager as _,
    session::{SessionId, SessionStore, local::LocalSessionManager},
};
use secrecy::{ExposeSecret as _, SecretString};
use tokio_util::sync::CancellationToken;

use crate::{refusal::Refusal, transport::session_manager};

use self::redis_store::RedisStore;

mod redis_store;

/// How often principals without sessions are forgotten.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);
/// Bytes of the MAC that stand in an id.
const MAC_BYTES: usize = 16;

/// Issuer and subject.
type Owner = (String, String);

pub(crate) struct Sessions {
    key: hmac::Key,
    manager: Arc<LocalSessionManager>,
    redis: Option<Arc<RedisStore>>,
    /// Sessions that this replica has opened, by owner. Some may have ended since.
    opened: Mutex<HashMap<Owner, HashSet<SessionId>>>,
    per_principal_max: usize,
}

impl Sessions {
    pub(crate) fn new(
        secret: &SecretString,
        idle: Duration,
        per_principal_max: usize,
        redis_url: Option<&SecretString>,
    ) -> Result<Self, redis::RedisError> {
        // The label keeps this key apart from whatever else is made of the secret.
        let key = format!("drawbridge session id\0{}", secret.expose_secret());
        Ok(Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()),
            manager: session_manager(idle),
            redis: redis_url.map(|url| RedisStore::new(url, idle)).transpose()?.map(Arc::new),
            opened: Mutex::default(),
            per_principal_max,
        })
    }

    pub(crate) fn manager(&self) -> Arc<LocalSessionManager> {
        Arc::clone(&self.manager)
    }

    pub(crate) fn store(&self) -> Option<Arc<dyn SessionStore>> {
        let store: Arc<dyn SessionStore> = Arc::<RedisStore>::clone(self.redis.as_ref()?);
        Some(store)
    }

    /// The id that rmcp knows, when this principal opened the session.
    pub(crate) fn inside(
        &self,
        id: &HeaderValue,
        principal: &auth::Principal,
    ) -> Result<HeaderValue, Refusal> {
        let inner = id.to_str().ok().and_then(|id| {
            let (inner, mac) = id.split_once('.')?;
            let mac = BASE64.decode(mac).ok().filter(|mac| mac.len() == MAC_BYTES)?;
            let expected = self.mac(inner, principal);
            // Constant time: the MAC is what keeps one principal out of another's session.
            let same = aws_lc_rs::constant_time::verify_slices_are_equal(&expected, &mac);
            same.is_ok().then(|| HeaderValue::from_str(inner).ok())?
        });
        let inner = inner.ok_or(Refusal::NoSession)?;
        if let (Some(redis), Ok(id)) = (&self.redis, inner.to_str()) {
            redis.touch(id);
        }
        Ok(inner)
    }

    /// The id that the client gets, once the session is there.
    pub(crate) fn outside(&self, id: &HeaderValue, principal: &auth::Principal) -> Option<HeaderValue> {
        let inner = id.to_str().ok()?;
        self.opened().entry(owner(principal)).or_default().insert(Arc::from(inner));
        let mac = BASE64.encode(self.mac(inner, principal));
        HeaderValue::from_str(&format!("{inner}.{mac}")).ok()
    }

    /// Refuses one more session to a principal who has as many as there may be.
    pub(crate) async fn check_room(&self, principal: &auth::Principal) -> Result<(), Refusal> {
        let owner = owner(principal);
        let known: Vec<_> = self.opened().get(&owner).into_iter().flatten().cloned().collect();
        if known.len() < self.per_principal_max {
            return Ok(());
        }
        let mut ended = Vec::new();
        for id in &known {
            if !self.manager.has_session(id).await.unwrap_or(false) {
                ended.push(id);
            }
        }
        let mut opened = self.opened();
        let Some(sessions) = opened.get_mut(&owner) else { return Ok(()) };
        for id in ended {
            sessions.remove(id);
        }
        if sessions.len() < self.per_principal_max {
            return Ok(());
        }
        Err(Refusal::TooManySessions { max: self.per_principal_max })
    }

    /// Forgets principals whose sessions have all ended, so that the map does not grow.
    async fn sweep(&self) {
        let alive: HashSet<_> = self.manager.sessions.read().await.keys().cloned().collect();
        self.opened().retain(|_, sessions| {
            sessions.retain(|id| alive.contains(id));
            !sessions.is_empty()
        });
        metrics::gauge!("mcp_server_sessions").set(f64::from(u32::try_from(alive.len()).unwrap_or(u32::MAX)));
    }

    fn mac(&self, id: &str, principal: &auth::Principal) -> [u8; MAC_BYTES] {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [id, &principal.issuer, &principal.subject] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        let tag = context.sign();
        let mut mac = [0; MAC_BYTES];
        mac.copy_from_slice(&tag.as_ref()[..MAC_BYTES]);
        mac
    }

    fn opened(&self) -> std::sync::MutexGuard<'_, HashMap<Owner, HashSet<SessionId>>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sweeps now and then, until the edge stops.
pub(crate) async fn sweep(sessions: Arc<Sessions>, stopping: CancellationToken) {
    let mut interval = tokio::time::interval(SWEEP_INTERVAL);
    while stopping.run_until_cancelled(interval.tick()).await.is_some() {
        sessions.sweep().await;
    }
}

fn owner(principal: &auth::Principal) -> Owner {
    (principal.issuer.clone(), principal.subject.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sessions(secret: &str) -> Sessions {
        Sessions::new(&secret.into(), Duration::from_secs(60), 2, None).unwrap()
    }

    fn principal(issuer: &str, subject: &str) -> auth::Principal {
        auth::Principal { issuer: issuer.into(), subject: subject.into(), ..Default::default() }
    }

    #[test]
    fn a_session_id_serves_its_principal_alone_on_every_replica() {
        let alice = principal("https://idp", "alice");
        let id = sessions("one").outside(&HeaderValue::from_static("abc"), &alice).unwrap();
        assert_eq!(sessions("one").inside(&id, &alice).unwrap(), "abc");
        for other in [
            principal("https://idp", "bob"),
            principal("https://evil", "alice"),
            principal("https://idpa", "lice"),
        ] {
            assert!(matches!(sessions("one").inside(&id, &other), Err(Refusal::NoSession)));
        }
        assert!(sessions("two").inside(&id, &alice).is_err());
    }

    #[test]
    fn a_forged_session_id_is_refused() {
        let alice = principal("https://idp", "alice");
        for id in ["", "abc", "abc.", ".", "abc.AAAAAAAAAAAAAAAAAAAAAA", "abc.!!"] {
            let id = HeaderValue::from_str(id).unwrap();
            assert!(sessions("one").inside(&id, &alice).is_err(), "{id:?}");
        }
    }

    #[tokio::test]
    async fn sessions_that_have_ended_make_room() {
        let sessions = sessions("one");
        let alice = principal("https://idp", "alice");
        let mut ids = Vec::new();
        for _ in 0..2 {
            sessions.check_room(&alice).await.unwrap();
            let (id, transport) = sessions.manager.create_session().await.unwrap();
            sessions.outside(&HeaderValue::from_str(&id).unwrap(), &alice).unwrap();
            ids.push((id, transport));
        }
        assert!(sessions.check_room(&alice).await.is_err());
        assert!(sessions.check_room(&principal("https://idp", "bob")).await.is_ok());
        let (id, transport) = ids.pop().unwrap();
        drop(transport);
        sessions.manager.close_session(&id).await.unwrap();
        assert!(sessions.check_room(&alice).await.is_ok());
    }
}
