//! A tool service with a configurable number of tools, each of which returns a text of the
//! requested size.

use std::{
    convert::Infallible,
    fmt::Write as _,
    fs,
    future::{Ready, ready},
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    task::{Context, Poll},
};

use drawbridge_contract::Contract;
use drawbridge_mesh::{HostedService, MeshConfig};
use drawbridge_proto::mcp::v1::{ContentBlock, TextContent, ToolResult, content_block::Kind};
use drawbridge_runtime::{Admin, Listen, ServiceBuilder, TelemetryConfig};
use drawbridge_tests::{permit, repository};
use drawbridge_transport::{
    GrpcServer,
    transaction_token::{Verifier, VerifierError},
};
use http::uri::PathAndQuery;
use prost_reflect::DescriptorPool;
use tonic::{
    Status,
    body::Body,
    server::{NamedService, UnaryService},
};
use tonic_prost::ProstCodec;
use url::Url;

/// The request of each tool.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ReadRequest {
    #[prost(uint32, tag = "1")]
    pub(crate) bytes: u32,
}

/// The response of each tool.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ReadResponse {
    #[prost(message, optional, tag = "1")]
    pub(crate) result: Option<ToolResult>,
}

/// The service with this many tools.
#[derive(Clone, Copy)]
pub(crate) struct Tools<const COUNT: usize>;

impl<const COUNT: usize> Tools<COUNT> {
    const NAMESPACE: &str = if COUNT > 10 { "many" } else { "few" };

    /// The client-visible name of this tool.
    pub(crate) fn tool(number: usize) -> String {
        format!("{}_read{number}", Self::NAMESPACE)
    }

    /// The RPC of this tool.
    pub(crate) fn rpc(number: usize) -> String {
        format!("{}/Read{number}", Self::NAME)
    }

    /// The path of that RPC.
    pub(crate) fn path(number: usize) -> PathAndQuery {
        format!("/{}", Self::rpc(number)).parse().expect("a path")
    }

    /// The contract, with comments.
    fn descriptors() -> Vec<u8> {
        let (package, service) = Self::NAME.rsplit_once('.').expect("a package");
        let mut source = format!(
            "syntax = \"proto3\"; package {package};\n\
             import \"drawbridge/mcp/v1/content.proto\"; import \"drawbridge/mcp/v1/options.proto\";\n\
             message ReadRequest {{\n  // The size of the text, in bytes.\n  uint32 bytes = 1;\n  \
             // Where to look, as a glob over paths.\n  optional string path = 2;\n  \
             // Texts that the result must contain.\n  repeated string texts = 3;\n}}\n\
             message ReadResponse {{ drawbridge.mcp.v1.ToolResult result = 1; }}\n\
             service {service} {{ option (drawbridge.mcp.v1.service) = {{ namespace: \"{}\" }};\n",
            Self::NAMESPACE
        );
        for number in 0..COUNT {
            // Writing to a string cannot fail.
            let _ = writeln!(
                source,
                "// Reads source number {number} and returns a text of the requested size.\n\
                 rpc Read{number}(ReadRequest) returns (ReadResponse) {{ \
                 option (drawbridge.mcp.v1.tool) = {{ hints: {{ read_only: true }} }}; }}"
            );
        }
        source.push('}');
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("tools.proto");
        fs::write(&file, source).expect("a file");
        let protos = repository().join("proto/proto");
        let mut compiler = protox::Compiler::new([folder.path(), &protos]).expect("a compiler");
        compiler
            .include_source_info(true)
            .include_imports(true)
            .open_file(&file)
            .expect("a contract");
        compiler.encode_file_descriptor_set()
    }

    /// Locks the service into the policies of a mesh, and permits it to every caller.
    pub(crate) fn permit(config: &mut MeshConfig) {
        let pool = DescriptorPool::decode(Self::descriptors().as_slice()).expect("a contract");
        permit(config, Self::NAMESPACE, &Contract { pool, services: vec![Self::NAME.to_owned()] });
    }

    /// Starts it like a real tool service, which verifies transaction tokens with these keys.
    pub(crate) async fn start(keys: Url) -> (HostedService, SocketAddr) {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (listen, address) = Listen::bind(any).expect("a port");
        let telemetry = TelemetryConfig { log: "error".to_owned(), ..TelemetryConfig::default() };
        let hosted = HostedService::start(Self::NAMESPACE, &telemetry, |telemetry| async move {
            let verifier = Verifier::new(Self::NAMESPACE, "drawbridge-auth", keys)?;
            let builder = ServiceBuilder::new();
            let server =
                GrpcServer::tool_service(Self, verifier).descriptors(Self::descriptors().leak());
            let address = server.start(&builder, &listen).expect("a port");
            builder.readiness().set_ready();
            let admin = Admin::new(&Listen::Address(any), &telemetry);
            Ok::<_, VerifierError>(builder.finish(address, admin).expect("a port"))
        });
        (hosted.await.expect("the service"), address)
    }
}

impl<const COUNT: usize> NamedService for Tools<COUNT> {
    const NAME: &'static str =
        if COUNT > 10 { "bench.many.v1.ToolService" } else { "bench.few.v1.ToolService" };
}

impl<const COUNT: usize> UnaryService<ReadRequest> for Tools<COUNT> {
    type Response = ReadResponse;
    type Future = Ready<Result<tonic::Response<ReadResponse>, Status>>;

    fn call(&mut self, request: tonic::Request<ReadRequest>) -> Self::Future {
        let bytes = usize::try_from(request.get_ref().bytes).unwrap_or(usize::MAX);
        // Lines like those of sources, with characters that JSON escapes.
        let mut text = "A \"line\" of the text that was asked for, as long as lines are.\n"
            .repeat(bytes / 64 + 1);
        text.truncate(bytes);
        let content =
            vec![ContentBlock { kind: Some(Kind::Text(TextContent { text })), annotations: None }];
        let result = Some(ToolResult { content, ..Default::default() });
        ready(Ok(tonic::Response::new(ReadResponse { result })))
    }
}

impl<const COUNT: usize> tower::Service<http::Request<Body>> for Tools<COUNT> {
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
