//! The RPCs.

use std::sync::Arc;

use drawbridge_proto::invoices::v1::{
    ApproveRequest, ApproveResponse, ExtractRequest, ExtractResponse, ExtractResult, GetRequest,
    GetResponse, ReadRequest, ReadResponse, ReviewRequest, ReviewResponse, SaveRequest,
    SaveResponse, SearchRequest, SearchResponse, extract_response::Event, invoice_service_server,
};
use drawbridge_sdk::{BlockingJobs, CallContext, identity::Caller};
use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use prost::Message as _;
use tokio_util::sync::DropGuard;
use tonic::{Request, Response, Status};

use self::{approval::Limit, documents::Source};
use crate::{
    error::InvoiceError,
    store::{
        Access, Asking, Columns, Scope, Store, Stored, find::Find, save::Save, search::Search,
    },
};

pub(crate) mod approval;
mod documents;
mod page;
mod review;

/// The invoices of a page, where the caller does not say.
const PAGE_SIZE: u32 = 20;
const PAGE_SIZE_MAX: u32 = 100;

/// The invoices service.
#[derive(Debug)]
pub(crate) struct InvoiceApi {
    store: Arc<Store>,
    limit: Limit,
    jobs: BlockingJobs,
    /// Says that no call is left.
    _in_use: DropGuard,
}

impl InvoiceApi {
    /// The service, which reads documents by `jobs` and lets `in_use` go when no call is left.
    pub(crate) fn new(
        store: Arc<Store>,
        limit: Limit,
        jobs: BlockingJobs,
        in_use: DropGuard,
    ) -> Self {
        Self { store, limit, jobs, _in_use: in_use }
    }

    /// One invoice with what was read from its document.
    async fn find(
        &self,
        asking: &Asking,
        id: &str,
        access: Access,
    ) -> Result<(Stored, ExtractResult), InvoiceError> {
        let found = self.store.run(asking, &Find { id, access }).await?;
        let (stored, extracted) = found.ok_or(InvoiceError::NotFound)?;
        let extracted = ExtractResult::decode(extracted.as_slice());
        Ok((stored, extracted.map_err(|error| InvoiceError::Failed(error.into()))?))
    }
}

/// Notes who calls, and for how long they wait.
fn admit<T>(request: &Request<T>, rpc: &str) -> Result<Asking, InvoiceError> {
    let caller = Caller::of(request).cloned().ok_or(InvoiceError::Unknown)?;
    tracing::info!(
        rpc,
        subject = caller.claims.sub,
        issuer = caller.claims.tctx.iss,
        actor = caller.claims.act.as_ref().map(|actor| actor.sub.as_str()),
        "called"
    );
    Ok(Asking { caller, context: CallContext::of(request) })
}

#[tonic::async_trait]
impl invoice_service_server::InvoiceService for InvoiceApi {
    type ExtractStream = BoxStream<'static, Result<ExtractResponse, Status>>;

    async fn extract(
        &self,
        request: Request<ExtractRequest>,
    ) -> Result<Response<Self::ExtractStream>, Status> {
        let asking = admit(&request, "Extract")?;
        let ExtractRequest { document, media_type, uri } = request.into_inner();
        let document = self.document(&asking, Source { document, media_type, uri }).await?;
        let told = self.extracting(&asking.context, document.into()).await?;
        let responses = stream::unfold(told, async |mut told| Some((told.next().await?, told)))
            .map(|event| Ok(ExtractResponse { event: Some(event?) }));
        Ok(Response::new(responses.boxed()))
    }

    async fn save(&self, request: Request<SaveRequest>) -> Result<Response<SaveResponse>, Status> {
        let asking = admit(&request, "Save")?;
        let SaveRequest { document, media_type, uri, shared } = request.into_inner();
        if shared && !Scope::of(asking.caller.principal(), Access::Write).has_tenant() {
            return Err(InvoiceError::NoTenant.into());
        }
        let document =
            Arc::new(self.document(&asking, Source { document, media_type, uri }).await?);
        let mut told = self.extracting(&asking.context, Arc::clone(&document)).await?;
        let extracted = loop {
            match told.next().await {
                Some(Ok(Event::Result(extracted))) => break extracted,
                Some(Ok(Event::Progress(_))) => {}
                Some(Err(error)) => return Err(error.into()),
                None => return Err(InvoiceError::Cancelled.into()),
            }
        };
        let columns = Columns::of(&document, &extracted)?;
        let save = Save { document: &document, columns: &columns, shared };
        let (stored, created) = self.store.run(&asking, &save).await.map_err(InvoiceError::from)?;
        Ok(Response::new(SaveResponse {
            invoice: Some(stored.into()),
            created,
            findings: extracted.findings,
            findings_truncated: extracted.findings_truncated,
        }))
    }

    async fn search(
        &self,
        request: Request<SearchRequest>,
    ) -> Result<Response<SearchResponse>, Status> {
        let asking = admit(&request, "Search")?;
        let request = request.get_ref();
        let size = request.page_size.unwrap_or(PAGE_SIZE).clamp(1, PAGE_SIZE_MAX);
        let before = request.page_token.as_deref().map(page::read).transpose()?;
        // One more, which says whether there is another page.
        let search = Search::new(request, before, size + 1)?;
        let mut found = self.store.run(&asking, &search).await.map_err(InvoiceError::from)?;
        let is_last = found.len() <= size as usize;
        found.truncate(size as usize);
        let next_page_token =
            found.last().filter(|_| !is_last).and_then(|last| page::write(&last.id));
        let invoices = found.into_iter().map(Into::into).collect();
        Ok(Response::new(SearchResponse { invoices, next_page_token }))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let asking = admit(&request, "Get")?;
        let (stored, extracted) =
            self.find(&asking, &request.get_ref().invoice_id, Access::Read).await?;
        let ExtractResult { invoice, findings, findings_truncated, confidences } = extracted;
        let summary = Some(stored.into());
        Ok(Response::new(GetResponse {
            summary,
            invoice,
            findings,
            findings_truncated,
            confidences,
        }))
    }

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<ReadResponse>, Status> {
        let asking = admit(&request, "Read")?;
        let (stored, extracted) =
            self.find(&asking, &request.get_ref().invoice_id, Access::Read).await?;
        let ExtractResult { invoice, findings, findings_truncated, confidences } = extracted;
        let summary = Some(stored.into());
        Ok(Response::new(ReadResponse {
            summary,
            invoice,
            findings,
            findings_truncated,
            confidences,
        }))
    }

    async fn review(
        &self,
        request: Request<ReviewRequest>,
    ) -> Result<Response<ReviewResponse>, Status> {
        let asking = admit(&request, "Review")?;
        let (stored, extracted) =
            self.find(&asking, &request.get_ref().invoice_id, Access::Read).await?;
        Ok(Response::new(review::review(stored.into(), &extracted)))
    }

    async fn approve(
        &self,
        request: Request<ApproveRequest>,
    ) -> Result<Response<ApproveResponse>, Status> {
        let asking = admit(&request, "Approve")?;
        Ok(Response::new(self.approval(&asking, request.into_inner()).await?))
    }
}
