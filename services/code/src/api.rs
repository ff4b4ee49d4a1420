//! The RPCs.

use std::{sync::Arc, time::Instant};

use drawbridge_proto::code::v1::{
    ListFilesRequest, ListFilesResponse, ReadFileRequest, ReadFileResponse, SearchRequest, SearchResponse,
    code_service_server, search_response::Event,
};
use drawbridge_sdk::{CallContext, identity::Caller};
use futures::{StreamExt as _, stream, stream::BoxStream};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinHandle,
    time::{sleep_until, timeout_at},
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status};
use tracing::Span;

use crate::{
    cancellation::Cancellation,
    error::CodeError,
    list::list,
    query::{ListQuery, Query},
    resource::resource,
    search::search,
    tree::{Tree, TreePath},
};

/// About the most that a response holds, in bytes, so that it fits the 4 MiB which gRPC clients take.
pub(crate) const RESPONSE_BYTES_MAX: usize = 3 * 1024 * 1024;
/// Calls that work at once. Further ones wait, as long as their deadlines allow.
const CALLS_AT_ONCE_MAX: usize = 64;
/// Progress events that may wait for a slow caller. Further ones are dropped.
const PROGRESS_EVENTS_MAX: usize = 4;

/// The code service.
#[derive(Debug)]
pub(crate) struct CodeApi {
    tree: Arc<Tree>,
    turns: Arc<Semaphore>,
}

impl CodeApi {
    pub(crate) fn new(tree: Tree) -> Self {
        Self { tree: Arc::new(tree), turns: Arc::new(Semaphore::new(CALLS_AT_ONCE_MAX)) }
    }

    /// Begins work on a thread that may block.
    async fn begin<T, W>(&self, deadline: Instant, work: W) -> Result<Work<T>, CodeError>
    where
        T: Send + 'static,
        W: FnOnce(&Tree, &Cancellation) -> Result<T, CodeError> + Send + 'static,
    {
        let turn = timeout_at(deadline.into(), Arc::clone(&self.turns).acquire_owned())
            .await
            .map_err(|_| CodeError::DeadlinePassed)?
            .map_err(|error| CodeError::Failed(error.into()))?;
        let cancellation = Cancellation { gone: CancellationToken::new(), deadline };
        let guard = cancellation.gone.clone().drop_guard();
        let tree = Arc::clone(&self.tree);
        let span = Span::current();
        let handle = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            span.in_scope(|| work(&tree, &cancellation))
        });
        Ok(Work { handle, deadline, _guard: guard })
    }
}

/// Work that has begun. Dropping it stops the work.
#[derive(Debug)]
struct Work<T> {
    handle: JoinHandle<Result<T, CodeError>>,
    deadline: Instant,
    _guard: DropGuard,
}

