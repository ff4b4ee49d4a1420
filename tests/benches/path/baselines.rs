//! The baselines of the edge: an echo, rmcp with the tool in its own process, and a relay
//! hard-wired to one call.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{Router, body::Bytes, extract::State, response::IntoResponse, routing::post};
use drawbridge_proto::mcp::v1::{ContentBlock, TextContent, ToolResult, content_block::Kind};
use drawbridge_tests::connect;
use drawbridge_transport::with_transaction_token;
use http::{header, uri::PathAndQuery};
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        self, CallToolRequestParams, CallToolResponse, CallToolResult, ServerCapabilities,
        ServerConfig,
    },
    service::RequestContext,
    transport::streamable_http_server::{
        StreamableHttpServerConfig, StreamableHttpService, session::never::NeverSessionManager,
    },
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, runtime::Runtime};
use tonic::{
    Status,
    body::Body,
    client::Grpc,
    server::{NamedService, UnaryService},
    transport::{Channel, Server, server::TcpIncoming},
};
use tonic_prost::ProstCodec;

use crate::{
    paths::Tokens,
    runtime,
    tools::{ReadRequest, ReadResponse},
};

pub(crate) const TOOL: &str = "test_simple_text";
/// A similar tool whose arguments a policy reads.
pub(crate) const UNCACHED_TOOL: &str = "test_who_am_i";
pub(crate) const TEXT: &str = "This is a simple text response for testing.";
pub(crate) const RPC: &str = "drawbridge.conformance.v1.ConformanceService/SimpleText";

/// The maximum size of a result, in bytes, as in the edge.
const RESULT_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A tool of a relay: its name and its RPC. The conformance service's takes an empty message, the
/// other one the size of its result.
#[derive(Clone)]
pub(crate) struct RelayTool {
    pub(crate) name: String,
    pub(crate) path: PathAndQuery,
    pub(crate) channel: Channel,
    /// None: the service needs no token.
    pub(crate) tokens: Option<Tokens>,
}

/// The baseline servers, each in its own runtime like the services of a mesh.
pub(crate) struct Baselines {
    pub(crate) echo: SocketAddr,
    pub(crate) rmcp: SocketAddr,
    /// The relay in front of the gRPC service without layers.
    pub(crate) relay: SocketAddr,
    /// The relay in front of the tool service itself.
    pub(crate) relay_to_tool: SocketAddr,
    /// The gRPC service without layers.
    pub(crate) grpc: SocketAddr,
    runtimes: Vec<Runtime>,
}

impl Baselines {
    pub(crate) fn start(tool: SocketAddr, tokens: &Tokens) -> Self {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut baselines = Self {
            echo: any,
            rmcp: any,
            relay: any,
            relay_to_tool: any,
            grpc: any,
            runtimes: Vec::new(),
        };
        baselines.echo =
            baselines.serve("echo", || Router::new().route("/mcp", post(async |body: Bytes| body)));
        baselines.rmcp = baselines.serve("rmcp", rmcp);
        baselines.grpc = baselines.serve_grpc();
        let grpc = RelayTool::simple_text(baselines.grpc, None);
        baselines.relay = baselines.serve("relay", || relay(grpc));
        let tool = RelayTool::simple_text(tool, Some(tokens));
        baselines.relay_to_tool = baselines.serve("relay-to-tool", || relay(tool));
        baselines
    }

    /// Starts a relay in front of another tool.
    pub(crate) fn relay_to(&mut self, tool: RelayTool) -> SocketAddr {
        self.serve("relay-to-tool", || relay(tool))
    }

    fn listen(&mut self, name: &str) -> (TcpListener, SocketAddr) {
        let runtime = runtime(name);
        let listener = {
            let _entered = runtime.enter();
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
            listener.set_nonblocking(true).expect("a socket");
            TcpListener::from_std(listener).expect("a listener")
        };
        let address = listener.local_addr().expect("an address");
        self.runtimes.push(runtime);
        (listener, address)
    }

    fn runtime(&self) -> &Runtime {
        self.runtimes.last().expect("a runtime")
    }

    fn serve(
        &mut self,
        name: &str,
        router: impl FnOnce() -> Router + Send + 'static,
    ) -> SocketAddr {
        let (listener, address) = self.listen(name);
        self.runtime().spawn(async move { axum::serve(listener, router()).await });
        address
    }

    fn serve_grpc(&mut self) -> SocketAddr {
        let (listener, address) = self.listen("grpc");
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        self.runtime()
            .spawn(Server::builder().add_service(SimpleText).serve_with_incoming(incoming));
        address
    }
}

