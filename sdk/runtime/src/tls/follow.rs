use std::{error::Error, sync::Arc, time::Duration};

use metrics::{counter, gauge};
use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::ReloadMetrics;
use crate::readiness::Readiness;

/// How often files are read. Polling contents instead of events detects every way to change a file.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Follows files until `stopping`: `apply` uses what `read` returns, and returns whether it is new.
/// An error is reported in `readiness` and changes nothing else.
pub async fn follow<C, E>(
    names: &ReloadMetrics,
    read: impl Fn() -> Result<C, E> + Clone + Send + 'static,
    apply: impl Fn(&C) -> Result<bool, E>,
    readiness: Readiness,
    stopping: CancellationToken,
) where
    C: PartialEq + Send + Sync + 'static,
    E: Error + Send + 'static,
{
    // The first poll applies the files again, in case they have changed since startup.
    let (mut last_seen, mut last_tried) = (None, None);
    let mut ticks = interval(POLL_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stopping.run_until_cancelled(ticks.tick()).await.is_some() {
        let contents = match spawn_blocking(read.clone()).await {
            Ok(contents) => contents.map(Arc::new),
            Err(error) => {
                tracing::error!(%error, "cannot follow the certificate files any longer");
                return;
            }
        };
        // Several files do not change at once: contents that are equal at two polls have settled.
        let key = contents.as_ref().ok().cloned();
        let settled = last_seen.replace(key.clone()).is_some_and(|before| before == key);
        if !settled || last_tried.as_ref() == Some(&key) {
            continue;
        }
        last_tried = Some(key);
        let applied = contents.and_then(|contents| apply(&contents));
        readiness.set_note(names.note, report(names, applied));
    }
}

/// Reports the outcome, and returns the error's text.
fn report(names: &ReloadMetrics, applied: Result<bool, impl Error>) -> Option<String> {
    match applied {
        Ok(new) => {
            if new {
                tracing::info!(of = names.note, "the certificate changed");
            }
            gauge!(names.current).set(1);
            None
        }
        Err(error) => {
            let reason = crate::error_chain(&error);
            tracing::error!(
                of = names.note,
                wrong = reason,
                "the certificate cannot be used; the previous one stays in use"
            );
            counter!(names.failed).increment(1);
            gauge!(names.current).set(0);
            Some(reason)
        }
    }
}
