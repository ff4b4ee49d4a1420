//! The scenarios of `tests/clients/*/scenarios.*`, with the official Rust SDK.

use std::sync::Arc;

use drawbridge_tests::authorize_as;
use rmcp::{
    ClientHandler, RoleClient,
    model::{
        CallToolRequest, CallToolRequestParams, CallToolResult, ClientConfig, ClientRequest,
        Implementation, ProgressNotificationParam, ProtocolVersion, ReadResourceRequestParams,
        ResourceContents, ServerResult,
    },
    service::{
        ClientLifecycleMode, ClientServiceExt as _, NotificationContext, PeerRequestOptions,
        RequestHandle, RunningService, ServiceError,
    },
    transport::{
        StreamableHttpClientTransport,
        auth::{AuthClient, AuthorizationRequest, OAuthState},
        streamable_http_client::{StreamableHttpClient, StreamableHttpClientTransportConfig},
    },
};
use serde_json::{Map, Value, json};
use tokio::sync::{
    Mutex,
    mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};
use url::Url;

use super::{
    NOVEMBER_2025, STATELESS, Scenario,
    testbed::{self, Testbed, Work},
};

const SLOW: &str = "test_slow_work";
/// Nothing listens here: the test reads the redirect and does not follow it.
const REDIRECT_URI: &str = "http://127.0.0.1:8976/callback";

/// Receives progress notifications.
#[derive(Clone)]
struct ProgressListener {
    revision: ProtocolVersion,
    sender: UnboundedSender<ProgressNotificationParam>,
    progress: Arc<Mutex<UnboundedReceiver<ProgressNotificationParam>>>,
}

type Connection = RunningService<RoleClient, ProgressListener>;

impl ClientHandler for ProgressListener {
    fn get_info(&self) -> ClientConfig {
        ClientConfig::new(Default::default(), Implementation::new("rust scenarios", "1"))
            .with_protocol_version(self.revision.clone())
    }

    async fn on_progress(
        &self,
        progress: ProgressNotificationParam,
        _: NotificationContext<RoleClient>,
    ) {
        let _ = self.sender.send(progress);
    }
}

async fn connect(url: &Url, token: &str, revision: &str) -> Connection {
    let config = StreamableHttpClientTransportConfig::with_uri(url.as_str()).auth_header(token);
    serve(StreamableHttpClientTransport::from_config(config), revision).await
}

/// Registers, signs in and connects.
async fn sign_in_and_connect(url: &Url, revision: &str) -> Connection {
    let mut state = OAuthState::new(url.as_str(), None).await.expect("an authorization");
    let request = AuthorizationRequest::new(REDIRECT_URI).with_client_name("rust scenarios");
    let request = request.with_initial_scope_selection();
    state.start_authorization(request).await.expect("a registration");
    let authorize = state.get_authorization_url().await.expect("a URL");
    let redirect = authorize_as(&authorize.parse().expect("a URL"), "alice", "alice").await;
    state.handle_callback_url(redirect.as_str()).await.expect("a token");
    let manager = state.into_authorization_manager().expect("an authorization");
    let client = AuthClient::new(reqwest::Client::new(), manager);
    let config = StreamableHttpClientTransportConfig::with_uri(url.as_str());
    serve(StreamableHttpClientTransport::with_client(client, config), revision).await
}

async fn serve<C>(transport: StreamableHttpClientTransport<C>, revision: &str) -> Connection
where
    C: StreamableHttpClient + Clone + Send + 'static,
{
    let revision: ProtocolVersion = serde_json::from_value(json!(revision)).expect("a revision");
    let lifecycle = match revision.as_str() {
        STATELESS => ClientLifecycleMode::Discover { preferred_versions: vec![revision.clone()] },
        _ => ClientLifecycleMode::Initialize,
    };
    let (sender, progress) = unbounded_channel();
    let listener = ProgressListener { revision, sender, progress: Arc::new(Mutex::new(progress)) };
    listener.serve_with_lifecycle(transport, lifecycle).await.expect("a connection")
}

pub(super) async fn run(testbed: &Testbed, revision: &str, scenarios: &[Scenario]) -> Value {
    let connection = connect(&testbed.service, &testbed.token, revision).await;
    let protocol = connection.peer_info().expect("a server").protocol_version.clone();
    let mut report = json!({ "client": "rmcp 3.11", "protocol": protocol });
    for scenario in scenarios {
        report[scenario.name()] = match scenario {
            Scenario::Flow => flow(testbed, revision).await,
            Scenario::Progress => {
                json!({ "events": events(&connection, Work::SLOW).await, "complaints": [] })
            }
            Scenario::Cancel => cancel(testbed, &connection).await,
            Scenario::BrokenStream => {
                testbed.control.cut();
                json!(events(&connection, Work::QUICK).await)
            }
            Scenario::LostSession => lost(testbed, &connection, revision).await,
            Scenario::Proxies => proxies(testbed, revision).await,
        };
    }
    connection.cancel().await.expect("a client that ends");
    report
}

