//! Records whose tokens have been verified, so that a revocation can report that it matches no
//! known token.

use std::{
    collections::HashSet,
    hash::{BuildHasher as _, RandomState},
    mem,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use drawbridge_proto::auth::v1::{TokenSet, token_set::Which};

use super::AccessToken;

/// How many names from verified tokens are recorded.
#[derive(Clone, Copy, Debug, clap::Args)]
#[command(next_help_heading = "Revocation")]
pub struct SeenConfig {
    /// How many subjects, clients and token ids of verified tokens are recorded, each. A revocation
    /// reports whether it matches one of them.
    #[arg(
        long,
        value_name = "NAMES",
        default_value_t = 100_000,
        value_parser = clap::value_parser!(u32).range(2..)
    )]
    pub seen_names_max: u32,
}

impl Default for SeenConfig {
    fn default() -> Self {
        drawbridge_runtime::parse_defaults(&[])
    }
}

/// Names in verified tokens, as keyed hashes.
#[derive(Debug)]
pub(crate) struct SeenTokens {
    hasher: RandomState,
    kinds: Mutex<NamesByKind>,
}

#[derive(Debug)]
struct NamesByKind {
    subjects: SeenNames,
    clients: SeenNames,
    tokens: SeenNames,
}

/// Names of one kind, in two generations. The earlier generation is dropped as a whole.
#[derive(Debug)]
struct SeenNames {
    /// The maximum number of names in one generation.
    generation_max: usize,
    current: HashSet<u64>,
    current_since: SystemTime,
    earlier: HashSet<u64>,
    earlier_since: SystemTime,
}

impl SeenNames {
    fn new(names_max: usize, now: SystemTime) -> Self {
        Self {
            generation_max: names_max / 2,
            current: HashSet::new(),
            current_since: now,
            earlier: HashSet::new(),
            earlier_since: now,
        }
    }

    fn record(&mut self, name: u64) {
        if self.current.len() >= self.generation_max && !self.current.contains(&name) {
            self.earlier = mem::take(&mut self.current);
            self.earlier_since = mem::replace(&mut self.current_since, SystemTime::now());
        }
        self.current.insert(name);
    }

    /// Since when this name has not been recorded. `None`: it has been.
    fn missing_since(&self, name: u64) -> Option<SystemTime> {
        let is_known = self.current.contains(&name) || self.earlier.contains(&name);
        (!is_known).then_some(self.earlier_since)
    }
}

impl SeenTokens {
    pub(crate) fn new(config: SeenConfig) -> Self {
        let (names_max, now) = (usize::try_from(config.seen_names_max), SystemTime::now());
        let names = || SeenNames::new(names_max.unwrap_or(usize::MAX), now);
        let kinds = NamesByKind { subjects: names(), clients: names(), tokens: names() };
        Self { hasher: RandomState::new(), kinds: Mutex::new(kinds) }
    }

    /// Records the names in a verified token.
    pub(super) fn record(&self, token: &AccessToken) {
        let principal = &token.identity.principal;
        let digest = |name: &str| self.hasher.hash_one((principal.issuer.as_str(), name));
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        kinds.subjects.record(digest(&principal.subject));
        kinds.clients.record(digest(&principal.client_id));
        if let Some(id) = &token.id {
            kinds.tokens.record(digest(id));
        }
    }

    /// Since when none of these tokens has been verified here: the start of this process, or later
    /// if names were dropped. `None`: one has been verified.
    pub(crate) fn unseen_since(&self, tokens: &TokenSet) -> Option<SystemTime> {
        let kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let (names, name) = match tokens.which.as_ref()? {
            Which::Subject(name) => (&kinds.subjects, name),
            Which::ClientId(name) => (&kinds.clients, name),
            Which::TokenId(name) => (&kinds.tokens, name),
        };
        names.missing_since(self.hasher.hash_one((tokens.issuer.as_str(), name.as_str())))
    }
}

#[cfg(test)]
mod tests {
    use drawbridge_proto::auth::v1::Principal;

    use super::*;
    use crate::Identity;

    fn token(subject: &str) -> AccessToken {
        let principal = Principal {
            issuer: "a".to_owned(),
            subject: subject.to_owned(),
            client_id: "client".to_owned(),
            ..Principal::default()
        };
        let identity = Identity { principal, ..Identity::default() };
        AccessToken { identity, id: Some("1".to_owned()), issued_at: None, expires_at: u64::MAX }
    }

    fn is_seen(seen: &SeenTokens, issuer: &str, which: Which) -> bool {
        seen.unseen_since(&TokenSet { issuer: issuer.to_owned(), which: Some(which) }).is_none()
    }

    #[test]
    fn a_verified_token_is_recorded_by_issuer_subject_client_and_token_id() {
        let seen = SeenTokens::new(SeenConfig::default());
        seen.record(&token("alice"));
        for (which, other) in [
            (Which::Subject("alice".into()), Which::Subject("client".into())),
            (Which::ClientId("client".into()), Which::ClientId("alice".into())),
            (Which::TokenId("1".into()), Which::TokenId("alice".into())),
        ] {
            assert!(is_seen(&seen, "a", which.clone()), "{which:?}");
            assert!(
                !is_seen(&seen, "b", which) && !is_seen(&seen, "a", other.clone()),
                "{other:?}"
            );
        }
    }

    #[test]
    fn at_most_the_maximum_of_names_is_recorded_and_the_time_is_reported() {
        let seen = SeenTokens::new(SeenConfig { seen_names_max: 4 });
        let started = seen.kinds.lock().unwrap().subjects.earlier_since;
        for number in 0..6 {
            seen.record(&token(&number.to_string()));
        }
        let known = (0..6).filter(|number| is_seen(&seen, "a", Which::Subject(number.to_string())));
        assert_eq!(known.collect::<Vec<_>>(), [2, 3, 4, 5]);
        // The one client has been recorded since the start.
        assert!(is_seen(&seen, "a", Which::ClientId("client".into())));
        let since =
            |which| seen.unseen_since(&TokenSet { issuer: "a".to_owned(), which: Some(which) });
        assert!(since(Which::Subject("0".into())).unwrap() >= started);
        assert_eq!(since(Which::ClientId("unknown".into())), Some(started));
    }
}
