//! Calls whose results may be cached.

use std::{sync::Arc, time::Instant};

use drawbridge_contract::dynamic::WireMessage;
use drawbridge_transport::{CallContext, client_span};
use secrecy::{ExposeSecret as _, SecretString};
use tonic::Status;
use tracing::{Instrument as _, field::Empty};

use super::{
    cache_status::CacheStatus,
    call::{CallFailure, CallRunner, RoundOutcome},
    content, status,
};
use crate::{
    grpc::upstream::{CallEvent, EncodedMessage, RpcTarget},
    traffic::cache::{CacheKeyed, CacheRule, Fetch, Hit, Lookup},
};

impl CallRunner<'_> {
    /// Returns the cached result, or calls the service and caches its result.
    pub(super) async fn call_cached(
        &self,
        rule: &Arc<CacheRule>,
        token: &Arc<SecretString>,
        epoch: u64,
        message: &EncodedMessage,
    ) -> Result<(RoundOutcome, Option<CacheStatus>), CallFailure> {
        let cache = &self.handler.cache;
        let record = |outcome| {
            self.admission.span.record("drawbridge.cache", outcome);
            self.admission.recorder.looked_up(outcome);
        };
        let keyed = cache.keyed(rule, self.target.rpc(), message.message(), token, epoch);
        let Some(keyed) = keyed else {
            record("bypass");
            return Ok((
                self.call_with_retry(token, message).await?,
                Some(CacheStatus::bypass(rule)),
            ));
        };
        let began = Instant::now();
        let deadline = self.admission.context.deadline.min(began + self.target.timeout);
        let span =
            tracing::info_span!("cache", otel.name = "cache lookup", drawbridge.cache = Empty);
        let looked_up = cache.lookup(&keyed, deadline).instrument(span.clone()).await;
        span.record("drawbridge.cache", looked_up.outcome());
        drop(span);
        let fetch = match looked_up {
            Lookup::Hit(Hit { message: cached, age, refresh }) => {
                if let Some(fetch) = refresh {
                    self.refresh(keyed.restarted(), fetch, Arc::clone(token), message.clone());
                }
                let result = WireMessage::new(Arc::clone(self.target.result()), cached);
                record("hit");
                return Ok((RoundOutcome::Result(result), Some(CacheStatus::hit(rule, age))));
            }
            Lookup::Miss(fetch) => fetch,
        };
        record("miss");
        let outcome = self.call_with_retry(token, message).await;
        if let Some(fetch) = fetch {
            match &outcome {
                Ok(RoundOutcome::Result(result)) if content::is_success(result) => {
                    cache.store(&keyed, fetch, result.bytes().clone()).await;
                }
                _ => fetch.fail(),
            }
        }
        Ok((outcome?, Some(CacheStatus::miss(rule, began.elapsed()))))
    }

    /// Refreshes an entry in the background with the caller's transaction token, which outlives it.
    fn refresh(
        &self,
        keyed: CacheKeyed,
        fetch: Fetch,
        token: Arc<SecretString>,
        message: EncodedMessage,
    ) {
        let (cache, target) = (Arc::clone(&self.handler.cache), self.target.clone());
        let request_id = self.admission.context.request_id.clone();
        // The request's own span ends with its response.
        let span = tracing::info_span!(parent: None, "refresh", %request_id);
        span.follows_from(&self.admission.span);
        let permit = self.acquire_permit();
        let refreshing = async move {
            let Some(fetch) = cache.adopt_refreshed(&keyed, fetch).await else { return };
            let Ok(_permit) = permit.await else { return fetch.fail() };
            let context = CallContext::new(request_id, target.timeout);
            match call_without_client(&target, &context, &token, &message).await {
                Ok(CallEvent::Result(result)) if content::is_success(&result) => {
                    cache.store(&keyed, fetch, result.bytes().clone()).await;
                }
                // The old entry serves until it expires.
                Err(status) if !status::is_refusal(&status) => fetch.fail(),
                Ok(_) | Err(_) => cache.evict(&keyed, fetch).await,
            }
        };
        self.handler.tasks.spawn_until_stopping(refreshing.instrument(span));
    }
}

/// Calls, and discards progress and log messages.
async fn call_without_client(
    target: &RpcTarget,
    context: &CallContext,
    token: &SecretString,
    message: &EncodedMessage,
) -> Result<CallEvent, Status> {
    let mut response =
        target.begin(client_span(target.rpc()), context, token.expose_secret(), message).await?;
    loop {
        match response.next().await? {
            CallEvent::Progress(_) | CallEvent::Log(_) => {}
            last => return Ok(last),
        }
    }
}
