//! Loads documents, and extracts them on blocking threads.

use std::{sync::Arc, time::Instant};

use drawbridge_proto::invoices::v1::extract_response::Event;
use drawbridge_sdk::{BlockingJob, CallContext};
use tokio::{sync::mpsc, time::timeout_at};

use super::InvoiceApi;
use crate::{
    document::Document,
    error::InvoiceError,
    extract::extract,
    store::{CallerContext, find::FindDocument},
};

/// Events buffered for a slow caller; when full, extraction blocks.
const EVENTS_MAX: usize = 4;

/// The document fields of a request.
pub(super) struct DocumentSource {
    pub(super) document: Option<Vec<u8>>,
    pub(super) media_type: Option<String>,
    pub(super) uri: Option<String>,
}

/// The events of an extraction: progress, and finally the result.
pub(super) struct ExtractEvents {
    events: mpsc::Receiver<Result<Event, InvoiceError>>,
    deadline: Instant,
    /// Cancelled when this is dropped.
    _job: BlockingJob<()>,
}

impl ExtractEvents {
    pub(super) async fn next(&mut self) -> Option<Result<Event, InvoiceError>> {
        // A timeout alone lets ready events through after the deadline.
        match timeout_at(self.deadline.into(), self.events.recv()).await {
            Ok(event) if Instant::now() < self.deadline => event,
            _ => Some(Err(InvoiceError::DeadlinePassed)),
        }
    }
}

impl InvoiceApi {
    /// The document in the request, or that of a stored invoice.
    pub(super) async fn document(
        &self,
        call: &CallerContext,
        source: DocumentSource,
    ) -> Result<Document, InvoiceError> {
        match source {
            DocumentSource { document: Some(bytes), media_type: Some(media_type), uri: None } => {
                Ok(Document { media_type, bytes })
            }
            DocumentSource { document: None, media_type: None, uri: Some(uri) } => {
                let problem = "must be invoice://, followed by the id of a stored invoice";
                let id = uri.strip_prefix("invoice://");
                let id = id.ok_or(InvoiceError::Argument { field: "uri", problem })?;
                self.store.run(call, &FindDocument { id }).await?.ok_or(InvoiceError::NotFound)
            }
            _ => Err(InvoiceError::Argument {
                field: "document",
                problem: "give either `document` with `media_type`, or `uri`",
            }),
        }
    }

    /// Starts extracting a document on a blocking thread.
    pub(super) async fn start_extraction(
        &self,
        context: &CallContext,
        document: Arc<Document>,
    ) -> Result<ExtractEvents, InvoiceError> {
        let deadline = context.deadline;
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let job = self.jobs.start(deadline, move |cancellation| {
            // The receiver is dropped when the call is cancelled or its deadline has passed.
            let send = |event| sender.blocking_send(event).map_err(|_| InvoiceError::Cancelled);
            let result =
                extract(&document, cancellation, |progress| send(Ok(Event::Progress(progress))));
            drop(send(result.map(Event::Result)));
        });
        Ok(ExtractEvents { events, deadline, _job: job.await? })
    }
}