impl<T> Work<T> {
    async fn end(self) -> Result<T, CodeError> {
        timeout_at(self.deadline.into(), self.handle)
            .await
            .map_err(|_| CodeError::DeadlinePassed)?
            .unwrap_or_else(|error| Err(CodeError::Failed(error.into())))
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
impl code_service_server::CodeService for CodeApi {
    type SearchStream = BoxStream<'static, Result<SearchResponse, Status>>;

    async fn search(&self, request: Request<SearchRequest>) -> Result<Response<Self::SearchStream>, Status> {
        let deadline = admit(&request, "Search");
        let request = request.into_inner();
        let parsing = self.begin(deadline, move |tree, _| Query::parse(tree, &request)).await?;
        let query = parsing.end().await?;

        let (progress, events) = mpsc::channel(PROGRESS_EVENTS_MAX);
        let searching = self.begin(deadline, move |tree, cancellation| {
            // A caller who is slow to take progress must not slow the search.
            search(tree, &query, cancellation, |event| drop(progress.try_send(event)))
        });
        let searching = searching.await?;
        // The channel closes when the search ends, so the result comes last.
        let events = ReceiverStream::new(events)
            .map(|progress| Ok(Event::Progress(progress)))
            .take_until(sleep_until(deadline.into()));
        let result = stream::once(async { Ok(Event::Result(searching.end().await?)) });
        let responses = events
            .chain(result)
            .map(|event: Result<_, CodeError>| Ok(SearchResponse { event: Some(event?) }));
        Ok(Response::new(responses.boxed()))
    }

    async fn list_files(
        &self,
        request: Request<ListFilesRequest>,
    ) -> Result<Response<ListFilesResponse>, Status> {
        let deadline = admit(&request, "ListFiles");
        let request = request.into_inner();
        let listing = self.begin(deadline, move |tree, cancellation| {
            list(tree, &ListQuery::parse(tree, &request)?, cancellation)
        });
        Ok(Response::new(listing.await?.end().await?))
    }

    async fn read_file(
        &self,
        request: Request<ReadFileRequest>,
    ) -> Result<Response<ReadFileResponse>, Status> {
        let deadline = admit(&request, "ReadFile");
        let path = TreePath::parse_file(&request.into_inner().path)?;
        let reading = self.begin(deadline, move |tree, _| {
            let contents = tree.read(&path)?;
            Ok(resource(path.as_path(), contents))
        });
        let contents = reading.await?.end().await?;
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
    use crate::sample::Sample;

    fn ask(query: &str) -> Request<SearchRequest> {
        Request::new(SearchRequest { query: query.to_owned(), ..Default::default() })
    }

    #[tokio::test]
    async fn a_search_ends_with_its_result() {
        let sample = Sample::of(&[("a.txt", "hit\n")]);
        let api = CodeApi::new(sample.tree());
        let events: Vec<_> = api.search(ask("hit")).await.unwrap().into_inner().collect().await;
        let [Ok(SearchResponse { event: Some(Event::Result(result)) })] = &events[..] else {
            panic!("{events:?}");
        };
        assert_eq!(result.matches.len(), 1);
    }

    #[tokio::test]
    async fn a_wrong_argument_is_refused_before_the_stream() {
        let api = CodeApi::new(Sample::of(&[]).tree());
        let status = api.search(ask("")).await.map(drop).unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "`query`: must not be empty"));
    }

    #[tokio::test]
    async fn a_call_past_its_deadline_is_told_so() {
        let api = CodeApi::new(Sample::of(&[]).tree());
        let mut request = Request::new(ListFilesRequest::default());
        request.extensions_mut().insert(CallContext::new(RequestId::generate(), Duration::ZERO));
        let status = api.list_files(request).await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded);
    }

    #[tokio::test]
    async fn work_is_cancelled_when_it_is_dropped() {
        let api = CodeApi::new(Sample::of(&[]).tree());
        let (cancelled, wait) = tokio::sync::oneshot::channel();
        let deadline = Instant::now() + Duration::from_secs(60);
        let work = api.begin(deadline, move |_, cancellation| {
            while cancellation.check().is_ok() {
                std::thread::sleep(Duration::from_millis(1));
            }
            let _ = cancelled.send(());
            Ok(())
        });
        drop(work.await.unwrap());
        tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_file_is_read_as_a_resource() {
        let sample = Sample::of(&[("src/a b.rs", "fn main() {}\n")]);
        let api = CodeApi::new(sample.tree());
        let request = Request::new(ReadFileRequest { path: "src/a b.rs".to_owned() });
        let contents = api.read_file(request).await.unwrap().into_inner().contents.unwrap();
        assert_eq!(contents.uri, "code://src/a%20b.rs");
        assert_eq!(contents.mime_type, "text/x-rust");
        assert_eq!(contents.contents, Some(Contents::Text("fn main() {}\n".to_owned())));
    }

    #[tokio::test]
    async fn every_refusal_of_a_file_has_its_code() {
        let sample = Sample::of(&[("folder/a", "")]);
        sample.write("binary", b"\0");
        sample.link("out", "../outside/secret.txt");
        let api = CodeApi::new(sample.tree());
        for (path, code) in [
            ("", Code::InvalidArgument),
            ("../outside/secret.txt", Code::InvalidArgument),
            ("/etc/passwd", Code::InvalidArgument),
            ("missing", Code::NotFound),
            ("out", Code::PermissionDenied),
            ("folder", Code::FailedPrecondition),
            ("binary", Code::FailedPrecondition),
        ] {
            let request = Request::new(ReadFileRequest { path: path.to_owned() });
            assert_eq!(api.read_file(request).await.unwrap_err().code(), code, "{path}");
        }
    }
}
