//! Policies from a bundle follow it.

use std::{
    sync::{Arc, PoisonError},
    time::Instant,
};

use drawbridge_runtime::Readiness;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::PolicyStore;
use crate::{
    metrics::POLICY_BUNDLE_EXPIRED,
    policy::bundle::{BundleError, BundleFollower, SignedBundle, load},
};

/// The keys of the notes in `/readyz`.
const NOTE: &str = "policies";
const EXPIRY_NOTE: &str = "policies_expired";

impl PolicyStore {
    /// Looks for new bundles until `stopping`.
    pub(super) async fn follow_bundle(
        self: &Arc<Self>,
        follower: &mut BundleFollower,
        readiness: &Readiness,
        stopping: &CancellationToken,
    ) {
        let mut is_server_away = false;
        let mut is_expired = None;
        readiness.set_note(NOTE, self.status().problem);
        loop {
            if is_expired != Some(follower.is_expired()) {
                is_expired = Some(follower.is_expired());
                report_expiry(follower.is_expired(), readiness);
            }
            let polled = async {
                follower.wait(is_server_away).await;
                follower.next().await
            };
            let Some(polled) = stopping.run_until_cancelled(polled).await else { return };
            let applied = match polled {
                Ok(None) => continue,
                Ok(Some(bundle)) => match self.apply(&bundle).await {
                    Some(applied) => applied.map(|()| follower.accept(&bundle)),
                    None => return,
                },
                Err(error) => Err(error),
            };
            is_server_away = applied.as_ref().is_err_and(BundleError::is_transient);
            self.status.report(applied.as_ref().err());
            readiness.set_note(NOTE, self.status().problem);
        }
    }

    /// Puts the policies of a bundle in force. `None`: that has panicked.
    async fn apply(self: &Arc<Self>, bundle: &SignedBundle) -> Option<Result<(), BundleError>> {
        let (store, bundle) = (Arc::clone(self), bundle.clone());
        let applied = spawn_blocking(move || {
            let started = Instant::now();
            let mut loader = store.loader.lock().unwrap_or_else(PoisonError::into_inner);
            let loaded = load(&bundle.packed, &mut loader)?;
            if loaded.policies.revision() != store.load().revision() {
                store.replace(loaded, started);
            }
            store.status.replaced(store.load().revision(), Some(bundle.release()));
            Ok(())
        });
        match applied.await {
            Ok(applied) => Some(applied),
            Err(error) => {
                tracing::error!(%error, "stopped following the policy bundle");
                None
            }
        }
    }
}

fn report_expiry(is_expired: bool, readiness: &Readiness) {
    POLICY_BUNDLE_EXPIRED.get().set(u8::from(is_expired));
    let note = is_expired.then(|| {
        tracing::error!("the policy bundle is past its not_after; it stays in force");
        "the policy bundle is past its not_after, and no newer one has arrived".to_owned()
    });
    readiness.set_note(EXPIRY_NOTE, note);
}
