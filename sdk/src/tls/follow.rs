use std::{error::Error, sync::Arc, time::Duration};

use metrics::{counter, gauge};
use tokio::{
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use super::Names;
use crate::admin::Readiness;

/// How often files are looked at. Contents count and not events, so that every way to change a file is seen.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Follows files until `stopping`: `take` uses what `read` finds, and says whether that is new. What is wrong with the
/// files shows in `readiness` and changes nothing else.
pub(crate) async fn follow<C, E>(
    names: &Names,
    read: impl Fn() -> Result<C, E> + Clone + Send + 'static,
    take: impl Fn(&C) -> Result<bool, E>,
    readiness: Readiness,
    stopping: CancellationToken,
) where
    C: PartialEq + Send + Sync + 'static,
    E: Error + Send + 'static,
{
    // The first look takes again what was there at the start, in case it has changed since.
    let (mut seen, mut tried) = (None, None);
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stopping.run_until_cancelled(looks.tick()).await.is_some() {
        let contents = match spawn_blocking(read.clone()).await {
            Ok(contents) => contents.map(Arc::new),
            Err(error) => {
                tracing::error!(%error, "following the certificate broke off");
                return;
            }
        };
        // Several files do not change at once: what is the same at two looks has settled.
        let key = contents.as_ref().ok().cloned();
        let settled = seen.replace(key.clone()).is_some_and(|before| before == key);
        if !settled || tried.as_ref() == Some(&key) {
            continue;
        }
        tried = Some(key);
        let taken = contents.and_then(|contents| take(&contents));
        readiness.note(names.note, tell(names, taken));
    }
}

/// Tells the operator how it went, and gives back what is wrong.
fn tell(names: &Names, taken: Result<bool, impl Error>) -> Option<String> {
    match taken {
        Ok(new) => {
            if new {
                tracing::info!(of = names.note, "the certificate changed");
            }
            gauge!(names.current).set(1);
            None
        }
        Err(error) => {
            let wrong = crate::error_chain(&error);
            tracing::error!(
                of = names.note,
                wrong,
                "the certificate cannot be used; the one before stays"
            );
            counter!(names.failed).increment(1);
            gauge!(names.current).set(0);
            Some(wrong)
        }
    }
}
