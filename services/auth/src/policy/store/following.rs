//! Policies from a bundle follow it.

use std::{
    sync::{Arc, PoisonError},
    time::Instant,
};

use drawbridge_audit::{AuditLog, Event, event::PolicyChange};
use drawbridge_runtime::{Condition, Effect, Readiness};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use super::{Loaded, PolicyStore};
use crate::{
    metrics::POLICY_BUNDLE_EXPIRED,
    policy::bundle::{BundleError, BundleFollower, Expiry, SignedBundle, load},
};

/// The keys of the notes in `/readyz`.
const NOTE: &str = "policies";
const EXPIRY_NOTE: &str = "policies_expired";
/// The condition that policies decide.
const IN_FORCE: &str = "policies_in_force";
const EXPIRED: &str = "the policy bundle is past its not_after, and no newer one has arrived";

impl PolicyStore {
    /// Looks for new bundles until `stopping`.
    pub(super) async fn follow_bundle(
        self: &Arc<Self>,
        follower: &mut BundleFollower,
        audit: &AuditLog,
        readiness: &Readiness,
        stopping: &CancellationToken,
    ) {
        let mut is_server_away = false;
        let mut reported = None;
        let in_force = readiness.condition(IN_FORCE, Effect::Required);
        readiness.set_note(NOTE, self.status().problem);
        loop {
            let expiry = follower.current_expiry();
            if reported.replace(expiry) != Some(expiry) {
                if expiry == Expiry::Denied {
                    self.deny_all();
                }
                report_expiry(expiry, readiness, &in_force);
            }
            let polled = async {
                follower.wait(is_server_away).await;
                follower.next().await
            };
            let Some(polled) = stopping.run_until_cancelled(polled).await else { return };
            let previous = self.status();
            let mut offered = PolicyChange::default();
            let applied = match polled {
                Ok(None) => continue,
                Ok(Some(bundle)) => {
                    offered.bundle = Some(bundle.release().revision.to_string());
                    offered.signed_by = follower.signers(&bundle);
                    match self.apply(&bundle, follower.expiry(bundle.release())).await {
                        Some(applied) => applied.map(|()| follower.accept(&bundle)),
                        None => return,
                    }
                }
                Err(error) => Err(error),
            };
            is_server_away = applied.as_ref().is_err_and(BundleError::is_transient);
            let is_new_problem = self.status.report(applied.as_ref().err());
            match &applied {
                Ok(()) => {
                    let signed_by = offered.signed_by;
                    let change = self.change(&previous.revision);
                    audit.record(Event::PolicyChange(PolicyChange { signed_by, ..change }));
                }
                Err(error) if is_new_problem && !is_server_away => {
                    let problem = error.brief();
                    (offered.source, offered.previous) = (previous.source, previous.revision);
                    audit.record(Event::PolicyChange(PolicyChange { problem, ..offered }));
                }
                Err(_) => {}
            }
            readiness.set_note(NOTE, self.status().problem);
        }
    }

    /// Denies everything from now on, until another bundle arrives.
    fn deny_all(&self) {
        let current = self.load();
        if !current.is_denying() {
            let loaded = Loaded { policies: current.denying(), warnings: Vec::new() };
            self.replace(loaded, Instant::now());
        }
    }

    /// Puts the policies of a bundle in force. `None`: that has panicked.
    async fn apply(
        self: &Arc<Self>,
        bundle: &SignedBundle,
        expiry: Expiry,
    ) -> Option<Result<(), BundleError>> {
        let (store, bundle) = (Arc::clone(self), bundle.clone());
        let applied = spawn_blocking(move || {
            let started = Instant::now();
            let mut loader = store.loader.lock().unwrap_or_else(PoisonError::into_inner);
            let mut loaded = load(&bundle.packed, &mut loader)?;
            if expiry == Expiry::Denied {
                loaded.policies = loaded.policies.denying();
            }
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

fn report_expiry(expiry: Expiry, readiness: &Readiness, in_force: &Condition) {
    POLICY_BUNDLE_EXPIRED.get().set(u8::from(expiry != Expiry::Valid));
    let (note, state) = match expiry {
        Expiry::Valid => (None, Ok(())),
        Expiry::Alarm => {
            tracing::error!("the policy bundle is past its not_after; it stays in force");
            (Some(EXPIRED.to_owned()), Ok(()))
        }
        Expiry::Denied => {
            tracing::error!("the policy bundle is past its not_after; everything is denied");
            (None, Err(format!("{EXPIRED}; everything is denied")))
        }
    };
    readiness.set_note(EXPIRY_NOTE, note);
    in_force.set(state);
}
