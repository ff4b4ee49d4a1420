use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use secrecy::SecretString;
#[cfg(any(feature = "aws", feature = "azure"))]
use secrecy::zeroize::Zeroizing;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::grant::{Granted, GrantedCertificate, GrantedUser};

/// A lease is renewed at this fraction of its lifetime, so before two thirds of it.
const RENEW_AT_FRACTION: f64 = 0.6;
/// A lease that renews to less than this fraction of its first lifetime has reached its maximum,
/// and is not renewed again.
const RENEWED_FRACTION_MIN: f64 = 0.5;
/// A fraction of the lifetime is left unused at its end, up to a maximum: a caller that has the
/// lease still needs it for a moment.
const MARGIN_FRACTION: f64 = 0.1;
const MARGIN_MAX: Duration = Duration::from_secs(15);

/// The lifetime of a session, a lease or a certificate.
#[derive(Debug)]
pub(super) struct Lifetime {
    initial: Duration,
    renewable: bool,
    /// Used since it was granted or renewed.
    used: AtomicBool,
    current: Mutex<Period>,
}

#[derive(Clone, Copy, Debug)]
struct Period {
    renew_at: Option<Instant>,
    expires_at: Instant,
}

impl Lifetime {
    pub(super) fn new(initial: Duration, renewable: bool) -> Self {
        let current = Mutex::new(Period::new(initial, renewable));
        Self { initial, renewable, used: AtomicBool::new(true), current }
    }

    fn current(&self) -> Period {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn expires_at(&self) -> Instant {
        self.current().expires_at
    }

    /// How long it may still be used.
    pub(super) fn remaining(&self) -> Duration {
        self.expires_at().saturating_duration_since(Instant::now())
    }

    /// How long until its renewal is due.
    pub(super) fn until_renewal(&self) -> Duration {
        let current = self.current();
        current.renew_at.unwrap_or(current.expires_at).saturating_duration_since(Instant::now())
    }

    pub(super) fn mark_used(&self) {
        self.used.store(true, Ordering::Relaxed);
    }

    /// Whether to renew it now: its renewal time has come, and it is still used.
    pub(super) fn is_renewal_due(&self) -> bool {
        self.current().renew_at.is_some_and(|at| at <= Instant::now())
            && self.used.load(Ordering::Relaxed)
    }

    /// Records a renewal.
    pub(super) fn mark_renewed(&self, duration: Duration) {
        self.used.store(false, Ordering::Relaxed);
        let again = self.renewable && duration > self.initial.mul_f64(RENEWED_FRACTION_MIN);
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Period::new(duration, again);
    }
}

impl Period {
    fn new(duration: Duration, renewable: bool) -> Self {
        let now = Instant::now();
        let margin = duration.mul_f64(MARGIN_FRACTION).min(MARGIN_MAX);
        let renew_at = renewable.then(|| now + duration.mul_f64(RENEW_AT_FRACTION));
        Self { renew_at, expires_at: now + duration.saturating_sub(margin) }
    }
}

/// A database user that was created for one principal, for a limited time.
#[derive(Debug)]
pub struct DatabaseLease {
    /// The name of the database user.
    pub username: String,
    /// Its password.
    pub password: SecretString,
    pub(super) id: String,
    pub(super) lifetime: Lifetime,
    /// Cancelled when the lease or its session is revoked. It is a child of the session's token.
    pub(super) ended: CancellationToken,
}

impl DatabaseLease {
    pub(super) fn new(granted: Granted<GrantedUser>, ended: CancellationToken) -> Self {
        let Granted { value: GrantedUser { id, username, password }, duration, renewable } =
            granted;
        Self { username, password, id, lifetime: Lifetime::new(duration, renewable), ended }
    }

    /// Whether it can still be used, as far as this service knows.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        !self.ended.is_cancelled() && !self.lifetime.remaining().is_zero()
    }

    /// Waits until the lease is revoked early: connections that use it must be closed.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

/// A certificate that was issued for one principal, for a limited time, with its key.
#[derive(Debug)]
pub struct IssuedCertificate {
    /// The certificate, followed by the intermediates without the root, as PEM.
    pub chain: String,
    /// Its private key, as PEM.
    pub private_key: SecretString,
    /// The certificate of the issuing authority, as PEM.
    pub authority: String,
    pub(super) lifetime: Lifetime,
    /// Cancelled when its session is revoked. It is a child of the session's token.
    ended: CancellationToken,
}

impl IssuedCertificate {
    pub(super) fn new(granted: Granted<GrantedCertificate>, ended: CancellationToken) -> Self {
        let Granted {
            value: GrantedCertificate { chain, private_key, authority },
            duration,
            renewable,
        } = granted;
        Self { chain, private_key, authority, lifetime: Lifetime::new(duration, renewable), ended }
    }

    /// Whether it can still be used, as far as this service knows.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        !self.ended.is_cancelled() && !self.lifetime.remaining().is_zero()
    }

    /// Waits until the certificate is revoked early: connections that use it must be closed.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

/// The content of one path of the key-value store.
#[derive(Debug)]
pub struct Secret {
    pub(super) fields: BTreeMap<String, SecretString>,
}

impl Secret {
    pub(super) fn from_json(fields: Map<String, Value>) -> Self {
        let text = |value: Value| match value {
            Value::String(text) => SecretString::from(text),
            other => other.to_string().into(),
        };
        Self { fields: fields.into_iter().map(|(name, value)| (name, text(value))).collect() }
    }

    /// The fields of a JSON object; any other text is the one field `value`.
    #[cfg(any(feature = "aws", feature = "azure"))]
    pub(super) fn from_text(text: String) -> Self {
        let text = Zeroizing::new(text);
        match serde_json::from_str(&text) {
            Ok(Value::Object(fields)) => Self::from_json(fields),
            _ => Self { fields: BTreeMap::from([("value".to_owned(), text.as_str().into())]) },
        }
    }

    /// The value of a field.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&SecretString> {
        self.fields.get(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renewal_is_due_before_two_thirds_of_the_lifetime_and_only_while_it_is_used() {
        let lifetime = Lifetime::new(Duration::from_millis(100), true);
        assert!(!lifetime.is_renewal_due());
        std::thread::sleep(Duration::from_millis(62));
        assert!(lifetime.is_renewal_due());
        lifetime.mark_renewed(Duration::from_millis(60));
        std::thread::sleep(Duration::from_millis(40));
        assert!(!lifetime.is_renewal_due(), "it was not used since");
        lifetime.mark_used();
        assert!(lifetime.is_renewal_due());
        // Its maximum is near, so it is not renewed.
        lifetime.mark_renewed(Duration::from_millis(10));
        lifetime.mark_used();
        std::thread::sleep(Duration::from_millis(10));
        assert!(!lifetime.is_renewal_due() && lifetime.remaining().is_zero());
    }

    #[test]
    fn debug_output_redacts_secrets() {
        let lease = DatabaseLease {
            username: "v-alice".to_owned(),
            password: "hunter2".into(),
            id: "database/creds/reader/1".to_owned(),
            lifetime: Lifetime::new(Duration::from_secs(1), true),
            ended: CancellationToken::new(),
        };
        let secret = Secret { fields: BTreeMap::from([("token".to_owned(), "hunter2".into())]) };
        let shown = format!("{lease:?} {secret:?}");
        assert!(shown.contains("v-alice") && !shown.contains("hunter2"), "{shown}");
    }
}
