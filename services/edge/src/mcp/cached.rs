//! A call whose result may be kept.

use std::{sync::Arc, time::Instant};

use drawbridge_sdk::{CallContext, dynamic::WireMessage};
use secrecy::{ExposeSecret as _, SecretString};
use tonic::Status;
use tracing::Instrument as _;

use super::{
    call::{Calling, Failure, Last},
    content,
    reuse::Reuse,
    status,
};
use crate::{
    grpc::upstream::{EncodedMessage, Event, Target},
    traffic::cache::{Fetch, Hit, Look, Rule, Ticket},
};

impl Calling<'_> {
    /// Answers with what is kept, or calls, and keeps the result.
    pub(super) async fn kept_or_called(
        &self,
        rule: &Arc<Rule>,
        token: &Arc<SecretString>,
        epoch: u64,
        message: &EncodedMessage,
    ) -> Result<(Last, Option<Reuse>), Failure> {
        let cache = &self.handler.cache;
        let noted = |outcome| self.admission.span.record("drawbridge.cache", outcome);
        let ticket = cache.ticket(rule, self.target.rpc(), message.message(), token, epoch);
        let Some(ticket) = ticket else {
            noted("bypass");
            return Ok((self.once(token, message).await?, Some(Reuse::passed(rule))));
        };
        let began = Instant::now();
        let deadline = self.admission.context.deadline.min(began + self.target.timeout);
        let fetch = match cache.look(&ticket, deadline).await {
            Look::Hit(Hit { message: kept, age, refresh }) => {
                if let Some(fetch) = refresh {
                    self.refresh(ticket.again(), fetch, Arc::clone(token), message.clone());
                }
                let result = WireMessage::new(Arc::clone(self.target.result()), kept);
                noted("hit");
                return Ok((Last::Result(result), Some(Reuse::kept(rule, age))));
            }
            Look::Miss(fetch) => fetch,
        };
        noted("miss");
        let ended = self.once(token, message).await;
        if let Some(fetch) = fetch {
            match &ended {
                Ok(Last::Result(result)) if content::is_success(result) => {
                    cache.keep(&ticket, fetch, result.bytes().clone()).await;
                }
                _ => fetch.fail(),
            }
        }
        Ok((ended?, Some(Reuse::fetched(rule, began.elapsed()))))
    }

    /// Fetches a result anew with the caller's transaction token, which lives long enough. Nobody waits for it.
    fn refresh(
        &self,
        ticket: Ticket,
        fetch: Fetch,
        token: Arc<SecretString>,
        message: EncodedMessage,
    ) {
        let (cache, target) = (Arc::clone(&self.handler.cache), self.target.clone());
        let request_id = self.admission.context.request_id.clone();
        // The request's own span ends with its answer.
        let span = tracing::info_span!(parent: None, "refresh", %request_id);
        span.follows_from(&self.admission.span);
        let turn = self.turn();
        let refreshing = async move {
            let Some(fetch) = cache.refreshed_elsewhere(&ticket, fetch).await else { return };
            let Ok(_turn) = turn.await else { return fetch.fail() };
            let context = CallContext::new(request_id, target.timeout);
            match called(&target, &context, &token, &message).await {
                Ok(Event::Result(result)) if content::is_success(&result) => {
                    cache.keep(&ticket, fetch, result.bytes().clone()).await;
                }
                // What there is is answered with until its time is over.
                Err(status) if !status::says_no(&status) => fetch.fail(),
                Ok(_) | Err(_) => cache.forget(&ticket, fetch).await,
            }
        };
        tokio::spawn(refreshing.instrument(span));
    }
}

/// How a call ends of whose progress nobody is told.
async fn called(
    target: &Target,
    context: &CallContext,
    token: &SecretString,
    message: &EncodedMessage,
) -> Result<Event, Status> {
    let mut answering = target.begin(context, token.expose_secret(), message).await?;
    loop {
        match answering.next().await? {
            Event::Progress(_) | Event::Log(_) => {}
            ended => return Ok(ended),
        }
    }
}
