//! All accepted issuers.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use data_encoding::HEXLOWER;
use drawbridge_audit::{AuditLog, Event, event::ConfigChange};
use drawbridge_config::ConfigText;
use drawbridge_runtime::{
    Readiness,
    backoff::ReconnectDelays,
    error_chain,
    follow::{FollowReport, FollowedFiles},
};
use drawbridge_transport::jwks::{Jwks, JwksError};
use futures::future::join_all;
use sha2::{Digest as _, Sha256};
use tokio::{sync::watch, task::spawn_blocking};
use tokio_util::sync::CancellationToken;

use super::{
    IssuersFileError,
    file::{self, IssuerFlags},
    issuer::Issuer,
    seen::{SeenConfig, SeenTokens},
};
use crate::{
    digest,
    metrics::{ISSUERS_CURRENT, ISSUERS_RELOADS_FAILED},
};

/// The delays between attempts to fetch keys ahead.
const FETCH_DELAY_FIRST: Duration = Duration::from_millis(50);
const FETCH_DELAY_MAX: Duration = Duration::from_secs(5);

/// All accepted issuers. They are replaced when the issuers file changes.
#[derive(Debug)]
pub(crate) struct Issuers {
    flags: Option<IssuerFlags>,
    path: Option<PathBuf>,
    all: ArcSwap<Vec<Arc<Issuer>>>,
    /// Of the flags and the text of the file in force.
    digest: ArcSwap<[u8; 32]>,
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
        let text = path.map(file::read).transpose()?;
        let mut all = file::build(flags.clone(), text.as_ref(), &changes)?;
        separate_tenants(&mut all);
        let all = all.into_iter().map(Arc::new).collect();
        let path = path.map(Path::to_owned);
        let digest = ArcSwap::from_pointee(digest(flags.as_ref(), text.as_ref()));
        Ok(Self { flags, path, all: ArcSwap::from_pointee(all), digest, changes, seen })
    }

    /// A digest of the configured issuers, without their keys.
    pub(crate) fn digest(&self) -> [u8; 32] {
        **self.digest.load()
    }

    /// Follows the issuers file until `stopping`. Errors in it show in `readiness` and have no
    /// other effect. Each change has an audit record.
    pub(crate) async fn follow(
        self: Arc<Self>,
        audit: AuditLog,
        readiness: Readiness,
        stopping: CancellationToken,
    ) {
        let Some(path) = self.path.clone() else { return };
        let report = FollowReport {
            topic: "issuers",
            current: ISSUERS_CURRENT.get(),
            failed: ISSUERS_RELOADS_FAILED.get(),
            note: |_| "the issuers file is invalid: see the log".to_owned(),
        };
        let source = path.display().to_string();
        let record = move |text: Option<&ConfigText>, problem: String| {
            let digest = text.map(|text| Sha256::digest(text.as_str()));
            audit.record(Event::ConfigChange(ConfigChange {
                what: "issuers".to_owned(),
                source: source.clone(),
                digest: digest.map(|digest| HEXLOWER.encode(&digest)).unwrap_or_default(),
                accepted: problem.is_empty(),
                problem,
            }));
        };
        record(file::read(&path).ok().as_ref(), String::new());
        let files = FollowedFiles::new(report, move || file::read(&path), readiness, stopping);
        let mut files = files.observed_by(move |text, applied| {
            record(text, applied.err().map(IssuersFileError::brief).unwrap_or_default());
        });
        while let Some(text) = files.next().await {
            let issuers = Arc::clone(&self);
            match spawn_blocking(move || issuers.reload(&text)).await {
                Ok(reloaded) => files.report(reloaded),
                Err(error) => {
                    tracing::error!(%error, "stopped following the issuers file");
                    return;
                }
            }
        }
    }

    /// Uses this text of the issuers file. What did not change keeps its keys and caches. Returns
    /// whether anything changed.
    pub(super) fn reload(&self, text: &ConfigText) -> Result<bool, IssuersFileError> {
        let mut all = file::build(self.flags.clone(), Some(text), &self.changes)?;
        separate_tenants(&mut all);
        let before = self.all.load_full();
        let now: Vec<_> = all.into_iter().map(|issuer| unless_same(issuer, &before)).collect();
        let is_in = |issuer: &Arc<Issuer>, all: &[Arc<Issuer>]| {
            all.iter().any(|other| Arc::ptr_eq(issuer, other))
        };
        let names = |issuers: &[Arc<Issuer>], others: &[Arc<Issuer>]| {
            let different = issuers.iter().filter(|issuer| !is_in(issuer, others));
            different.map(|issuer| issuer.name.clone()).collect::<Vec<_>>()
        };
        let (gone, new) = (names(&before, &now), names(&now, &before));
        let is_changed = !gone.is_empty() || !new.is_empty();
        if is_changed {
            self.all.store(Arc::new(now));
        }
        // Afterwards: what is verified in the new epoch is verified by the new issuers.
        self.digest.store(Arc::new(digest(self.flags.as_ref(), Some(text))));
        if !is_changed {
            return Ok(false);
        }
        tracing::info!(?gone, ?new, "the accepted issuers changed");
        self.changes.send_modify(|count| *count += 1);
        Ok(true)
    }

    /// The issuer with exactly this name.
    pub(super) fn get(&self, name: &str) -> Option<Arc<Issuer>> {
        self.all.load().iter().find(|issuer| issuer.name == name).cloned()
    }

    /// The names of the issuers.
    pub(crate) fn names(&self) -> Vec<String> {
        self.all.load().iter().map(|issuer| issuer.name.clone()).collect()
    }

    /// Records of verified tokens.
    pub(crate) fn seen(&self) -> &SeenTokens {
        &self.seen
    }

    /// Fetches the keys of each issuer. Returns its name, with the error if the fetch failed. An
    /// issuer of opaque tokens has no keys to fetch.
    pub(crate) async fn probe(&self) -> Vec<(String, Option<String>)> {
        let all = self.all.load_full();
        let probes = all.iter().map(|issuer| async {
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

    /// Whether the tokens of any issuer can be verified. Without, auth rejects every caller.
    pub(crate) fn is_usable(&self) -> bool {
        self.all.load().iter().any(|issuer| issuer.keys.as_ref().is_none_or(Jwks::is_usable))
    }

    /// Fetches the keys of issuers ahead of their first tokens, until `stopping`.
    pub(crate) async fn fetch_ahead(self: Arc<Self>, stopping: CancellationToken) {
        let fetching = async {
            let mut delays = ReconnectDelays::new(FETCH_DELAY_FIRST, FETCH_DELAY_MAX);
            loop {
                let all = self.all.load_full();
                let missing = all
                    .iter()
                    .filter_map(|issuer| issuer.keys.as_ref())
                    .filter(|it| !it.is_usable());
                // Failures are logged there.
                join_all(missing.map(Jwks::fetch_ahead)).await;
                delays.wait().await;
            }
        };
        stopping.run_until_cancelled(fetching).await;
    }

    /// The issuer that introspects opaque tokens.
    pub(super) fn introspection_issuer(&self) -> Option<Arc<Issuer>> {
        self.all.load().iter().find(|issuer| issuer.introspection.is_some()).cloned()
    }

    /// Notifies when an issuer changes, or withdraws or replaces a key: earlier decisions on its
    /// tokens are no longer valid.
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

fn digest(flags: Option<&IssuerFlags>, text: Option<&ConfigText>) -> [u8; 32] {
    let flags = format!("{flags:?}");
    let text = text.map(ConfigText::as_str).unwrap_or_default();
    digest::digest(&[flags.as_bytes(), text.as_bytes()])
}

/// The issuer as it was before, if nothing differs.
fn unless_same(mut issuer: Issuer, before: &[Arc<Issuer>]) -> Arc<Issuer> {
    match before.iter().find(|other| other.name == issuer.name) {
        Some(before) if issuer.take_over(before) => Arc::clone(before),
        _ => Arc::new(issuer),
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
