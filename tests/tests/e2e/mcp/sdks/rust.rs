//! The scenario of `tests/clients/*/interact.*`, through the official Rust SDK.

#![expect(deprecated, reason = "SEP-2577 deprecates sampling and roots; clients still use them")]

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rmcp::{
    ClientHandler, ErrorData, RoleClient,
    model::{
        CallToolRequest, CallToolRequestParams, CallToolResult, ClientCapabilities, ClientConfig,
        ClientRequest, CreateMessageRequestParams, CreateMessageResult, ElicitRequestParams,
        ElicitResult, ElicitationAction, Implementation, ListRootsResult,
        ProgressNotificationParam, ProtocolVersion, Root, SamplingMessage,
        SamplingMessageContentBlock, ServerResult,
    },
    service::{
        ClientLifecycleMode, ClientServiceExt as _, NotificationContext, PeerRequestOptions,
        RequestContext, RequestHandle, RunningService,
    },
    transport::{
        StreamableHttpClientTransport, streamable_http_client::StreamableHttpClientTransportConfig,
    },
};
use serde_json::{Value, json};
use tokio::sync::{
    Mutex as AsyncMutex,
    mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};
use url::Url;

const SLOW: &str = "test_slow_work";

/// Answers the requests of tools, and records these requests and progress.
pub(super) struct RecordingClient {
    requests: Mutex<Vec<String>>,
    progress_sender: UnboundedSender<ProgressNotificationParam>,
    progress: AsyncMutex<UnboundedReceiver<ProgressNotificationParam>>,
}

impl RecordingClient {
    fn new() -> Self {
        let (progress_sender, progress) = unbounded_channel();
        Self { requests: Mutex::default(), progress_sender, progress: AsyncMutex::new(progress) }
    }

    fn record(&self, request: &str) {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).push(request.to_owned());
    }
}

impl ClientHandler for RecordingClient {
    fn get_info(&self) -> ClientConfig {
        let capabilities = ClientCapabilities::builder()
            .enable_elicitation()
            .enable_roots()
            .enable_sampling()
            .build();
        ClientConfig::new(capabilities, Implementation::new("rust interact", "1"))
            .with_protocol_version(ProtocolVersion::LATEST_WITH_INITIALIZE)
    }

    async fn create_elicitation(
        &self,
        request: ElicitRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        if let ElicitRequestParams::FormElicitationParams { message, .. } = request {
            self.record(&message);
        }
        let content = json!({ "username": "ada", "email": "ada@example.com" });
        Ok(ElicitResult::new(ElicitationAction::Accept).with_content(content))
    }

    async fn create_message(
        &self,
        request: CreateMessageRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<CreateMessageResult, ErrorData> {
        let prompt = request.messages.first().and_then(|message| message.content.first());
        let prompt = prompt.and_then(SamplingMessageContentBlock::as_text);
        self.record(prompt.map_or("", |prompt| &prompt.text));
        Ok(CreateMessageResult::new(SamplingMessage::assistant_text("42"), "m".to_owned()))
    }

    async fn list_roots(
        &self,
        _: RequestContext<RoleClient>,
    ) -> Result<ListRootsResult, ErrorData> {
        self.record("roots");
        Ok(ListRootsResult::new(vec![Root::new("file:///work")]))
    }

    async fn on_progress(
        &self,
        progress: ProgressNotificationParam,
        _: NotificationContext<RoleClient>,
    ) {
        let _ = self.progress_sender.send(progress);
    }
}

type Client = RunningService<RoleClient, RecordingClient>;

pub(super) async fn connect(url: &Url, token: &str, lifecycle: ClientLifecycleMode) -> Client {
    let config = StreamableHttpClientTransportConfig::with_uri(url.as_str()).auth_header(token);
    let transport = StreamableHttpClientTransport::from_config(config);
    RecordingClient::new().serve_with_lifecycle(transport, lifecycle).await.expect("a connection")
}

pub(super) async fn interact(client: &Client) -> Value {
    let events = events_of_a_call(client).await;
    let cancelled = [cancel_after_progress(client).await, cancel_by_timeout(client).await];
    let answers = [
        ask(client, "test_elicitation", json!({ "message": "Who are you?" })).await,
        ask(client, "test_sampling", json!({ "prompt": "What is 6 times 7?" })).await,
        ask(client, "test_input_required_result_list_roots", json!({})).await,
    ];
    json!({
        "protocolVersion": client.peer_info().expect("a server").protocol_version,
        "events": events,
        "cancelled": cancelled,
        "answers": answers,
        "asked": *client.service().requests.lock().unwrap_or_else(PoisonError::into_inner),
    })
}

fn call(name: &'static str, arguments: Value) -> CallToolRequestParams {
    let arguments = arguments.as_object().expect("arguments").clone();
    CallToolRequestParams::new(name).with_arguments(arguments)
}

/// Starts a call that can be cancelled.
async fn begin(client: &Client, milliseconds: u32) -> RequestHandle<RoleClient> {
    let request = CallToolRequest::new(call(SLOW, json!({ "milliseconds": milliseconds })));
    let request = ClientRequest::CallToolRequest(request);
    let options = PeerRequestOptions::no_options();
    client.send_cancellable_request(request, options).await.expect("a request")
}

fn text(result: &CallToolResult) -> String {
    let block = result.content.first().and_then(|block| block.as_text());
    block.unwrap_or_else(|| panic!("{result:?}")).text.clone()
}

async fn ask(client: &Client, name: &'static str, arguments: Value) -> String {
    text(&client.call_tool(call(name, arguments)).await.expect("a result"))
}

/// The progress and the result of a call, in order.
async fn events_of_a_call(client: &Client) -> Vec<String> {
    let result = match begin(client, 300).await.await_response().await {
        Ok(ServerResult::CallToolResult(result)) => text(&result),
        other => panic!("{other:?}"),
    };
    let mut progress = client.service().progress.lock().await;
    let mut events = Vec::new();
    while let Ok(progress) = progress.try_recv() {
        events.push(progress.message.unwrap_or_default());
    }
    events.push(result);
    events
}

async fn cancel_after_progress(client: &Client) -> bool {
    let handle = begin(client, 60_000).await;
    let mut progress = client.service().progress.lock().await;
    while progress.recv().await.is_some_and(|one| one.progress_token != handle.progress_token) {}
    handle.cancel(Some("enough".to_owned())).await.is_ok()
}

/// Dropping the call cancels it. The SDK requests progress with every call, this one included.
async fn cancel_by_timeout(client: &Client) -> bool {
    let working = client.call_tool(call(SLOW, json!({ "milliseconds": 60_000 })));
    tokio::time::timeout(Duration::from_millis(500), working).await.is_err()
}
