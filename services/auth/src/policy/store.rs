//! Policies that are reloaded when their files change.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use arc_swap::ArcSwap;
use drawbridge_runtime::{
    Readiness,
    follow::{FollowReport, FollowedFiles},
};
use tokio::{sync::watch, task::spawn_blocking};
use tokio_util::sync::CancellationToken;

use super::{
    Policies, PolicyError,
    load::{Loaded, Loader},
    source::PolicySources,
};
use crate::metrics::{POLICIES_CURRENT, POLICY_RELOADS_FAILED};

/// The policies in force. They are replaced when their files change.
#[derive(Debug)]
pub struct PolicyStore {
    root: PathBuf,
    current: ArcSwap<Policies>,
    revision: watch::Sender<String>,
    loader: Mutex<Loader>,
}

impl PolicyStore {
    /// Loads the folder `root`.
    ///
    /// # Errors
    /// If the policies are invalid.
    pub fn open(root: &Path) -> Result<Self, PolicyError> {
        let sources = PolicySources::read(root)?;
        let mut loader = Loader::default();
        let loaded = loader.load(&sources)?;
        let policies = log_warnings(loaded);
        POLICIES_CURRENT.get().set(1);
        POLICY_RELOADS_FAILED.get().absolute(0);
        Ok(Self {
            root: root.to_owned(),
            revision: watch::Sender::new(policies.revision().to_owned()),
            current: ArcSwap::from_pointee(policies),
            loader: Mutex::new(loader),
        })
    }

    /// The policies in force. Each decision uses one such set throughout.
    #[must_use]
    pub fn load(&self) -> Arc<Policies> {
        self.current.load_full()
    }

    /// Notifies of the revision of each new set of policies.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<String> {
        self.revision.subscribe()
    }

    /// Follows the files until `stopping`. Errors in them show in `readiness` and have no other
    /// effect.
    pub async fn follow(self: Arc<Self>, readiness: Readiness, stopping: CancellationToken) {
        let report = FollowReport {
            topic: "policies",
            current: POLICIES_CURRENT.get(),
            failed: POLICY_RELOADS_FAILED.get(),
            note: PolicyError::brief,
        };
        let root = self.root.clone();
        let read = move || PolicySources::read(&root);
        let mut files = FollowedFiles::new(report, read, readiness, stopping);
        while let Some(sources) = files.next().await {
            let store = Arc::clone(&self);
            match spawn_blocking(move || store.reload(&sources)).await {
                Ok(reloaded) => files.report(reloaded),
                Err(error) => {
                    tracing::error!(%error, "stopped following the policy files");
                    return;
                }
            }
        }
    }

    /// Loads these files. Returns whether the policies changed.
    fn reload(&self, sources: &PolicySources) -> Result<bool, PolicyError> {
        if sources.revision() == self.load().revision() {
            return Ok(false);
        }
        let started = Instant::now();
        let loaded = self.loader.lock().unwrap_or_else(PoisonError::into_inner).load(sources)?;
        let policies = log_warnings(loaded);
        let revision = policies.revision().to_owned();
        let milliseconds = started.elapsed().as_millis();
        tracing::info!(revision, milliseconds, "policies reloaded");
        self.current.store(Arc::new(policies));
        self.revision.send_replace(revision);
        Ok(true)
    }
}

fn log_warnings(Loaded { policies, warnings }: Loaded) -> Policies {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    policies
}
