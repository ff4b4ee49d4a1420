//! Sinks: receivers outside of the process that the lines of a log are sent to.
//!
//! A sink reads the files of the log, which are the truth: what a receiver has not acknowledged is
//! sent again, also after a restart, in order. Only lines that are on the disk are sent, so that a
//! receiver never has a line that the log loses in a power failure.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use data_encoding::HEXLOWER;
use drawbridge_runtime::{Effect, ServiceBuilder, is_loopback};
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use url::Url;

use self::{http::HttpReceiver, otlp::OtlpReceiver, receiver::Receiver, worker::Worker};
use crate::{AuditConfig, open::AuditError, position::forget_others};

mod backlog;
mod delivery;
mod http;
mod orphans;
mod otlp;
mod receiver;
mod worker;

/// The length of the digest of a URL, in bytes.
const DIGEST_BYTES: usize = 4;
/// How long receivers may take to acknowledge the last lines when the service stops. What they have
/// not is sent after the next start.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// The configured receivers, each with its name and the address for people.
#[derive(Debug)]
pub(crate) struct Receivers(Vec<(&'static str, String, Receiver)>);

impl Receivers {
    /// Reads what is configured.
    ///
    /// # Errors
    /// When it cannot be used: a sink without files, plaintext to another host, an invalid variable.
    pub(crate) fn new(config: &AuditConfig) -> Result<Self, AuditError> {
        let sinks = &config.sinks;
        let mut receivers = Vec::new();
        let failed = |problem: &dyn fmt::Display| AuditError::Sink(problem.to_string());
        if let Some(url) = &sinks.audit_http_url {
            require_private(url, sinks.audit_sink_plaintext)?;
            let receiver = HttpReceiver::new(url.clone(), sinks).map_err(|error| failed(&error))?;
            receivers.push(("http", address(url), Receiver::Http(receiver)));
        }
        if sinks.audit_otlp {
            let settings = otlp::settings(sinks).map_err(|error| failed(&error))?;
            require_private(settings.endpoint(), sinks.audit_sink_plaintext)?;
            let address = address(settings.endpoint());
            let receiver = OtlpReceiver::new(settings).map_err(|error| failed(&error))?;
            receivers.push(("otlp", address, Receiver::Otlp(Box::new(receiver))));
        }
        if !receivers.is_empty()
            && config.audit_log.as_ref().is_none_or(|path| path.as_os_str() == "-")
        {
            let problem = "receivers get the lines from files; --audit-log must be a folder";
            return Err(AuditError::Sink(problem.to_owned()));
        }
        Ok(Self(receivers))
    }
}

/// The origin of a URL: user, path and query may be secret. A short digest tells URLs apart.
fn address(url: &Url) -> String {
    let digest = HEXLOWER.encode(&Sha256::digest(url.as_str())[..DIGEST_BYTES]);
    format!("{} ({digest})", url.origin().ascii_serialization())
}

/// Records name persons: they leave the host in plaintext only where that is configured.
fn require_private(url: &Url, is_allowed: bool) -> Result<(), AuditError> {
    if url.scheme() == "https" || is_allowed || is_loopback(url) {
        return Ok(());
    }
    Err(AuditError::Sink(format!(
        "{} would get it in plaintext; use https, or allow that with --audit-sink-plaintext",
        url.origin().ascii_serialization()
    )))
}

/// The log that sinks send.
#[derive(Debug)]
pub(crate) struct SentLog {
    /// The name of the service.
    pub(crate) service: &'static str,
    pub(crate) replica: String,
    /// The folder of the log that is being written.
    pub(crate) folder: PathBuf,
    /// How many of its lines are on the disk.
    pub(crate) durable: watch::Receiver<u64>,
    /// Whether lines are not deleted before receivers have acknowledged them.
    pub(crate) is_required: bool,
}

impl SentLog {
    /// The folders of the logs of this replica, in their order. The last one is being written.
    fn folders(&self) -> io::Result<Vec<PathBuf>> {
        let prefix = format!("{}.{}.", self.service, self.replica);
        let mut folders = Vec::new();
        for entry in fs::read_dir(self.folder.parent().unwrap_or(Path::new(".")))? {
            let path = entry?.path();
            let start = path.file_name().and_then(|name| name.to_str()?.strip_prefix(&prefix));
            let is_log = start.is_some_and(|start| start.ends_with('Z') && !start.contains('.'));
            if is_log && path.is_dir() && path <= self.folder {
                folders.push(path);
            }
        }
        folders.sort_unstable();
        Ok(folders)
    }
}

/// The name of the log in a folder, `<service>.<replica>.<start>`. Names of replicas may have dots.
fn name_of(folder: &Path) -> Arc<str> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let (service, rest) = name.split_once('.').unwrap_or_default();
    let (replica, start) = rest.rsplit_once('.').unwrap_or_default();
    format!("{service}/{replica}/{start}").into()
}

/// The running sinks of a log.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sinks {
    closing: CancellationToken,
    ended: CancellationToken,
    workers: TaskTracker,
}

impl Sinks {
    /// Starts to send the log to each receiver.
    pub(crate) fn start(
        receivers: Receivers,
        log: SentLog,
        service: &ServiceBuilder,
    ) -> io::Result<Self> {
        let sinks = Self::default();
        let log = Arc::new(log);
        let names: Vec<_> = receivers.0.iter().map(|(name, ..)| *name).collect();
        for folder in log.folders()? {
            forget_others(&folder, &names)?;
        }
        for (name, to, receiver) in receivers.0 {
            let topic = if name == "http" { "audit_http" } else { "audit_otlp" };
            let condition = service.readiness().condition(topic, Effect::Degrading);
            let worker = Worker::new(name, to, receiver, Arc::clone(&log), condition);
            let (closing, ended) = (sinks.closing.clone(), sinks.ended.clone());
            service.spawn(sinks.workers.track_future(async move {
                ended.run_until_cancelled(worker.run(closing)).await;
            }));
        }
        sinks.workers.close();
        Ok(sinks)
    }

    /// Waits until the receivers have acknowledged what is on the disk, or three seconds.
    pub(crate) async fn close(&self) {
        self.closing.cancel();
        if tokio::time::timeout(CLOSE_TIMEOUT, self.workers.wait()).await.is_err() {
            tracing::warn!("a receiver of the audit log lacks its end; the next start sends it");
        }
        self.ended.cancel();
    }
}

#[cfg(test)]
mod tests;
