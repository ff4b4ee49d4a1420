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
        let mut all = file::load(flags, path, &changes)?;
        separate_tenants(&mut all);
        Ok(Self { all, changes, seen })
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

/// Restricts the tenants of each issuer when there are several, and warns if two could name the
/// same.
fn separate_tenants(issuers: &mut [Issuer]) {
    if issuers.len() < 2 {
        return;
    }
    for issuer in &mut *issuers {
        let mapping = &mut issuer.rules.mapping;
        if mapping.tenants.deny_unbound() && !mapping.tenant.is_empty() {
            tracing::warn!(
                issuer = issuer.name,
                "there are several issuers, and this one has no configured tenants: its tokens \
                 that name a tenant are rejected; set `tenants` or `claims.tenant_prefix`, or \
                 --issuer-tenants (docs/reference/issuers-file.md)"
            );
        }
    }
    let may_name = |issuer: &&Issuer| !issuer.rules.mapping.tenant.is_empty();
    let naming: Vec<_> = issuers.iter().filter(may_name).collect();
    for (at, one) in naming.iter().enumerate() {
        for other in &naming[at + 1..] {
            if one.rules.mapping.tenants.overlap(&other.rules.mapping.tenants) {
                tracing::warn!(
                    issuer = one.name,
                    other = other.name,
                    "two issuers may name the same tenant: each can put its users into tenants of \
                     the other"
                );
            }
        }
    }
}
