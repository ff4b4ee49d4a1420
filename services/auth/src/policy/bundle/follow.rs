//! Follows a bundle at its server.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use drawbridge_config::ConfigText;
use drawbridge_runtime::{backoff::ReconnectDelays, error_chain};
use jiff::Timestamp;

use super::{
    BundleError, BundleLocation, Loaded, Loader, Release, SignedBundle, TrustedKeys,
    cache::BundleCache, load, remote::Remote, session::RemoteConfig,
};

/// How often auth looks for a new bundle, in seconds, unless configured otherwise.
pub const POLL_SECONDS: u32 = 10;
/// How long auth tries to get its first bundle before it gives up.
const START_TIMEOUT: Duration = Duration::from_secs(15);
/// The longest delay between two attempts to reach a server that is away.
const RETRY_DELAY_MAX: Duration = Duration::from_secs(60);

/// How bundles of policies are fetched and trusted.
#[derive(Clone, Debug, clap::Args)]
pub struct BundleConfig {
    /// A TOML file of the public keys that sign bundles, and how many of them must have signed one.
    /// It is followed. Without it, no bundle is trusted.
    #[arg(long, value_name = "FILE", help_heading = "Policy bundles")]
    pub policy_keys: Option<PathBuf>,

    /// A folder that stores the last good bundle, so that auth starts without the server. Its
    /// signatures and its revision are checked again at start.
    #[arg(long, value_name = "FOLDER", help_heading = "Policy bundles")]
    pub policy_cache: Option<PathBuf>,

    /// The longest time between two looks for a new bundle, in seconds.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = POLL_SECONDS,
        value_parser = clap::value_parser!(u32).range(1..=3600),
        help_heading = "Policy bundles"
    )]
    pub policy_poll_seconds: u32,

    /// Deny everything while the bundle is past its `not_after`. Without it that is an alarm, and the
    /// policies stay in force.
    #[arg(long, help_heading = "Policy bundles")]
    pub deny_expired_policies: bool,

    /// How its server is reached.
    #[command(flatten)]
    pub remote: RemoteConfig,
}

impl Default for BundleConfig {
    fn default() -> Self {
        drawbridge_runtime::parse_defaults(&[])
    }
}

/// A bundle at a server, and which one is in force.
#[derive(Debug)]
pub(in crate::policy) struct BundleFollower {
    remote: Remote,
    keys_path: PathBuf,
    keys: TrustedKeys,
    cache: Option<BundleCache>,
    current: Option<Release>,
    denies_expired: bool,
    poll: Duration,
    retries: ReconnectDelays,
}

/// What the time does to a bundle in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::policy) enum Expiry {
    /// Its `not_after` has not passed.
    Valid,
    /// It has passed, and the policies stay in force.
    Alarm,
    /// It has passed, and everything is denied.
    Denied,
}

/// The first bundle that is put in force.
pub(in crate::policy) struct FirstBundle {
    pub(in crate::policy) release: Release,
    pub(in crate::policy) loaded: Loaded,
    /// The names of the keys that signed it.
    pub(in crate::policy) signed_by: Vec<String>,
    /// Why it is the last good one from disk and not the server's.
    pub(in crate::policy) problem: Option<BundleError>,
}

impl BundleFollower {
    pub(in crate::policy) async fn new(
        location: &BundleLocation,
        config: &BundleConfig,
    ) -> Result<Self, BundleError> {
        let keys_path = config.policy_keys.clone();
        let keys_path = keys_path.ok_or_else(|| BundleError::NoKeys(location.to_string()))?;
        let cache = config.policy_cache.as_deref().map(|folder| {
            let failed = |source| BundleError::Cache { path: folder.to_owned(), source };
            BundleCache::open(folder).map_err(failed)
        });
        let poll = Duration::from_secs(config.policy_poll_seconds.into());
        Ok(Self {
            remote: Remote::new(location, &config.remote)?,
            keys: read_keys(&keys_path).await?,
            keys_path,
            cache: cache.transpose()?,
            current: None,
            denies_expired: config.deny_expired_policies,
            poll,
            retries: ReconnectDelays::new(poll, poll.max(RETRY_DELAY_MAX)),
        })
    }

