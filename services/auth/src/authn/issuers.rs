//! All issuers whose tokens are accepted.

use std::path::Path;

use drawbridge_sdk::{error_chain, jwks::JwksError};
use futures::future::join_all;
use tokio::sync::watch;

use super::{
    IssuersFileError,
    file::{self, Given},
    issuer::Issuer,
    seen::{Seen, SeenConfig},
};

/// All issuers whose tokens are accepted.
#[derive(Debug)]
pub(crate) struct Issuers {
    all: Vec<Issuer>,
    /// Counts what makes verified tokens doubtful.
    changes: watch::Sender<u64>,
    seen: Seen,
}

impl Issuers {
    /// The issuer that the flags give, if they do, and those of a file.
    pub(crate) fn load(
        flags: Option<Given>,
        path: Option<&Path>,
        seen: SeenConfig,
    ) -> Result<Self, IssuersFileError> {
        let changes = watch::Sender::new(0);
        Ok(Self { all: file::load(flags, path, &changes)?, changes, seen: Seen::new(seen) })
    }

    /// The issuer of this very name.
    pub(super) fn of(&self, name: &str) -> Option<&Issuer> {
        self.all.iter().find(|issuer| issuer.name == name)
    }

    /// How they call themselves.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.all.iter().map(|issuer| issuer.name.as_str())
    }

    /// Whose tokens have been verified.
    pub(crate) fn seen(&self) -> &Seen {
        &self.seen
    }

    /// Asks each for its keys: its name, and why there is no answer. One whose tokens are opaque is not asked.
    pub(crate) async fn reach(&self) -> Vec<(String, Option<String>)> {
        let asked = self.all.iter().map(|issuer| async {
            let Some(keys) = &issuer.keys else { return (issuer.name.clone(), None) };
            // No key has this id: the keys are fetched to see that.
            let problem = match keys.key("").await {
                Ok(_) | Err(JwksError::UnknownKey) => None,
                Err(error) => Some(error_chain(&error)),
            };
            (issuer.name.clone(), problem)
        });
        join_all(asked).await
    }

    /// The one that can be asked about opaque tokens.
    pub(super) fn introspecting(&self) -> Option<&Issuer> {
        self.all.iter().find(|issuer| issuer.introspection.is_some())
    }

    /// Ticks when an issuer withdraws or replaces a key: what was decided on tokens before is to be decided anew.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// As if an issuer had withdrawn a key.
    #[cfg(test)]
    pub(super) fn forget_verified(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    pub(super) fn epoch(&self) -> u64 {
        *self.changes.borrow()
    }
}
