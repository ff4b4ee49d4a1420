//! Where a document comes from, and the threads that read it.

use std::{sync::Arc, time::Instant};

use drawbridge_proto::invoices::v1::extract_response::Event;
use drawbridge_sdk::{BlockingJob, CallContext};
use tokio::{sync::mpsc, time::timeout_at};

use super::InvoiceApi;
use crate::{
    error::InvoiceError,
    extract::{Document, extract},
    store::{Asking, find::FindDocument},
};

/// Events that may wait for a slow caller; then the work waits too.
const EVENTS_MAX: usize = 4;

/// A document as a request names it.
pub(super) struct Source {
    pub(super) document: Option<Vec<u8>>,
    pub(super) media_type: Option<String>,
    pub(super) uri: Option<String>,
}

/// What is told of a document that is being read: progress, and in the end the invoice.
pub(super) struct Told {
    events: mpsc::Receiver<Result<Event, InvoiceError>>,
    deadline: Instant,
    /// Cancelled with this.
    _job: BlockingJob<()>,
}

impl Told {
    pub(super) async fn next(&mut self) -> Option<Result<Event, InvoiceError>> {
        // The timeout alone lets what is ready through when the deadline has passed already.
        match timeout_at(self.deadline.into(), self.events.recv()).await {
            Ok(event) if Instant::now() < self.deadline => event,
            _ => Some(Err(InvoiceError::DeadlinePassed)),
        }
    }
}

impl InvoiceApi {
    /// The document that a request holds, or that of a stored invoice.
    pub(super) async fn document(
        &self,
        asking: &Asking,
        source: Source,
    ) -> Result<Document, InvoiceError> {
        match source {
            Source { document: Some(bytes), media_type: Some(media_type), uri: None } => {
                Ok(Document { media_type, bytes })
            }
            Source { document: None, media_type: None, uri: Some(uri) } => {
                let problem = "must be invoice://, followed by the id of a stored invoice";
                let id = uri.strip_prefix("invoice://");
                let id = id.ok_or(InvoiceError::Argument { field: "uri", problem })?;
                self.store.run(asking, &FindDocument { id }).await?.ok_or(InvoiceError::NotFound)
            }
            _ => Err(InvoiceError::Argument {
                field: "document",
                problem: "give either `document` with `media_type`, or `uri`",
            }),
        }
    }

    /// Begins to read a document, on a thread that may block.
    pub(super) async fn extracting(
        &self,
        context: &CallContext,
        document: Arc<Document>,
    ) -> Result<Told, InvoiceError> {
        let deadline = context.deadline;
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let job = self.jobs.start(deadline, move |cancellation| {
            // Nobody receives any more when the caller has gone or the deadline has passed.
            let tell = |event| sender.blocking_send(event).map_err(|_| InvoiceError::Cancelled);
            let result =
                extract(&document, cancellation, |progress| tell(Ok(Event::Progress(progress))));
            drop(tell(result.map(Event::Result)));
        });
        Ok(Told { events, deadline, _job: job.await? })
    }
}
