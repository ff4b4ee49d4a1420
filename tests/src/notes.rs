//! A tool service whose contract uses every option that reaches clients.

use drawbridge_proto::mcp::v1::{
    ResourceContents, ResourceLink, ToolResult, resource_contents::Contents,
};
use drawbridge_runtime::{Admin, Listen, RunningService, ServiceBuilder, Telemetry};
use drawbridge_transport::{
    GrpcServer, MtlsServerConfig, Peers,
    transaction_token::{Verifier, VerifierError},
};
use prost_types::{ListValue, Struct, Value, value::Kind};
use tonic::{Request, Response, Status};

use self::pb::notes_service_server::{NotesService, NotesServiceServer};

mod pb {
    #![allow(
        missing_docs,
        clippy::all,
        clippy::clone_on_ref_ptr,
        unreachable_pub,
        reason = "generated code"
    )]
    tonic::include_proto!("drawbridge.notes.v1");
}

/// The service's contract.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/notes.binpb"));
/// The number of notes.
pub const NOTES: usize = 450;

/// The service.
#[derive(Clone, Debug, Default)]
pub struct Notes {
    /// Its certificate and its allowed peers.
    pub mtls: MtlsServerConfig,
}

impl Notes {
    /// Starts the service.
    ///
    /// # Errors
    /// When the verifier cannot be built.
    pub async fn start(
        self,
        listen: Listen,
        jwks_url: url::Url,
        telemetry: &Telemetry,
    ) -> Result<RunningService, VerifierError> {
        let verifier = Verifier::new("notes", "drawbridge-auth", jwks_url)?;
        let (builder, mtls) = (ServiceBuilder::new(), self.mtls.clone());
        let peers = Peers::start(&builder, &mtls.identity).expect("a certificate");
        let server = GrpcServer::tool_service(NotesServiceServer::new(self), verifier)
            .descriptors(DESCRIPTORS);
        let server = server.accept(&peers, &mtls).expect("allowed peers");
        let address = server.start(&builder, &listen).expect("a port");
        builder.readiness().set_ready();
        let admin = "127.0.0.1:0".parse().expect("an address");
        Ok(builder.finish(address, Admin::new(&admin, telemetry)).expect("a port"))
    }
}

fn text(text: &str) -> Value {
    Value { kind: Some(Kind::StringValue(text.to_owned())) }
}

#[tonic::async_trait]
impl NotesService for Notes {
    async fn show(&self, request: Request<pb::Note>) -> Result<Response<pb::Shown>, Status> {
        let name = request.into_inner().name;
        let values = vec![text(&name), Value { kind: Some(Kind::NumberValue(2.0)) }];
        let structured = Some(Value { kind: Some(Kind::ListValue(ListValue { values })) });
        let evidence = Struct { fields: [("untrusted".to_owned(), text("true"))].into() };
        let trust = Value { kind: Some(Kind::StructValue(evidence)) };
        let meta = Struct {
            fields: [
                ("io.modelcontextprotocol/trust-annotations".to_owned(), trust),
                ("acme/internal".to_owned(), text("not for clients")),
                ("drawbridge/requestId".to_owned(), text("a lie")),
            ]
            .into(),
        };
        let result = ToolResult { structured, meta: Some(meta), ..Default::default() };
        Ok(Response::new(pb::Shown { result: Some(result) }))
    }

    async fn app(&self, _: Request<pb::Nothing>) -> Result<Response<pb::Page>, Status> {
        page("<!doctype html><title>A note</title>")
    }

    async fn read(&self, request: Request<pb::Note>) -> Result<Response<pb::Page>, Status> {
        page(&request.into_inner().name)
    }

    /// All notes, and one resource outside of this service's scheme.
    async fn list(&self, request: Request<pb::Listing>) -> Result<Response<pb::Listed>, Status> {
        let pb::Listing { page_size, page_token } = request.into_inner();
        let start: usize = match page_token.as_str() {
            "" => 0,
            token => token.parse().map_err(|_| Status::invalid_argument("invalid page_token"))?,
        };
        let size = usize::try_from(page_size).ok().filter(|size| *size > 0).unwrap_or(NOTES);
        let end = NOTES.min(start + size);
        let mut notes: Vec<_> =
            (start..end).map(|number| link(&format!("note://{number:03}"))).collect();
        if start == 0 {
            notes.push(link("other://foreign"));
        }
        let next_page_token = if end < NOTES { end.to_string() } else { String::new() };
        Ok(Response::new(pb::Listed { notes, next_page_token }))
    }
}

fn link(uri: &str) -> ResourceLink {
    ResourceLink { uri: uri.to_owned(), name: uri.to_owned(), ..Default::default() }
}

fn page(text: &str) -> Result<Response<pb::Page>, Status> {
    let contents =
        ResourceContents { contents: Some(Contents::Text(text.to_owned())), ..Default::default() };
    Ok(Response::new(pb::Page { contents: Some(contents) }))
}
