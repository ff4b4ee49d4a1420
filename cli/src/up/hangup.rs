//! The end of the terminal.

/// Listens for SIGHUP from this call on, and waits for it. A process that was told to outlive its
/// terminal (`nohup`) ignores it, and goes on.
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

/// Elsewhere it ends the process as it is, and what is left over is removed as after a kill.
#[cfg(not(target_os = "linux"))]
pub(super) fn signal() -> impl Future<Output = ()> {
    std::future::pending()
}

/// Whether the process was started so that it ignores SIGHUP.
#[cfg(target_os = "linux")]
fn is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // The lowest bit is that of the signal 1, which it is.
    ignored
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 1 != 0)
}
