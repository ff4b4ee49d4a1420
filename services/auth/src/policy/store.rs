//! Policies that are reloaded when their files change.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use drawbridge_runtime::Readiness;
use metrics::{counter, gauge};
use tokio::{sync::watch, task::spawn_blocking, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Policies, PolicyError,
    load::{Loaded, Loader},
    source::PolicySources,
};

/// How often the files are polled. Polling contents rather than watching events covers every kind
/// of change: editors that rename, a `ConfigMap` that swaps a link, file systems without events.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// After this time, files that are still changing are loaded as they are.
const SETTLE_MAX: Duration = Duration::from_millis(400);
/// A file modified this recently may change again within the resolution of its timestamp.
const RECENT: Duration = Duration::from_secs(2);

/// The policies in force. They are replaced when their files change.
#[derive(Debug)]
pub struct PolicyStore {
    root: PathBuf,
    current: ArcSwap<Policies>,
    revision: watch::Sender<String>,
    loader: Mutex<Loader>,
}

/// The state of following the files.
struct FollowState {
    stamp: Stamp,
    /// What was last loaded or rejected.
    tried: Option<PolicySources>,
    /// Changes that have not settled yet.
    unsettled: Option<(PolicySources, Instant)>,
    /// Why the current files are rejected.
    rejection: Option<Rejection>,
}

/// An error in the policy files.
struct Rejection {
    /// For the log. It quotes lines.
    full: String,
    /// For `/readyz`, which is readable by anyone with access to the admin port.
    brief: String,
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
        gauge!("auth_policies_current").set(1);
        counter!("auth_policy_reloads_failed_total").absolute(0);
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
        let mut state =
            FollowState { stamp: Stamp::default(), tried: None, unsettled: None, rejection: None };
        let mut interval = tokio::time::interval(POLL_INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stopping.run_until_cancelled(interval.tick()).await.is_some() {
            let store = Arc::clone(&self);
            let polled = spawn_blocking(move || {
                store.poll(&mut state);
                state
            });
            match polled.await {
                Ok(after) => state = after,
                Err(error) => {
                    tracing::error!(%error, "stopped following the policy files");
                    return;
                }
            }
            let note = state.rejection.as_ref().map(|rejection| rejection.brief.clone());
            readiness.set_note("policies", note);
        }
    }

    /// Loads the files if they have changed and settled.
    fn poll(&self, state: &mut FollowState) {
        let stamp = Stamp::read(&self.root);
        if state.tried.is_some()
            && state.unsettled.is_none()
            && stamp == state.stamp
            && !stamp.is_recent()
        {
            return;
        }
        state.stamp = stamp;
        let sources = match PolicySources::read(&self.root) {
            Ok(sources) => sources,
            Err(error) => return self.reject(state, None, &error),
        };
        if state.tried.as_ref() == Some(&sources) {
            state.unsettled = None;
            return;
        }
        let since = match &state.unsettled {
            Some((before, since)) if *before == sources || since.elapsed() >= SETTLE_MAX => None,
            Some((_, since)) => Some(*since),
            None => Some(Instant::now()),
        };
        if let Some(since) = since {
            state.unsettled = Some((sources, since));
            return;
        }
        state.unsettled = None;
        self.reload(state, sources);
    }

    fn reload(&self, state: &mut FollowState, sources: PolicySources) {
        let started = Instant::now();
        let loaded = if sources.revision() == self.load().revision() {
            None
        } else {
            let loaded = self.loader.lock().unwrap_or_else(PoisonError::into_inner).load(&sources);
            match loaded {
                Ok(loaded) => Some(log_warnings(loaded)),
                Err(error) => return self.reject(state, Some(sources), &error),
            }
        };
        if let Some(policies) = loaded {
            let revision = policies.revision().to_owned();
            self.current.store(Arc::new(policies));
            self.revision.send_replace(revision);
            let milliseconds = started.elapsed().as_millis();
            tracing::info!(revision = self.load().revision(), milliseconds, "policies reloaded");
        }
        state.tried = Some(sources);
        state.rejection = None;
        gauge!("auth_policies_current").set(1);
    }

    /// Leaves the policies in force, and logs each error once.
    fn reject(&self, state: &mut FollowState, sources: Option<PolicySources>, error: &PolicyError) {
        let full = error.to_string();
        if state.rejection.as_ref().is_none_or(|rejection| rejection.full != full) {
            counter!("auth_policy_reloads_failed_total").increment(1);
            tracing::error!(
                revision = self.load().revision(),
                "the policy files are invalid; the policies loaded before stay in force:\n{full}"
            );
        }
        gauge!("auth_policies_current").set(0);
        state.tried = sources;
        state.unsettled = None;
        state.rejection = Some(Rejection { brief: error.brief(), full });
    }
}

fn log_warnings(Loaded { policies, warnings }: Loaded) -> Policies {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    policies
}

/// Names, sizes and times of all files: if these are equal and not recent, the contents are too.
#[derive(Debug, Default, PartialEq, Eq)]
struct Stamp {
    files: Vec<(PathBuf, u64, Option<SystemTime>, Option<u64>)>,
}

impl Stamp {
    fn read(root: &Path) -> Self {
        let mut files = Vec::new();
        for folder in [root.to_owned(), root.join("catalog"), root.join("entities")] {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path = entry.path();
                // `metadata` follows links.
                let metadata = fs::metadata(&path);
                let size = metadata.as_ref().map_or(0, fs::Metadata::len);
                let modified = metadata.as_ref().ok().and_then(|metadata| metadata.modified().ok());
                files.push((
                    path,
                    size,
                    modified,
                    metadata.ok().and_then(|metadata| inode(&metadata)),
                ));
            }
        }
        files.sort_unstable();
        Self { files }
    }

    fn is_recent(&self) -> bool {
        let now = SystemTime::now();
        let age = |time: SystemTime| now.duration_since(time).unwrap_or_default();
        self.files.iter().any(|(_, _, modified, _)| modified.is_none_or(|time| age(time) < RECENT))
    }
}

#[cfg(unix)]
#[expect(clippy::unnecessary_wraps, reason = "other systems have no inodes")]
fn inode(metadata: &fs::Metadata) -> Option<u64> {
    Some(std::os::unix::fs::MetadataExt::ino(metadata))
}

#[cfg(not(unix))]
fn inode(_: &fs::Metadata) -> Option<u64> {
    None
}
