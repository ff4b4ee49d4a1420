//! What auth needs to be ready (docs/reference/readiness.md): nothing of another service of the
//! mesh, so that no two services wait for one another.

use std::{future::ready, sync::Arc};

use drawbridge_runtime::{Effect, ServiceBuilder};

use crate::{authn::Issuers, revocation::Revocations};

/// Watches what auth needs.
pub(crate) fn watch(builder: &ServiceBuilder, issuers: &Arc<Issuers>, revocations: &Revocations) {
    let (readiness, stopping) = (builder.readiness(), builder.stopping());
    builder.spawn(Arc::clone(issuers).fetch_ahead(stopping.clone()));
    let issuers = Arc::clone(issuers);
    let check = move || {
        let reason = || "the keys of no issuer could be fetched".to_owned();
        ready(issuers.is_usable().then_some(()).ok_or_else(reason))
    };
    let condition = readiness.condition("issuer_keys", Effect::Required);
    builder.spawn(condition.monitor(check, stopping.clone()));

    let readable = revocations.readable();
    let check = move || {
        let reason = || "their list cannot be read; all tokens are rejected".to_owned();
        ready((*readable.borrow()).then_some(()).ok_or_else(reason))
    };
    let condition = readiness.condition("revocations", Effect::Required);
    builder.spawn(condition.monitor(check, stopping));
}
