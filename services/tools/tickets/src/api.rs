//! The RPCs.

use std::{sync::Arc, time::Instant};

use drawbridge_proto::tickets::v1::{
    GetRequest, GetResponse, ReadRequest, ReadResponse, ReplyRequest, ReplyResponse, SearchRequest,
    SearchResponse, SummarizeRequest, SummarizeResponse, summarize_response::Event,
    ticket_service_server,
};
use drawbridge_sdk::{CallContext, transaction_token::VerifiedCaller};
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
    ticket::{TicketWithArticles, read_ticket, ticket_summary},
};

/// The maximum number of events of one summary.
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

    async fn read_ticket(
        &self,
        call: &Call,
        ticket_id: &str,
    ) -> Result<TicketWithArticles, TicketError> {
        with_deadline(call, read_ticket(&self.helpdesk, call, ticket_id.parse()?)).await
    }
}

/// The caller and the call's context.
fn admit<T>(request: &Request<T>) -> Result<Call, TicketError> {
    let caller = VerifiedCaller::from_request(request).ok_or(TicketError::Anonymous)?.clone();
    Ok(Call { caller, context: CallContext::from_request(request) })
}

/// Fails once the call's deadline has passed.
async fn with_deadline<T>(
    call: &Call,
    work: impl Future<Output = Result<T, TicketError>>,
) -> Result<T, TicketError> {
    let result = timeout_at(call.context.deadline.into(), Box::pin(work)).await;
    result.unwrap_or(Err(TicketError::DeadlinePassed))
}

/// Aborts a task when dropped.
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
        let call = admit(&request)?;
        let filter = Filter::parse(request.get_ref())?;
        let found = with_deadline(&call, self.helpdesk.search(&call, &filter)).await?;
        let next_page_token = filter.next_page(found.len()).unwrap_or_default();
        let tickets =
            found.into_iter().take(filter.page_size as usize).map(ticket_summary).collect();
        Ok(Response::new(SearchResponse { tickets, next_page_token }))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let call = admit(&request)?;
        let TicketWithArticles { ticket, articles, left_out } =
            self.read_ticket(&call, &request.get_ref().ticket_id).await?;
        Ok(Response::new(GetResponse {
            ticket: Some(ticket),
            articles,
            articles_left_out: left_out,
        }))
    }

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<ReadResponse>, Status> {
        let call = admit(&request)?;
        let TicketWithArticles { ticket, articles, left_out } =
            self.read_ticket(&call, &request.get_ref().ticket_id).await?;
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
        let call = admit(&request)?;
        let summary = Summary::parse(request.into_inner())?;
        let (events, received) = mpsc::channel(EVENTS_MAX);
        let helpdesk = Arc::clone(&self.helpdesk);
        let deadline = call.context.deadline;
        let summary_task = tokio::spawn(
            async move {
                let progress = events.clone();
                let on_progress = move |step| drop(progress.try_send(Ok(Event::Progress(step))));
                let last =
                    with_deadline(&call, summary.create(&helpdesk, &call, on_progress)).await;
                drop(events.send(last).await);
            }
            .in_current_span(),
        );
        let summary_task = AbortOnDrop(summary_task.abort_handle());
        let responses = stream::unfold(
            (received, summary_task),
            move |(mut received, summary_task)| async move {
                // A timeout alone lets ready events through after the deadline.
                let event = match timeout_at(deadline.into(), received.recv()).await {
                    Ok(event) if Instant::now() < deadline => event?,
                    _ => Err(TicketError::DeadlinePassed),
                };
                Some((event, (received, summary_task)))
            },
        )
        .map(|event| Ok(SummarizeResponse { event: Some(event?) }));
        Ok(Response::new(responses.boxed()))
    }

    async fn reply(
        &self,
        request: Request<ReplyRequest>,
    ) -> Result<Response<ReplyResponse>, Status> {
        let call = admit(&request)?;
        // `post` enforces the deadline itself: aborting it would leave open whether the reply was
        // posted.
        Ok(Response::new(self.replies.post(call, request.into_inner()).await?))
    }
}
