//! SIGHUP, when the terminal closes.

/// Registers a SIGHUP handler now; the future completes when the signal arrives. A process that
/// inherited an ignored SIGHUP (`nohup`) keeps ignoring it.
#[cfg(target_os = "linux")]
pub(super) fn signal() -> impl Future<Output = ()> {
    use tokio::signal::unix::{SignalKind, signal};

    let signal = if is_ignored() { None } else { signal(SignalKind::hangup()).ok() };
    async {
        match signal {
            Some(mut signal) => {
                signal.recv().await;
            }
            None => std::future::pending().await,
        }
    }
}

/// Elsewhere SIGHUP kills the process, and leftovers are removed as after any kill.
#[cfg(not(target_os = "linux"))]
pub(super) fn signal() -> impl Future<Output = ()> {
    std::future::pending()
}

/// Whether the process inherited an ignored SIGHUP.
#[cfg(target_os = "linux")]
fn is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // Bit 0 is signal 1, SIGHUP.
    ignored
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 1 != 0)
}
