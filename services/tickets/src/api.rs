//! The RPCs.

use std::{sync::Arc, time::Instant};

use drawbridge_proto::tickets::v1::{
    GetRequest, GetResponse, ReadRequest, ReadResponse, ReplyRequest, ReplyResponse, SearchRequest,
    SearchResponse, SummarizeRequest, SummarizeResponse, summarize_response::Event,
    ticket_service_server,
};
use drawbridge_sdk::{CallContext, identity::Caller};
use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use tokio::{sync::mpsc, task::AbortHandle, time::timeout_at};
use tonic::{Request, Response, Status};
use tracing::Instrument as _;

use crate::{
    error::TicketError,
    filter::Filter,
    helpdesk::{Call, Helpdesk},
    reply::Replies,
    summary::Summary,
    ticket::{Whole, brief, whole},
};

/// Events of one summary; there are never more.
const EVENTS_MAX: usize = 8;

/// The tickets service.
#[derive(Debug)]
pub(crate) struct TicketApi {
    helpdesk: Arc<Helpdesk>,
    replies: Replies,
}

impl TicketApi {
    pub(crate) fn new(helpdesk: Helpdesk) -> Self {
        let helpdesk = Arc::new(helpdesk);
        Self { replies: Replies::new(Arc::clone(&helpdesk)), helpdesk }
    }

    async fn whole(&self, call: &Call, ticket_id: &str) -> Result<Whole, TicketError> {
        in_time(call, whole(&self.helpdesk, call, ticket_id.parse()?)).await
    }
}

/// Notes who calls, and in whose name the helpdesk is asked.
fn admit<T>(request: &Request<T>, rpc: &str) -> Result<Call, TicketError> {
    let caller = Caller::of(request).ok_or(TicketError::Anonymous)?.clone();
    let claims = &caller.claims;
    tracing::info!(
        rpc,
        subject = claims.sub,
        issuer = claims.tctx.iss,
        tenant = claims.tctx.tenant,
        actor = claims.act.as_ref().map(|actor| actor.sub.as_str()),
        "called"
    );
    Ok(Call { caller, context: CallContext::of(request) })
}

/// As long as the caller waits.
async fn in_time<T>(
    call: &Call,
    work: impl Future<Output = Result<T, TicketError>>,
) -> Result<T, TicketError> {
    let done = timeout_at(call.context.deadline.into(), Box::pin(work)).await;
    done.unwrap_or(Err(TicketError::DeadlinePassed))
}

/// Work that ends with whoever waits for it.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[tonic::async_trait]
impl ticket_service_server::TicketService for TicketApi {
    type SummarizeStream = BoxStream<'static, Result<SummarizeResponse, Status>>;

    async fn search(
        &self,
        request: Request<SearchRequest>,
    ) -> Result<Response<SearchResponse>, Status> {
        let call = admit(&request, "Search")?;
        let filter = Filter::parse(request.get_ref())?;
        let found = in_time(&call, self.helpdesk.search(&call, &filter)).await?;
        let next_page_token = filter.next_page(found.len()).unwrap_or_default();
        let tickets = found.into_iter().take(filter.page_size as usize).map(brief).collect();
        Ok(Response::new(SearchResponse { tickets, next_page_token }))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let call = admit(&request, "Get")?;
        let Whole { ticket, articles, left_out } =
            self.whole(&call, &request.get_ref().ticket_id).await?;
        Ok(Response::new(GetResponse {
            ticket: Some(ticket),
            articles,
            articles_left_out: left_out,
        }))
    }

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<ReadResponse>, Status> {
        let call = admit(&request, "Read")?;
        let Whole { ticket, articles, left_out } =
            self.whole(&call, &request.get_ref().ticket_id).await?;
        Ok(Response::new(ReadResponse {
            ticket: Some(ticket),
            articles,
            articles_left_out: left_out,
        }))
    }

    async fn summarize(
        &self,
        request: Request<SummarizeRequest>,
    ) -> Result<Response<Self::SummarizeStream>, Status> {
        let call = admit(&request, "Summarize")?;
        let summary = Summary::parse(request.into_inner())?;
        let (events, told) = mpsc::channel(EVENTS_MAX);
        let helpdesk = Arc::clone(&self.helpdesk);
        let deadline = call.context.deadline;
        let making = tokio::spawn(
            async move {
                let progress = events.clone();
                let tell = move |step| drop(progress.try_send(Ok(Event::Progress(step))));
                let last = in_time(&call, summary.make(&helpdesk, &call, tell)).await;
                drop(events.send(last).await);
            }
            .in_current_span(),
        );
        let making = AbortOnDrop(making.abort_handle());
        let responses = stream::unfold((told, making), move |(mut told, making)| async move {
            // The timeout alone lets what is ready through when the deadline has passed already.
            let event = match timeout_at(deadline.into(), told.recv()).await {
                Ok(event) if Instant::now() < deadline => event?,
                _ => Err(TicketError::DeadlinePassed),
            };
            Some((event, (told, making)))
        })
        .map(|event| Ok(SummarizeResponse { event: Some(event?) }));
        Ok(Response::new(responses.boxed()))
    }

    async fn reply(
        &self,
        request: Request<ReplyRequest>,
    ) -> Result<Response<ReplyResponse>, Status> {
        let call = admit(&request, "Reply")?;
        // It keeps the deadline itself: an end from outside would leave open what was posted.
        Ok(Response::new(self.replies.post(call, request.into_inner()).await?))
    }
}