fn params(name: &'static str, arguments: Value) -> CallToolRequestParams {
    CallToolRequestParams::new(name)
        .with_arguments(arguments.as_object().expect("arguments").clone())
}

fn text(result: &CallToolResult) -> String {
    let block = result.content.first().and_then(|block| block.as_text());
    block.unwrap_or_else(|| panic!("{result:?}")).text.clone()
}

fn error_of(result: Result<CallToolResult, ServiceError>) -> Value {
    match result {
        Ok(_) => Value::Null,
        Err(ServiceError::McpError(error)) => {
            json!({ "code": error.code, "message": error.message })
        }
        Err(error) => json!({ "message": error.to_string() }),
    }
}

async fn begin(connection: &Connection, arguments: Value) -> RequestHandle<RoleClient> {
    let request = ClientRequest::CallToolRequest(CallToolRequest::new(params(SLOW, arguments)));
    let options = PeerRequestOptions::no_options();
    connection.send_cancellable_request(request, options).await.expect("a request")
}

/// The received progress and the result, in order.
async fn events(connection: &Connection, work: Work) -> Vec<String> {
    let result = match begin(connection, work.arguments()).await.await_response().await {
        Ok(ServerResult::CallToolResult(result)) => text(&result),
        other => panic!("{other:?}"),
    };
    let mut progress = connection.service().progress.lock().await;
    let mut received = Vec::new();
    while let Ok(progress) = progress.try_recv() {
        received.push(progress.message.unwrap_or_default());
    }
    received.push(result);
    received
}

async fn flow(testbed: &Testbed, revision: &str) -> Value {
    let connection = sign_in_and_connect(&testbed.mesh.mesh.mcp_url, revision).await;
    let tools = connection.list_all_tools().await.expect("tools");
    let templates = connection.list_all_resource_templates().await.expect("templates");
    let called =
        connection.call_tool(params("code_search", testbed::search())).await.expect("a result");
    let read = connection.read_resource(ReadResourceRequestParams::new(testbed::READ)).await;
    let read = match &read.expect("a file").contents[..] {
        [ResourceContents::TextResourceContents { text, .. }] => text.clone(),
        other => panic!("{other:?}"),
    };
    let denied = connection.call_tool(params(testbed::DENIED, json!({ "query": "printer" }))).await;
    json!({
        "tools": tools.iter().map(|tool| &tool.name).collect::<Vec<_>>(),
        "resourceTemplates": templates.iter().map(|template| &template.uri_template).collect::<Vec<_>>(),
        "text": text(&called),
        "read": read,
        "denied": error_of(denied),
    })
}

async fn cancel(testbed: &Testbed, connection: &Connection) -> Value {
    let handle = begin(connection, json!({ "milliseconds": 60_000 })).await;
    let mut progress = connection.service().progress.lock().await;
    while progress
        .recv()
        .await
        .is_some_and(|progress| progress.progress_token != handle.progress_token)
    {}
    let cancelled = handle.cancel(Some("enough".to_owned())).await;
    json!({ "error": { "cancelled": cancelled.is_ok() }, "stopped": testbed.control.stopped().await })
}

async fn lost(testbed: &Testbed, connection: &Connection, revision: &str) -> Value {
    let simple = || params("test_simple_text", json!({}));
    let ended = testbed.control.end_session().await;
    let lost = connection.call_tool(simple()).await;
    let again = match &lost {
        Ok(result) => text(result),
        Err(_) => {
            let connection = connect(&testbed.service, &testbed.token, revision).await;
            text(&connection.call_tool(simple()).await.expect("a result"))
        }
    };
    json!({ "ended": ended, "error": error_of(lost), "again": again })
}

async fn proxies(testbed: &Testbed, revision: &str) -> Value {
    let mut report = Map::new();
    for (name, url) in &testbed.proxies {
        // The SDK does not detect that the proxy strips the newest revision's headers.
        let offered =
            if (*name, revision) == ("stripping", STATELESS) { NOVEMBER_2025 } else { revision };
        let connection = connect(url, &testbed.token, offered).await;
        let silent = connection.call_tool(params(SLOW, Work::silent(name).arguments())).await;
        let protocol = connection.peer_info().expect("a server").protocol_version.clone();
        // The SDK requests progress with every call.
        while connection.service().progress.lock().await.try_recv().is_ok() {}
        let calls = json!({
            "protocol": protocol,
            "silent": text(&silent.expect("a result")),
            "events": events(&connection, Work::QUICK).await,
        });
        report.insert((*name).to_owned(), calls);
    }
    report.into()
}