    /// The server's bundle, else the last good one from disk. Waits for a server that is away only
    /// without one on disk.
    pub(in crate::policy) async fn first(
        &mut self,
        loader: &mut Loader,
    ) -> Result<FirstBundle, BundleError> {
        let cached = self.cached();
        let known = self.cache.as_ref().and_then(BundleCache::release);
        self.current = known.filter(|release| self.keys.is_for(&release.name));
        let (started, mut retries) = (Instant::now(), ReconnectDelays::default());
        loop {
            let error = match self.next().await {
                Ok(None) => continue,
                Ok(Some(bundle)) => match load(&bundle.packed, loader) {
                    Ok(loaded) => {
                        self.accept(&bundle);
                        let (signed_by, release) = (self.signers(&bundle), bundle.release);
                        return Ok(FirstBundle { release, loaded, signed_by, problem: None });
                    }
                    Err(error) => error,
                },
                Err(error) => error,
            };
            if let Some(bundle) = cached {
                let loaded = load(&bundle.packed, loader)?;
                let (signed_by, release) = (self.signers(&bundle), bundle.release);
                return Ok(FirstBundle { release, loaded, signed_by, problem: Some(error) });
            }
            if !error.is_transient() || started.elapsed() >= START_TIMEOUT {
                return Err(error);
            }
            retries.wait().await;
        }
    }

    fn cached(&self) -> Option<SignedBundle> {
        let loaded = self.cache.as_ref()?.load(&self.keys);
        loaded.unwrap_or_else(|error| {
            let error = error_chain(&error);
            tracing::warn!(error, "the policy bundle on disk cannot be used");
            None
        })
    }

    /// The bundle at the server, if it may replace the one in force. `None`: nothing has changed
    /// there since the last time. Its policies are not checked yet.
    pub(in crate::policy) async fn next(&mut self) -> Result<Option<SignedBundle>, BundleError> {
        let keys = read_keys(&self.keys_path).await?;
        if keys != self.keys {
            self.keys = keys;
            self.remote.forget();
        }
        let fetched = self.fetch().await;
        if fetched.as_ref().is_err_and(BundleError::is_transient) {
            self.remote.forget();
        }
        fetched
    }

    async fn fetch(&mut self) -> Result<Option<SignedBundle>, BundleError> {
        let Some(note) = self.remote.changed_note().await? else { return Ok(None) };
        let release = self.keys.verify(&note)?;
        if let Some(current) = &self.current {
            release.check_replaces(current)?;
        }
        let packed = self.remote.bundle(&release).await?;
        SignedBundle::new(note, release, packed).map(Some)
    }

    /// The names of the keys that have signed a bundle.
    pub(in crate::policy) fn signers(&self, bundle: &SignedBundle) -> Vec<String> {
        bundle.signers(&self.keys)
    }

    /// The bundle is in force from now on.
    pub(in crate::policy) fn accept(&mut self, bundle: &SignedBundle) {
        self.current = Some(bundle.release.clone());
        if let Some(Err(error)) = self.cache.as_ref().map(|cache| cache.store(bundle)) {
            tracing::error!(%error, "the policy bundle cannot be stored on disk");
        }
    }

    /// Waits until it is time to look again.
    pub(in crate::policy) async fn wait(&mut self, is_server_away: bool) {
        if is_server_away {
            self.retries.wait().await;
        } else {
            self.retries.reset();
            // So that replicas do not come all at once.
            tokio::time::sleep(self.poll.mul_f64(rand::random_range(0.8..1.0))).await;
        }
    }

    /// What the time does to a bundle.
    pub(in crate::policy) fn expiry(&self, release: &Release) -> Expiry {
        match release.is_expired(Timestamp::now()) {
            true if self.denies_expired => Expiry::Denied,
            true => Expiry::Alarm,
            false => Expiry::Valid,
        }
    }

    /// What the time does to the bundle in force.
    pub(in crate::policy) fn current_expiry(&self) -> Expiry {
        self.current.as_ref().map_or(Expiry::Valid, |release| self.expiry(release))
    }
}

async fn read_keys(path: &std::path::Path) -> Result<TrustedKeys, BundleError> {
    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || TrustedKeys::parse(&ConfigText::read(&path)?));
    match read.await {
        Ok(keys) => Ok(keys?),
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
