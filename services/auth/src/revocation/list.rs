//! The list of revocations, and what replicas compare of it.

use std::collections::{HashMap, HashSet};

use drawbridge_proto::auth::v1::{TokenSet, token_set::Which};

use crate::{authn::AccessToken, digest};

/// Revocations per issuer, by subject, client and token id, with their times in seconds since 1970.
#[derive(Clone, Debug, Default)]
pub(super) struct RevocationList {
    issuers: HashMap<String, IssuerRevocations>,
    len: usize,
    summary: RevocationSummary,
}

#[derive(Clone, Debug, Default)]
struct IssuerRevocations {
    subjects: HashMap<String, u64>,
    clients: HashMap<String, u64>,
    tokens: HashMap<String, u64>,
}

/// Equal for equal lists, whatever the order in which they grew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RevocationSummary {
    /// The sum of the digests of all revocations.
    pub(crate) digest: u64,
    /// The sum of the times of all revocations: it grows with each one.
    pub(crate) times: u64,
}

impl RevocationSummary {
    fn add(&mut self, digest: u64, at: u64) {
        self.digest = self.digest.wrapping_add(digest);
        self.times = self.times.wrapping_add(at);
    }

    fn remove(&mut self, digest: u64, at: u64) {
        self.digest = self.digest.wrapping_sub(digest);
        self.times = self.times.wrapping_sub(at);
    }
}

impl RevocationList {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn summary(&self) -> RevocationSummary {
        self.summary
    }

    /// Adds tokens. If they are already revoked, the later time applies.
    pub(super) fn add(&mut self, tokens: &TokenSet, at: u64) {
        let Some(which) = &tokens.which else { return };
        let digest = |at| digest(&tokens.issuer, which, at);
        match self.time(&tokens.issuer, which) {
            Some(known) if known >= at => return,
            Some(known) => self.summary.remove(digest(known), known),
            None => self.len += 1,
        }
        self.summary.add(digest(at), at);
        let of_issuer = self.issuers.entry(tokens.issuer.clone()).or_default();
        match which.clone() {
            Which::Subject(subject) => of_issuer.subjects.insert(subject, at),
            Which::ClientId(client) => of_issuer.clients.insert(client, at),
            Which::TokenId(id) => of_issuer.tokens.insert(id, at),
        };
    }

    /// Drops revocations from before `since`: their tokens have expired.
    pub(super) fn expire(&mut self, since: u64) {
        let is_expired = self.entries().any(|(_, at)| at < since);
        if is_expired {
            let current: Vec<_> = self.entries().filter(|(_, at)| *at >= since).collect();
            *self = Self::default();
            for (tokens, at) in current {
                self.add(&tokens, at);
            }
        }
    }

    /// The revocations since `since` that `others` lacks.
    pub(super) fn missing_in(
        &self,
        others: &[(TokenSet, u64)],
        since: u64,
    ) -> Vec<(TokenSet, u64)> {
        let others: HashSet<_> = others.iter().map(|(tokens, _)| tokens).collect();
        let missing = self.entries().filter(|(tokens, _)| !others.contains(tokens));
        missing.filter(|(_, at)| *at >= since).collect()
    }

    /// All revocations with their times.
    pub(super) fn entries(&self) -> impl Iterator<Item = (TokenSet, u64)> {
        self.issuers.iter().flat_map(|(issuer, of)| {
            let subjects = of.subjects.iter().map(|(name, at)| (Which::Subject(name.clone()), *at));
            let clients = of.clients.iter().map(|(name, at)| (Which::ClientId(name.clone()), *at));
            let tokens = of.tokens.iter().map(|(name, at)| (Which::TokenId(name.clone()), *at));
            let all = subjects.chain(clients).chain(tokens);
            all.map(|(which, at)| (TokenSet { issuer: issuer.clone(), which: Some(which) }, at))
        })
    }

    pub(super) fn contains(&self, token: &AccessToken) -> bool {
        let principal = &token.identity.principal;
        let Some(of_issuer) = self.issuers.get(&principal.issuer) else { return false };
        // A token without an issue time, or issued in the same second, counts as older.
        let is_older = |at: &u64| token.issued_at.is_none_or(|issued_at| issued_at <= *at);
        of_issuer.subjects.get(&principal.subject).is_some_and(is_older)
            || of_issuer.clients.get(&principal.client_id).is_some_and(is_older)
            || token.id.as_ref().is_some_and(|id| of_issuer.tokens.contains_key(id))
    }

    /// When these tokens were revoked.
    fn time(&self, issuer: &str, which: &Which) -> Option<u64> {
        let of_issuer = self.issuers.get(issuer)?;
        let at = match which {
            Which::Subject(subject) => of_issuer.subjects.get(subject),
            Which::ClientId(client) => of_issuer.clients.get(client),
            Which::TokenId(id) => of_issuer.tokens.get(id),
        };
        at.copied()
    }
}

/// The digest of one revocation.
fn digest(issuer: &str, which: &Which, at: u64) -> u64 {
    let (kind, name) = match which {
        Which::Subject(subject) => (b"s", subject),
        Which::ClientId(client) => (b"c", client),
        Which::TokenId(id) => (b"t", id),
    };
    digest::number(&[issuer.as_bytes(), kind, name.as_bytes(), &at.to_be_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(name: &str) -> TokenSet {
        TokenSet { issuer: "a".to_owned(), which: Some(Which::Subject(name.to_owned())) }
    }

    fn list(revoked: &[(&str, u64)]) -> RevocationList {
        let mut list = RevocationList::default();
        for (name, at) in revoked {
            list.add(&subject(name), *at);
        }
        list
    }

    #[test]
    fn equal_lists_have_equal_summaries_and_each_revocation_grows_its_times() {
        let one = list(&[("alice", 10), ("bob", 20), ("alice", 30)]);
        let other = list(&[("bob", 20), ("alice", 30), ("alice", 10)]);
        assert_eq!((one.summary(), one.len()), (other.summary(), other.len()));
        let mut before = RevocationSummary::default();
        for revoked in [&[("alice", 10)][..], &[("alice", 10), ("bob", 10)], &[("alice", 30)]] {
            let summary = list(revoked).summary();
            assert!(summary.times > before.times && summary.digest != before.digest);
            before = summary;
        }
        let mut client = RevocationList::default();
        let which = Some(Which::ClientId("alice".to_owned()));
        client.add(&TokenSet { issuer: "a".to_owned(), which }, 10);
        assert_ne!(client.summary(), list(&[("alice", 10)]).summary());
    }

    #[test]
    fn expired_revocations_leave_no_trace_in_the_summary() {
        let mut expired = list(&[("alice", 10), ("bob", 20)]);
        expired.expire(11);
        assert_eq!(expired.summary(), list(&[("bob", 20)]).summary());
        assert_eq!(expired.len(), 1);
        expired.expire(21);
        assert_eq!(expired.summary(), RevocationSummary::default());
    }

    #[test]
    fn what_another_list_has_lost_is_found() {
        let known = list(&[("alice", 10), ("bob", 20), ("carol", 30)]);
        let found = [(subject("bob"), 20), (subject("dave"), 20)];
        assert_eq!(known.missing_in(&found, 11), [(subject("carol"), 30)]);
    }
}
