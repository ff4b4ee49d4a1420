//! The RPCs.

use std::{sync::Arc, time::Instant};

use drawbridge_proto::invoices::v1::{
    ExtractRequest, ExtractResponse, extract_response::Event, invoice_service_server,
};
use drawbridge_sdk::{CallContext, identity::Caller};
use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use tokio::{
    sync::{Semaphore, mpsc},
    time::timeout_at,
};
use tonic::{Request, Response, Status};
use tracing::Span;

use crate::{error::InvoiceError, extract::extract};

/// Documents that are read at once. Further ones wait, as long as their deadlines allow.
const DOCUMENTS_AT_ONCE_MAX: usize = 4;
/// Events that may wait for a slow caller; then the work waits too.
const EVENTS_MAX: usize = 4;

/// The invoices service.
#[derive(Debug)]
pub(crate) struct InvoiceApi {
    turns: Arc<Semaphore>,
}

impl InvoiceApi {
    pub(crate) fn new() -> Self {
        Self { turns: Arc::new(Semaphore::new(DOCUMENTS_AT_ONCE_MAX)) }
    }
}

/// Notes who calls, and tells how long they wait.
fn admit<T>(request: &Request<T>, rpc: &str) -> Instant {
    let caller = Caller::of(request).map(|caller| &caller.claims);
    tracing::info!(
        rpc,
        subject = caller.map(|claims| claims.sub.as_str()),
        issuer = caller.map(|claims| claims.tctx.iss.as_str()),
        actor = caller.and_then(|claims| Some(claims.act.as_ref()?.sub.as_str())),
        "called"
    );
    CallContext::of(request).deadline
}

#[tonic::async_trait]
impl invoice_service_server::InvoiceService for InvoiceApi {
    type ExtractStream = BoxStream<'static, Result<ExtractResponse, Status>>;

    async fn extract(
        &self,
        request: Request<ExtractRequest>,
    ) -> Result<Response<Self::ExtractStream>, Status> {
        let deadline = admit(&request, "Extract");
        let turn = timeout_at(deadline.into(), Arc::clone(&self.turns).acquire_owned())
            .await
            .map_err(|_| InvoiceError::DeadlinePassed)?
            .map_err(|error| InvoiceError::Failed(error.into()))?;
        let request = request.into_inner();
        let (events, told) = mpsc::channel(EVENTS_MAX);
        let span = Span::current();
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            // Nobody receives any more when the caller has gone or the deadline has passed.
            let tell = |event| events.blocking_send(event).map_err(|_| InvoiceError::Cancelled);
            let result = span.in_scope(|| extract(&request, |progress| tell(Ok(Event::Progress(progress)))));
            drop(tell(result.map(Event::Result)));
        });
        let responses = stream::unfold(told, move |mut told| async move {
            // The timeout alone lets what is ready through when the deadline has passed already.
            let event = match timeout_at(deadline.into(), told.recv()).await {
                Ok(event) if Instant::now() < deadline => event?,
                _ => Err(InvoiceError::DeadlinePassed),
            };
            Some((event, told))
        })
        .map(|event| Ok(ExtractResponse { event: Some(event?) }));
        Ok(Response::new(responses.boxed()))
    }
}
