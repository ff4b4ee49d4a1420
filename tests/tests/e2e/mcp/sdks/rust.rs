//! What `tests/clients/*/interact.*` do, through the official Rust SDK.

#![expect(deprecated, reason = "SEP-2577 deprecates sampling and roots; clients still have them")]

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

/// Answers whatever a tool asks, remembers what that was, and hears of progress.
pub(super) struct Person {
    asked: Mutex<Vec<String>>,
    tell: UnboundedSender<ProgressNotificationParam>,
    told: AsyncMutex<UnboundedReceiver<ProgressNotificationParam>>,
}

impl Person {
    fn new() -> Self {
        let (tell, told) = unbounded_channel();
        Self { asked: Mutex::default(), tell, told: AsyncMutex::new(told) }
    }

    fn is_asked(&self, what: &str) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(what.to_owned());
    }
}

impl ClientHandler for Person {
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
            self.is_asked(&message);
        }
        let content = json!({ "username": "ada", "email": "ada@example.com" });
        Ok(ElicitResult::new(ElicitationAction::Accept).with_content(content))
    }

    async fn create_message(
        &self,
        request: CreateMessageRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<CreateMessageResult, ErrorData> {
        let asked = request.messages.first().and_then(|message| message.content.first());
        let asked = asked.and_then(SamplingMessageContentBlock::as_text);
        self.is_asked(asked.map_or("", |asked| &asked.text));
        Ok(CreateMessageResult::new(SamplingMessage::assistant_text("42"), "m".to_owned()))
    }

    async fn list_roots(
        &self,
        _: RequestContext<RoleClient>,
    ) -> Result<ListRootsResult, ErrorData> {
        self.is_asked("roots");
        Ok(ListRootsResult::new(vec![Root::new("file:///work")]))
    }

    async fn on_progress(
        &self,
        progress: ProgressNotificationParam,
        _: NotificationContext<RoleClient>,
    ) {
        let _ = self.tell.send(progress);
    }
}

type Client = RunningService<RoleClient, Person>;

pub(super) async fn connect(url: &Url, token: &str, lifecycle: ClientLifecycleMode) -> Client {
    let config = StreamableHttpClientTransportConfig::with_uri(url.as_str()).auth_header(token);
    let transport = StreamableHttpClientTransport::from_config(config);
    Person::new().serve_with_lifecycle(transport, lifecycle).await.expect("a connection")
}

pub(super) async fn interact(client: &Client) -> Value {
    let events = reported(client).await;
    let cancelled =
        [cancelled_while_it_reports(client).await, cancelled_while_nobody_waits(client).await];
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
        "asked": *client.service().asked.lock().unwrap_or_else(PoisonError::into_inner),
    })
}

fn call(name: &'static str, arguments: Value) -> CallToolRequestParams {
    let arguments = arguments.as_object().expect("arguments").clone();
    CallToolRequestParams::new(name).with_arguments(arguments)
}

/// Starts work, to be waited for or cancelled.
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

/// What came, in its order.
async fn reported(client: &Client) -> Vec<String> {
    let result = match begin(client, 300).await.await_response().await {
        Ok(ServerResult::CallToolResult(result)) => text(&result),
        other => panic!("{other:?}"),
    };
    let mut told = client.service().told.lock().await;
    let mut events = Vec::new();
    while let Ok(progress) = told.try_recv() {
        events.push(progress.message.unwrap_or_default());
    }
    events.push(result);
    events
}

async fn cancelled_while_it_reports(client: &Client) -> bool {
    let handle = begin(client, 60_000).await;
    let mut told = client.service().told.lock().await;
    while told.recv().await.is_some_and(|progress| progress.progress_token != handle.progress_token)
    {
    }
    handle.cancel(Some("enough".to_owned())).await.is_ok()
}

/// The SDK asks for progress with every call, so this one too is told of it.
async fn cancelled_while_nobody_waits(client: &Client) -> bool {
    let working = client.call_tool(call(SLOW, json!({ "milliseconds": 60_000 })));
    tokio::time::timeout(Duration::from_millis(500), working).await.is_err()
}
