//! The RPCs.

use std::{sync::Arc, time::Instant};

use drawbridge_proto::code::v1::{
    ListFilesRequest, ListFilesResponse, ReadFileRequest, ReadFileResponse, SearchRequest,
    SearchResponse, code_service_server, search_response::Event,
};
use drawbridge_sdk::{BlockingJob, BlockingJobs, CallContext, Cancellation};
use futures::{StreamExt as _, stream, stream::BoxStream};
use tokio::{sync::mpsc, time::sleep_until};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::{
    error::CodeError,
    list::list,
    query::{ListQuery, Query, SearchLimits},
    read::read,
    resource::resource,
    search::search,
    tree::{Tree, TreePath},
};

/// Progress events buffered for a slow caller. Further ones are dropped.
const PROGRESS_EVENTS_MAX: usize = 4;

/// The code service.
#[derive(Debug)]
pub(crate) struct CodeApi {
    tree: Arc<Tree>,
    limits: SearchLimits,
    jobs: BlockingJobs,
}

impl CodeApi {
    /// Creates the service with at most `jobs_max` concurrent calls. Further calls queue.
    pub(crate) fn new(tree: Tree, limits: SearchLimits, jobs_max: usize) -> Self {
        Self { tree: Arc::new(tree), limits, jobs: BlockingJobs::new(jobs_max) }
    }

    async fn start<T, W>(&self, deadline: Instant, work: W) -> Result<Job<T>, CodeError>
    where
        T: Send + 'static,
        W: FnOnce(&Tree, &Cancellation) -> Result<T, CodeError> + Send + 'static,
    {
        let tree = Arc::clone(&self.tree);
        Ok(Job(self.jobs.start(deadline, move |cancellation| work(&tree, cancellation)).await?))
    }
}

/// A running job. Dropping it cancels the job.
#[derive(Debug)]
struct Job<T>(BlockingJob<Result<T, CodeError>>);

impl<T> Job<T> {
    async fn join(self) -> Result<T, CodeError> {
        self.0.join().await?
    }
}

/// The call's deadline.
fn deadline<T>(request: &Request<T>) -> Instant {
    CallContext::from_request(request).deadline
}

#[tonic::async_trait]
impl code_service_server::CodeService for CodeApi {
    type SearchStream = BoxStream<'static, Result<SearchResponse, Status>>;

    async fn search(
        &self,
        request: Request<SearchRequest>,
    ) -> Result<Response<Self::SearchStream>, Status> {
        let deadline = deadline(&request);
        let request = request.into_inner();
        let limits = self.limits;
        let parse_job =
            self.start(deadline, move |tree, _| Query::parse(tree, &request, &limits)).await?;
        let query = parse_job.join().await?;

        let (progress, events) = mpsc::channel(PROGRESS_EVENTS_MAX);
        let search_job = self.start(deadline, move |tree, cancellation| {
            // A slow reader of progress must not slow the search.
            search(tree, &query, cancellation, |event| drop(progress.try_send(event)))
        });
        let search_job = search_job.await?;
        // The channel closes when the search ends, so the result comes last.
        let events = ReceiverStream::new(events)
            .map(|progress| Ok(Event::Progress(progress)))
            .take_until(sleep_until(deadline.into()));
        let result = stream::once(async { Ok(Event::Result(search_job.join().await?)) });
        let responses = events
            .chain(result)
            .map(|event: Result<_, CodeError>| Ok(SearchResponse { event: Some(event?) }));
        Ok(Response::new(responses.boxed()))
    }

    async fn list_files(
        &self,
        request: Request<ListFilesRequest>,
    ) -> Result<Response<ListFilesResponse>, Status> {
        let deadline = deadline(&request);
        let request = request.into_inner();
        let limits = self.limits;
        let list_job = self.start(deadline, move |tree, cancellation| {
            list(tree, &ListQuery::parse(tree, &request, &limits)?, cancellation)
        });
        Ok(Response::new(list_job.await?.join().await?))
    }

    async fn read_file(
        &self,
        request: Request<ReadFileRequest>,
    ) -> Result<Response<ReadFileResponse>, Status> {
        let deadline = deadline(&request);
        let path = TreePath::parse_file(&request.into_inner().path)?;
        let read_job = self.start(deadline, move |tree, cancellation| {
            let contents = read(tree, &path, cancellation)?;
            Ok(resource(path.as_path(), contents))
        });
        let contents = read_job.await?.join().await?;
        Ok(Response::new(ReadFileResponse { contents: Some(contents) }))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use code_service_server::CodeService as _;
    use drawbridge_proto::mcp::v1::resource_contents::Contents;
    use drawbridge_sdk::RequestId;
    use tonic::Code;

    use super::*;
    use crate::sample::{LIMITS, Sample};

    fn api(sample: &Sample) -> CodeApi {
        CodeApi::new(sample.tree(), LIMITS, 4)
    }

    fn search_request(query: &str) -> Request<SearchRequest> {
        Request::new(SearchRequest { query: query.to_owned(), ..Default::default() })
    }

    #[tokio::test]
    async fn a_search_ends_with_its_result() {
        let sample = Sample::of(&[("a.txt", "hit\n")]);
        let api = api(&sample);
        let events: Vec<_> =
            api.search(search_request("hit")).await.unwrap().into_inner().collect().await;
        let [Ok(SearchResponse { event: Some(Event::Result(result)) })] = &events[..] else {
            panic!("{events:?}");
        };
        assert_eq!(result.matches.len(), 1);
    }

    #[tokio::test]
    async fn an_invalid_argument_is_rejected_before_the_stream_starts() {
        let api = api(&Sample::of(&[]));
        let status = api.search(search_request("")).await.map(drop).unwrap_err();
        assert_eq!(
            (status.code(), status.message()),
            (Code::InvalidArgument, "`query`: must not be empty")
        );
    }

    #[tokio::test]
    async fn a_call_past_its_deadline_fails_with_deadline_exceeded() {
        let api = api(&Sample::of(&[]));
        let mut request = Request::new(ListFilesRequest::default());
        request.extensions_mut().insert(CallContext::new(RequestId::generate(), Duration::ZERO));
        let status = api.list_files(request).await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded);
    }

    #[tokio::test]
    async fn a_file_is_read_as_a_resource() {
        let sample = Sample::of(&[("src/a b.rs", "fn main() {}\n")]);
        let api = api(&sample);
        let request = Request::new(ReadFileRequest { path: "src/a b.rs".to_owned() });
        let contents = api.read_file(request).await.unwrap().into_inner().contents.unwrap();
        assert_eq!(contents.uri, "code://src/a%20b.rs");
        assert_eq!(contents.mime_type, "text/x-rust");
        assert_eq!(contents.contents, Some(Contents::Text("fn main() {}\n".to_owned())));
    }

    #[tokio::test]
    async fn every_rejected_path_has_its_status_code() {
        let sample = Sample::of(&[("folder/a", "")]);
        sample.write("binary", b"\0");
        sample.link("out", "../outside/secret.txt");
        let api = api(&sample);
        for (path, code) in [
            ("", Code::InvalidArgument),
            ("../outside/secret.txt", Code::InvalidArgument),
            ("/etc/passwd", Code::InvalidArgument),
            ("missing", Code::NotFound),
            ("out", Code::PermissionDenied),
            ("server.key", Code::PermissionDenied),
            ("folder", Code::FailedPrecondition),
            ("binary", Code::FailedPrecondition),
        ] {
            let request = Request::new(ReadFileRequest { path: path.to_owned() });
            assert_eq!(api.read_file(request).await.unwrap_err().code(), code, "{path}");
        }
    }
}