impl Drop for Baselines {
    fn drop(&mut self) {
        for runtime in self.runtimes.drain(..) {
            runtime.shutdown_background();
        }
    }
}

/// The tool within the MCP server's process.
#[derive(Clone)]
struct InProcess;

impl ServerHandler for InProcess {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        match request.name.as_ref() {
            TOOL => Ok(CallToolResult::success(vec![model::ContentBlock::text(TEXT)]).into()),
            _ => Err(ErrorData::invalid_params("there is no tool with this name", None)),
        }
    }
}

fn rmcp() -> Router {
    let config = StreamableHttpServerConfig::default()
        .disable_allowed_hosts()
        .with_legacy_session_mode(false)
        .with_json_response(true);
    let service = StreamableHttpService::new(
        || Ok(InProcess),
        Arc::new(NeverSessionManager::default()),
        config,
    );
    Router::new().route_service("/mcp", service)
}

impl RelayTool {
    /// The conformance service's tool at this address.
    pub(crate) fn simple_text(address: SocketAddr, tokens: Option<&Tokens>) -> Self {
        let path = format!("/{RPC}").parse().expect("a path");
        Self { name: TOOL.to_owned(), path, channel: channel(address), tokens: tokens.cloned() }
    }

    /// Calls the tool with typed messages.
    pub(crate) async fn call(&self, request: ReadRequest) -> Result<ReadResponse, Status> {
        let mut client =
            Grpc::new(self.channel.clone()).max_decoding_message_size(RESULT_BYTES_MAX);
        let mut request = tonic::Request::new(request);
        if let Some(tokens) = &self.tokens {
            request = with_transaction_token(request, &tokens.transaction())?;
        }
        client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let codec = ProstCodec::<ReadRequest, ReadResponse>::default();
        Ok(client.unary(request, self.path.clone(), codec).await?.into_inner())
    }
}

pub(crate) fn channel(to: SocketAddr) -> Channel {
    connect(&format!("http://{to}").parse().expect("a URL")).expect("a channel")
}

/// A relay that parses a `tools/call`, makes the typed call, and returns an MCP result.
fn relay(tool: RelayTool) -> Router {
    Router::new().route("/mcp", post(respond)).with_state(Arc::new(tool))
}

async fn respond(
    State(tool): State<Arc<RelayTool>>,
    body: Bytes,
) -> Result<impl IntoResponse, String> {
    let message: Value = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    if message["method"] != "tools/call" || message["params"]["name"] != tool.name {
        return Err("there is no such tool".to_owned());
    }
    let bytes = message["params"]["arguments"]["bytes"].as_u64().unwrap_or_default();
    let request = ReadRequest { bytes: u32::try_from(bytes).map_err(|error| error.to_string())? };
    let respond = tool.call(request).await.map_err(|status| status.to_string())?;
    let result = respond.result.unwrap_or_default();
    let content = result.content.into_iter().filter_map(|block| match block.kind? {
        Kind::Text(text) => Some(json!({ "type": "text", "text": text.text })),
        _ => None,
    });
    let content: Vec<_> = content.collect();
    let result = json!({ "content": content, "isError": result.is_error });
    let respond = json!({ "jsonrpc": "2.0", "id": message["id"], "result": result });
    Ok(([(header::CONTENT_TYPE, "application/json")], respond.to_string()))
}

/// The gRPC service without layers: no identity, no spans, no metrics.
#[derive(Clone)]
struct SimpleText;

impl NamedService for SimpleText {
    const NAME: &'static str = "drawbridge.conformance.v1.ConformanceService";
}

impl UnaryService<ReadRequest> for SimpleText {
    type Response = ReadResponse;
    type Future = Ready<Result<tonic::Response<ReadResponse>, Status>>;

    fn call(&mut self, _: tonic::Request<ReadRequest>) -> Self::Future {
        let text = TextContent { text: TEXT.to_owned() };
        let content = vec![ContentBlock { kind: Some(Kind::Text(text)), annotations: None }];
        let result = Some(ToolResult { content, ..Default::default() });
        ready(Ok(tonic::Response::new(ReadResponse { result })))
    }
}

impl tower::Service<http::Request<Body>> for SimpleText {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move {
            let codec = ProstCodec::<ReadResponse, ReadRequest>::default();
            Ok(tonic::server::Grpc::new(codec).unary(Self, request).await)
        })
    }
}
