//! Policies that follow their files.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use drawbridge_sdk::Readiness;
use metrics::{counter, gauge};
use tokio::{sync::watch, task::spawn_blocking, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    Policies, PolicyError,
    load::{Loaded, Loader},
    source::Sources,
};

/// How often the files are looked at. Contents count and not events, so that every way to change a file is seen: an
/// editor that renames, a `ConfigMap` that swaps a link, a file system that tells of nothing.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Files that go on changing are loaded after this time as they are.
const SETTLE_MAX: Duration = Duration::from_millis(400);
/// A file that was written so lately may be written again within the resolution of its time.
const RECENT: Duration = Duration::from_secs(2);

/// The policies in force, which change when their files do.
#[derive(Debug)]
pub struct PolicyStore {
    root: PathBuf,
    current: ArcSwap<Policies>,
    revision: watch::Sender<String>,
    loader: Mutex<Loader>,
}

/// What is there to be loaded, and whether it has been.
struct Seen {
    stamp: Stamp,
    /// What was loaded or refused last.
    tried: Option<Sources>,
    /// Changes that have not settled yet.
    unsettled: Option<(Sources, Instant)>,
    /// What is wrong with what is there.
    wrong: Option<Wrong>,
}

/// What is wrong with the policy files.
struct Wrong {
    /// For the log, which quotes the lines.
    full: String,
    /// For `/readyz`, which whoever reaches the admin port may read.
    brief: String,
}

impl PolicyStore {
    /// Loads the folder `root`.
    ///
    /// # Errors
    /// When the policies are not right.
    pub fn open(root: &Path) -> Result<Self, PolicyError> {
        let sources = Sources::read(root)?;
        let mut loader = Loader::default();
        let loaded = loader.load(&sources)?;
        let policies = with_warnings_logged(loaded);
        gauge!("auth_policies_current").set(1);
        counter!("auth_policy_reloads_failed_total").absolute(0);
        Ok(Self {
            root: root.to_owned(),
            revision: watch::Sender::new(policies.revision().to_owned()),
            current: ArcSwap::from_pointee(policies),
            loader: Mutex::new(loader),
        })
    }

    /// The policies in force. A decision is made on one such set from its beginning to its end.
    #[must_use]
    pub fn load(&self) -> Arc<Policies> {
        self.current.load_full()
    }

    /// Tells the revision of every set of policies that comes into force.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<String> {
        self.revision.subscribe()
    }

    /// Follows the files until `stopping`. What is wrong with them shows in `readiness` and changes nothing else.
    pub async fn follow(self: Arc<Self>, readiness: Readiness, stopping: CancellationToken) {
        let mut seen = Seen { stamp: Stamp::default(), tried: None, unsettled: None, wrong: None };
        let mut interval = tokio::time::interval(LOOK_EVERY);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stopping.run_until_cancelled(interval.tick()).await.is_some() {
            let store = Arc::clone(&self);
            let looked = spawn_blocking(move || {
                store.look(&mut seen);
                seen
            });
            match looked.await {
                Ok(after) => seen = after,
                Err(error) => {
                    tracing::error!(%error, "following the policy files broke off");
                    return;
                }
            }
            readiness.note("policies", seen.wrong.as_ref().map(|wrong| wrong.brief.clone()));
        }
    }

    /// Loads the files if they have changed and settled.
    fn look(&self, seen: &mut Seen) {
        let stamp = Stamp::of(&self.root);
        if seen.tried.is_some()
            && seen.unsettled.is_none()
            && stamp == seen.stamp
            && !stamp.is_recent()
        {
            return;
        }
        seen.stamp = stamp;
        let sources = match Sources::read(&self.root) {
            Ok(sources) => sources,
            Err(error) => return self.refuse(seen, None, &error),
        };
        if seen.tried.as_ref() == Some(&sources) {
            seen.unsettled = None;
            return;
        }
        let since = match &seen.unsettled {
            Some((before, since)) if *before == sources || since.elapsed() >= SETTLE_MAX => None,
            Some((_, since)) => Some(*since),
            None => Some(Instant::now()),
        };
        if let Some(since) = since {
            seen.unsettled = Some((sources, since));
            return;
        }
        seen.unsettled = None;
        self.reload(seen, sources);
    }

    fn reload(&self, seen: &mut Seen, sources: Sources) {
        let started = Instant::now();
        let loaded = if sources.revision() == self.load().revision() {
            None
        } else {
            let loaded = self.loader.lock().unwrap_or_else(PoisonError::into_inner).load(&sources);
            match loaded {
                Ok(loaded) => Some(with_warnings_logged(loaded)),
                Err(error) => return self.refuse(seen, Some(sources), &error),
            }
        };
        if let Some(policies) = loaded {
            let revision = policies.revision().to_owned();
            self.current.store(Arc::new(policies));
            self.revision.send_replace(revision);
            let milliseconds = started.elapsed().as_millis();
            tracing::info!(revision = self.load().revision(), milliseconds, "policies changed");
        }
        seen.tried = Some(sources);
        seen.wrong = None;
        gauge!("auth_policies_current").set(1);
    }

    /// Keeps what is in force, and says why once.
    fn refuse(&self, seen: &mut Seen, sources: Option<Sources>, error: &PolicyError) {
        let full = error.to_string();
        if seen.wrong.as_ref().is_none_or(|wrong| wrong.full != full) {
            counter!("auth_policy_reloads_failed_total").increment(1);
            tracing::error!(
                revision = self.load().revision(),
                "the policy files cannot be used; what was loaded before stays in force:\n{full}"
            );
        }
        gauge!("auth_policies_current").set(0);
        seen.tried = sources;
        seen.unsettled = None;
        seen.wrong = Some(Wrong { brief: error.brief(), full });
    }
}

fn with_warnings_logged(Loaded { policies, warnings }: Loaded) -> Policies {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    policies
}

/// Names, sizes and times of all files: when they are the same and not recent, the contents are.
#[derive(Debug, Default, PartialEq, Eq)]
struct Stamp {
    files: Vec<(PathBuf, u64, Option<SystemTime>, Option<u64>)>,
}

impl Stamp {
    fn of(root: &Path) -> Self {
        let mut files = Vec::new();
        for folder in [root.to_owned(), root.join("catalog"), root.join("entities")] {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path = entry.path();
                // Links are followed.
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
#[expect(clippy::unnecessary_wraps, reason = "elsewhere there is none")]
fn inode(metadata: &fs::Metadata) -> Option<u64> {
    Some(std::os::unix::fs::MetadataExt::ino(metadata))
}

#[cfg(not(unix))]
fn inode(_: &fs::Metadata) -> Option<u64> {
    None
}
