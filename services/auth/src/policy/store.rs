//! Policies that are reloaded when their source changes.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use arc_swap::ArcSwap;
use drawbridge_audit::{AuditLog, Event, event::PolicyChange};
use drawbridge_runtime::{
    Readiness,
    follow::{FollowReport, FollowedFiles},
};
use tokio::{sync::watch, task::spawn_blocking};
use tokio_util::sync::CancellationToken;

use super::{
    Policies, PolicyError,
    bundle::{BundleConfig, BundleError, BundleFollower, Expiry, PolicyLocation, Release},
    load::{Loaded, Loader},
    source::PolicySources,
    status::{PolicyStatus, StatusBoard},
};
use crate::metrics::{POLICIES_CURRENT, POLICY_RELOADS_FAILED};

mod following;

/// The policies in force. They are replaced when their source changes.
#[derive(Debug)]
pub struct PolicyStore {
    source: Source,
    current: ArcSwap<Policies>,
    revision: watch::Sender<String>,
    loader: Mutex<Loader>,
    status: StatusBoard,
    /// The names of the keys that signed the first bundle.
    first_signed_by: Vec<String>,
}

#[derive(Debug)]
enum Source {
    Folder(PathBuf),
    Bundle(Box<tokio::sync::Mutex<BundleFollower>>),
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
        let name = root.display().to_string();
        Ok(Self::new(Source::Folder(root.to_owned()), name, loader, loaded, None))
    }

    /// Loads policies from where they are: a folder, or a signed bundle at a server.
    ///
    /// # Errors
    /// If there are no policies that could be put in force.
    pub async fn start(
        location: &PolicyLocation,
        config: &BundleConfig,
    ) -> Result<Self, BundleError> {
        match location {
            PolicyLocation::Folder(root)
                if config.policy_keys.is_some() || config.policy_cache.is_some() =>
            {
                Err(BundleError::Folder(root.display().to_string()))
            }
            PolicyLocation::Folder(root) => Ok(Self::open(root)?),
            PolicyLocation::Bundle(location) => {
                let mut follower = BundleFollower::new(location, config).await?;
                let mut loader = Loader::default();
                let mut first = follower.first(&mut loader).await?;
                if follower.expiry(&first.release) == Expiry::Denied {
                    first.loaded.policies = first.loaded.policies.denying();
                }
                let source = Source::Bundle(Box::new(follower.into()));
                let (name, release) = (location.to_string(), Some(&first.release));
                let store = Self::new(source, name, loader, first.loaded, release);
                let store = Self { first_signed_by: first.signed_by, ..store };
                store.status.report(first.problem.as_ref());
                Ok(store)
            }
        }
    }

    fn new(
        source: Source,
        name: String,
        loader: Loader,
        loaded: Loaded,
        release: Option<&Release>,
    ) -> Self {
        let policies = log_warnings(loaded);
        POLICIES_CURRENT.get().set(1);
        POLICY_RELOADS_FAILED.get().absolute(0);
        Self {
            source,
            status: StatusBoard::new(name, policies.revision(), release),
            revision: watch::Sender::new(policies.revision().to_owned()),
            current: ArcSwap::from_pointee(policies),
            loader: Mutex::new(loader),
            first_signed_by: Vec::new(),
        }
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

    /// Which policies are in force, for operators.
    #[must_use]
    pub fn status(&self) -> PolicyStatus {
        self.status.get()
    }

    /// Follows the source until `stopping`. Errors in it show in `readiness` and have no other
    /// effect. Each change has an audit record.
    pub async fn follow(
        self: Arc<Self>,
        audit: AuditLog,
        readiness: Readiness,
        stopping: CancellationToken,
    ) {
        let signed_by = self.first_signed_by.clone();
        audit.record(Event::PolicyChange(PolicyChange { signed_by, ..self.change("") }));
        match &self.source {
            Source::Folder(root) => {
                let root = root.clone();
                self.follow_folder(root, audit, readiness, stopping).await;
            }
            Source::Bundle(follower) => {
                let follower = &mut *follower.lock().await;
                self.follow_bundle(follower, &audit, &readiness, &stopping).await;
            }
        }
    }

    /// The record of the policies in force, which have replaced those of `previous`.
    fn change(&self, previous: &str) -> PolicyChange {
        let PolicyStatus { revision, source, bundle, .. } = self.status();
        let bundle = bundle.map(|bundle| bundle.revision.to_string());
        let (previous, accepted) = (previous.to_owned(), true);
        PolicyChange { source, revision, previous, bundle, accepted, ..PolicyChange::default() }
    }

    async fn follow_folder(
        self: Arc<Self>,
        root: PathBuf,
        audit: AuditLog,
        readiness: Readiness,
        stopping: CancellationToken,
    ) {
        let report = FollowReport {
            topic: "policies",
            current: POLICIES_CURRENT.get(),
            failed: POLICY_RELOADS_FAILED.get(),
            note: PolicyError::brief,
        };
        let read = move || PolicySources::read(&root);
        let (store, previous) = (Arc::clone(&self), Mutex::new(self.status().revision));
        let observer = move |sources: Option<&PolicySources>, applied: Result<(), &PolicyError>| {
            let mut previous = previous.lock().unwrap_or_else(PoisonError::into_inner);
            let mut change = store.change(&previous);
            match applied {
                Ok(()) => previous.clone_from(&change.revision),
                Err(error) => {
                    change.revision = sources.map(PolicySources::revision).unwrap_or_default();
                    (change.accepted, change.problem) = (false, error.brief());
                }
            }
            audit.record(Event::PolicyChange(change));
        };
        let files = FollowedFiles::new(report, read, readiness, stopping);
        let mut files = files.observed_by(observer);
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
        self.replace(loaded, started);
        self.status.replaced(self.load().revision(), None);
        Ok(true)
    }

    /// Puts policies in force.
    fn replace(&self, loaded: Loaded, started: Instant) {
        let policies = log_warnings(loaded);
        let revision = policies.revision().to_owned();
        let milliseconds = started.elapsed().as_millis();
        tracing::info!(revision, milliseconds, "policies reloaded");
        self.current.store(Arc::new(policies));
        self.revision.send_replace(revision);
    }
}

fn log_warnings(Loaded { policies, warnings }: Loaded) -> Policies {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    policies
}
