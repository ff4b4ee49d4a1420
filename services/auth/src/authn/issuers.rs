//! All accepted issuers.

use std::path::Path;

use drawbridge_runtime::error_chain;
use drawbridge_transport::jwks::JwksError;
use futures::future::join_all;
use tokio::sync::watch;

use super::{
    IssuersFileError,
    file::{self, IssuerFlags},
    issuer::Issuer,
    seen::{SeenConfig, SeenTokens},
};

/// All accepted issuers.
#[derive(Debug)]
pub(crate) struct Issuers {
    all: Vec<Issuer>,
    /// Counts changes that invalidate verified tokens.
    changes: watch::Sender<u64>,
    seen: SeenTokens,
}

impl Issuers {
    /// Loads the issuer of the flags, if any, and those of the file.
    pub(crate) fn load(
        flags: Option<IssuerFlags>,
        path: Option<&Path>,
        seen: SeenConfig,
    ) -> Result<Self, IssuersFileError> {
        let changes = watch::Sender::new(0);
        let seen = SeenTokens::new(seen);
        Ok(Self { all: file::load(flags, path, &changes)?, changes, seen })
    }

    /// The issuer with exactly this name.
    pub(super) fn get(&self, name: &str) -> Option<&Issuer> {
        self.all.iter().find(|issuer| issuer.name == name)
    }

    /// The names of the issuers.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.all.iter().map(|issuer| issuer.name.as_str())
    }

    /// Records of verified tokens.
    pub(crate) fn seen(&self) -> &SeenTokens {
        &self.seen
    }

    /// Fetches the keys of each issuer. Returns its name, with the error if the fetch failed. An
    /// issuer of opaque tokens has no keys to fetch.
    pub(crate) async fn probe(&self) -> Vec<(String, Option<String>)> {
        let probes = self.all.iter().map(|issuer| async {
            let Some(keys) = &issuer.keys else { return (issuer.name.clone(), None) };
            // An unknown key id forces a fetch.
            let problem = match keys.key("").await {
                Ok(_) | Err(JwksError::UnknownKey) => None,
                Err(error) => Some(error_chain(&error)),
            };
            (issuer.name.clone(), problem)
        });
        join_all(probes).await
    }

    /// The issuer that introspects opaque tokens.
    pub(super) fn introspection_issuer(&self) -> Option<&Issuer> {
        self.all.iter().find(|issuer| issuer.introspection.is_some())
    }

    /// Notifies when an issuer withdraws or replaces a key: earlier decisions on its tokens are no
    /// longer valid.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Acts as if an issuer had withdrawn a key.
    #[cfg(test)]
    pub(super) fn invalidate_verified(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    pub(super) fn epoch(&self) -> u64 {
        *self.changes.borrow()
    }
}
