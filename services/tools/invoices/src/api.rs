//! The RPCs.

use std::sync::Arc;

use drawbridge_proto::invoices::v1::{
    ApproveRequest, ApproveResponse, ExtractRequest, ExtractResponse, ExtractResult, GetRequest,
    GetResponse, ReadRequest, ReadResponse, ReviewRequest, ReviewResponse, SaveRequest,
    SaveResponse, SearchRequest, SearchResponse, extract_response::Event, invoice_service_server,
};
use drawbridge_sdk::{BlockingJobs, CallContext, transaction_token::VerifiedCaller};
use futures::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use prost::Message as _;
use tonic::{Request, Response, Status};

use self::{approval::ApprovalLimit, documents::DocumentSource};
use crate::{
    error::InvoiceError,
    store::{
        Access, CallerContext, Columns, Scope, Store, StoredInvoice, find::Find, save::Save,
        search::Search,
    },
};

pub(crate) mod approval;
mod documents;
mod page;
mod review;

/// The default page size of a search.
const PAGE_SIZE: u32 = 20;
const PAGE_SIZE_MAX: u32 = 100;

/// The invoices service.
#[derive(Debug)]
pub(crate) struct InvoiceApi {
    store: Arc<Store>,
    limit: ApprovalLimit,
    jobs: BlockingJobs,
}

impl InvoiceApi {
    /// Creates the service. `jobs` extract documents.
    pub(crate) fn new(store: Arc<Store>, limit: ApprovalLimit, jobs: BlockingJobs) -> Self {
        Self { store, limit, jobs }
    }

    /// One invoice with the extracted data.
    async fn find(
        &self,
        call: &CallerContext,
        id: &str,
        access: Access,
    ) -> Result<(StoredInvoice, ExtractResult), InvoiceError> {
        let invoices_found = self.store.run(call, &Find { id, access }).await?;
        let (stored, extracted) = invoices_found.ok_or(InvoiceError::NotFound)?;
        let extracted = ExtractResult::decode(extracted.as_slice());
        Ok((stored, extracted.map_err(|error| InvoiceError::Failed(error.into()))?))
    }
}

/// The caller and the call's context.
fn admit<T>(request: &Request<T>) -> Result<CallerContext, InvoiceError> {
    let caller = VerifiedCaller::from_request(request).cloned().ok_or(InvoiceError::Unknown)?;
    Ok(CallerContext { caller, context: CallContext::from_request(request) })
}

#[tonic::async_trait]
impl invoice_service_server::InvoiceService for InvoiceApi {
    type ExtractStream = BoxStream<'static, Result<ExtractResponse, Status>>;

    async fn extract(
        &self,
        request: Request<ExtractRequest>,
    ) -> Result<Response<Self::ExtractStream>, Status> {
        let call = admit(&request)?;
        let ExtractRequest { document, media_type, uri } = request.into_inner();
        let document = self.document(&call, DocumentSource { document, media_type, uri }).await?;
        let events = self.start_extraction(&call.context, document.into()).await?;
        let responses =
            stream::unfold(events, async |mut events| Some((events.next().await?, events)))
                .map(|event| Ok(ExtractResponse { event: Some(event?) }));
        Ok(Response::new(responses.boxed()))
    }

    async fn save(&self, request: Request<SaveRequest>) -> Result<Response<SaveResponse>, Status> {
        let call = admit(&request)?;
        let SaveRequest { document, media_type, uri, shared } = request.into_inner();
        if shared && !Scope::of(call.caller.principal(), Access::Write).has_tenant() {
            return Err(InvoiceError::NoTenant.into());
        }
        let document =
            Arc::new(self.document(&call, DocumentSource { document, media_type, uri }).await?);
        let mut events = self.start_extraction(&call.context, Arc::clone(&document)).await?;
        let extracted = loop {
            match events.next().await {
                Some(Ok(Event::Result(extracted))) => break extracted,
                Some(Ok(Event::Progress(_))) => {}
                Some(Err(error)) => return Err(error.into()),
                None => return Err(InvoiceError::Cancelled.into()),
            }
        };
        let columns = Columns::of(&document, &extracted).map_err(InvoiceError::from)?;
        let save = Save { document: &document, columns: &columns, shared };
        let (stored, created) = self.store.run(&call, &save).await.map_err(InvoiceError::from)?;
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
        let call = admit(&request)?;
        let request = request.get_ref();
        let size = request.page_size.unwrap_or(PAGE_SIZE).clamp(1, PAGE_SIZE_MAX);
        let before = request.page_token.as_deref().map(page::read).transpose()?;
        // One more than the page, to know whether another page follows.
        let search = Search::new(request, before, size + 1).map_err(InvoiceError::from)?;
        let mut invoices_found =
            self.store.run(&call, &search).await.map_err(InvoiceError::from)?;
        let is_last = invoices_found.len() <= size as usize;
        invoices_found.truncate(size as usize);
        let next_page_token =
            invoices_found.last().filter(|_| !is_last).and_then(|last| page::write(&last.id));
        let invoices = invoices_found.into_iter().map(Into::into).collect();
        Ok(Response::new(SearchResponse { invoices, next_page_token }))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let call = admit(&request)?;
        let (stored, extracted) =
            self.find(&call, &request.get_ref().invoice_id, Access::Read).await?;
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
        let call = admit(&request)?;
        let (stored, extracted) =
            self.find(&call, &request.get_ref().invoice_id, Access::Read).await?;
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
        let call = admit(&request)?;
        let (stored, extracted) =
            self.find(&call, &request.get_ref().invoice_id, Access::Read).await?;
        Ok(Response::new(review::review(stored.into(), &extracted)))
    }

    async fn approve(
        &self,
        request: Request<ApproveRequest>,
    ) -> Result<Response<ApproveResponse>, Status> {
        let call = admit(&request)?;
        Ok(Response::new(self.approve_invoice(&call, request.into_inner()).await?))
    }
}
