use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use secrecy::SecretString;
#[cfg(any(feature = "credentials-aws", feature = "credentials-azure"))]
use secrecy::zeroize::Zeroizing;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::source::{Granted, GrantedCertificate, GrantedUser};

/// A lease is renewed at this part of its life, so that it is before two thirds of it.
const RENEW_AT: f64 = 0.6;
/// What renews to less than this part of its first life has come to its maximum, and is let go.
const WORTH_RENEWING: f64 = 0.5;
/// This part of a life is left unused at its end, and no more than that: whoever has got it needs it for a moment.
const MARGIN: f64 = 0.1;
const MARGIN_MAX: Duration = Duration::from_secs(15);

/// How long something is given for.
#[derive(Debug)]
pub(super) struct Lifetime {
    whole: Duration,
    renewable: bool,
    /// Used since it was given or renewed.
    used: AtomicBool,
    span: Mutex<Span>,
}

#[derive(Clone, Copy, Debug)]
struct Span {
    renew_at: Option<Instant>,
    ends: Instant,
}

impl Lifetime {
    pub(super) fn new(whole: Duration, renewable: bool) -> Self {
        let span = Mutex::new(Span::new(whole, renewable));
        Self { whole, renewable, used: AtomicBool::new(true), span }
    }

    fn span(&self) -> Span {
        *self.span.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn ends(&self) -> Instant {
        self.span().ends
    }

    /// How long it may still be given out.
    pub(super) fn left(&self) -> Duration {
        self.ends().saturating_duration_since(Instant::now())
    }

    /// How long until it is to be renewed.
    pub(super) fn until_renewal(&self) -> Duration {
        let span = self.span();
        span.renew_at.unwrap_or(span.ends).saturating_duration_since(Instant::now())
    }

    pub(super) fn note_use(&self) {
        self.used.store(true, Ordering::Relaxed);
    }

    /// Whether to renew it now: it is time, and it is still used.
    pub(super) fn is_due(&self) -> bool {
        self.span().renew_at.is_some_and(|at| at <= Instant::now())
            && self.used.load(Ordering::Relaxed)
    }

    /// Notes that it was renewed.
    pub(super) fn renewed(&self, duration: Duration) {
        self.used.store(false, Ordering::Relaxed);
        let again = self.renewable && duration > self.whole.mul_f64(WORTH_RENEWING);
        *self.span.lock().unwrap_or_else(PoisonError::into_inner) = Span::new(duration, again);
    }
}

impl Span {
    fn new(duration: Duration, renewable: bool) -> Self {
        let now = Instant::now();
        let margin = duration.mul_f64(MARGIN).min(MARGIN_MAX);
        let renew_at = renewable.then(|| now + duration.mul_f64(RENEW_AT));
        Self { renew_at, ends: now + duration.saturating_sub(margin) }
    }
}

/// A database user that was made for one principal, for a while.
#[derive(Debug)]
pub struct DatabaseLease {
    /// The name of the database user.
    pub username: String,
    /// Its password.
    pub password: SecretString,
    pub(super) id: String,
    pub(super) term: Lifetime,
    /// Cancelled when the lease or its session is given up. It is a child of the session's.
    pub(super) ended: CancellationToken,
}

impl DatabaseLease {
    pub(super) fn new(granted: Granted<GrantedUser>, ended: CancellationToken) -> Self {
        let Granted { of: GrantedUser { id, username, password }, duration, renewable } = granted;
        Self { username, password, id, term: Lifetime::new(duration, renewable), ended }
    }

    /// Whether it can still be used, as far as is known here.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        !self.ended.is_cancelled() && !self.term.left().is_zero()
    }

    /// Waits until the lease is given up before its time: connections that were made with it are to be closed.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

/// A certificate that was issued for one principal, for a while, with its key.
#[derive(Debug)]
pub struct Certificate {
    /// The certificate, and after it those of the authorities between it and the root, as PEM.
    pub chain: String,
    /// Its private key, as PEM.
    pub private_key: SecretString,
    /// The certificate of the authority that has issued it, as PEM.
    pub authority: String,
    pub(super) term: Lifetime,
    /// Cancelled when its session is given up. It is a child of the session's.
    ended: CancellationToken,
}

impl Certificate {
    pub(super) fn new(granted: Granted<GrantedCertificate>, ended: CancellationToken) -> Self {
        let Granted {
            of: GrantedCertificate { chain, private_key, authority },
            duration,
            renewable,
        } = granted;
        Self { chain, private_key, authority, term: Lifetime::new(duration, renewable), ended }
    }

    /// Whether it can still be used, as far as is known here.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        !self.ended.is_cancelled() && !self.term.left().is_zero()
    }

    /// Waits until the certificate is given up before its time: connections that were made with it are to be closed.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

/// What stands at one path of the key-value store.
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
    #[cfg(any(feature = "credentials-aws", feature = "credentials-azure"))]
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
    fn a_term_is_due_before_two_thirds_of_its_life_and_only_while_it_is_used() {
        let term = Lifetime::new(Duration::from_millis(100), true);
        assert!(!term.is_due());
        std::thread::sleep(Duration::from_millis(62));
        assert!(term.is_due());
        term.renewed(Duration::from_millis(60));
        std::thread::sleep(Duration::from_millis(40));
        assert!(!term.is_due(), "nobody has used it since");
        term.note_use();
        assert!(term.is_due());
        // Its maximum is near: it is let go.
        term.renewed(Duration::from_millis(10));
        term.note_use();
        std::thread::sleep(Duration::from_millis(10));
        assert!(!term.is_due() && term.left().is_zero());
    }

    #[test]
    fn what_is_secret_is_not_shown() {
        let lease = DatabaseLease {
            username: "v-alice".to_owned(),
            password: "hunter2".into(),
            id: "database/creds/reader/1".to_owned(),
            term: Lifetime::new(Duration::from_secs(1), true),
            ended: CancellationToken::new(),
        };
        let secret = Secret { fields: BTreeMap::from([("token".to_owned(), "hunter2".into())]) };
        let shown = format!("{lease:?} {secret:?}");
        assert!(shown.contains("v-alice") && !shown.contains("hunter2"), "{shown}");
    }
}
