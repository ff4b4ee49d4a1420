//! A tool service with cacheable results that counts its calls.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use drawbridge_proto::mcp::v1::{
    ContentBlock, InputRequest, InputRequired, TextContent, ToolResult,
};
use drawbridge_proto::mcp::v1::{ElicitForm, content_block, input_request};
use drawbridge_runtime::{Admin, Listen, RunningService, ServiceBuilder, Telemetry};
use drawbridge_transport::{
    GrpcServer,
    transaction_token::{VerifiedCaller, Verifier, VerifierError},
};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use self::pb::cached_service_server::{CachedService, CachedServiceServer};

mod pb {
    #![allow(
        missing_docs,
        clippy::all,
        clippy::clone_on_ref_ptr,
        unreachable_pub,
        reason = "generated code"
    )]
    tonic::include_proto!("drawbridge.cached.v1");
}

/// The service's contract.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/cached.binpb"));
/// The tools of each scope: their names, and how many there are.
pub const TOOLS: [(&str, usize); 3] = [("private", 8), ("tenant", 6), ("public", 6)];

/// One call: its tool, its caller and its argument.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Call {
    /// The method, in snake case.
    pub tool: String,
    /// What the reply reveals of the caller; empty for public tools.
    pub caller: String,
    /// The argument `about`.
    pub about: String,
}

/// The service and its recorded calls.
#[derive(Clone, Debug, Default)]
pub struct Cached {
    calls: Arc<Mutex<BTreeMap<Call, usize>>>,
    notes: Arc<Mutex<HashMap<String, String>>>,
    number: Arc<AtomicU64>,
    released: Arc<Gate>,
}

/// Holds calls back until they are released.
#[derive(Debug)]
struct Gate(Semaphore);

impl Default for Gate {
    fn default() -> Self {
        Self(Semaphore::new(0))
    }
}

impl Cached {
    /// The number of times each call arrived.
    pub fn calls(&self) -> BTreeMap<Call, usize> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The number of calls of `tool` about `about`.
    pub fn count(&self, tool: &str, about: &str) -> usize {
        self.calls()
            .iter()
            .filter(|(call, _)| call.tool == tool && call.about == about)
            .map(|(_, n)| n)
            .sum()
    }

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
        let verifier = Verifier::new("cached", "drawbridge-auth", jwks_url)?;
        let server = GrpcServer::tool_service(CachedServiceServer::new(self), verifier)
            .descriptors(DESCRIPTORS);
        let builder = ServiceBuilder::new();
        let address = server.start(&builder, &listen).expect("a port");
        builder.readiness().set_ready();
        let admin = "127.0.0.1:0".parse().expect("an address");
        Ok(builder.finish(address, Admin::new(&admin, telemetry)).expect("a port"))
    }

    /// Lets this many calls about `held…` end.
    pub fn release(&self, calls: usize) {
        self.released.0.add_permits(calls);
    }

    fn record(&self, tool: &str, caller: &str, about: &str) -> u64 {
        let call =
            Call { tool: tool.to_owned(), caller: caller.to_owned(), about: about.to_owned() };
        *self.calls.lock().unwrap_or_else(PoisonError::into_inner).entry(call).or_default() += 1;
        self.number.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn write(&self, about: String, text: String) {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).insert(about, text);
    }

    async fn lookup(
        &self,
        tool: &str,
        request: Request<pb::Query>,
    ) -> Result<Response<pb::QueryReply>, Status> {
        let caller =
            VerifiedCaller::from_request(&request).ok_or_else(|| Status::internal("no caller"))?;
        let tctx = &caller.claims.tctx;
        let tenant = tctx.tenant.as_deref().unwrap_or_default();
        let visible = match tool {
            tool if tool.starts_with("private") => format!("{} of {tenant}", caller.claims.sub),
            tool if tool.starts_with("tenant") => tenant.to_owned(),
            _ => String::new(),
        };
        let pb::Query { about, milliseconds, bytes } = request.into_inner();
        let call = self.record(tool, &visible, &about);
        if about.starts_with("held") {
            self.released.0.acquire().await.map_err(|_| Status::internal("closed"))?.forget();
        }
        if about.starts_with("unavailable once") && self.count(tool, &about) == 1 {
            return Err(Status::unavailable("not yet"));
        }
        // The note as it is when the request arrives, not when the reply leaves.
        let note = self.notes.lock().unwrap_or_else(PoisonError::into_inner).get(&about).cloned();
        tokio::time::sleep(Duration::from_millis(milliseconds.into())).await;
        let filler = "x".repeat(usize::try_from(bytes).unwrap_or_default());
        Ok(Response::new(pb::QueryReply { value: note.unwrap_or(visible), call, filler }))
    }
}

macro_rules! service {
    ($($plain:ident)*) => {
        #[tonic::async_trait]
        impl CachedService for Cached {
            $(
                async fn $plain(&self, request: Request<pb::Query>) -> Result<Response<pb::QueryReply>, Status> {
                    self.lookup(stringify!($plain), request).await
                }
            )*

            async fn write(&self, request: Request<pb::Writing>) -> Result<Response<pb::QueryReply>, Status> {
                let pb::Writing { about, text, late_milliseconds } = request.into_inner();
                let call = self.record("write", "", &about);
                if late_milliseconds == 0 {
                    self.write(about, text);
                    return Ok(Response::new(pb::QueryReply { call, ..Default::default() }));
                }
                let service = self.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(late_milliseconds.into())).await;
                    service.write(about, text);
                });
                Err(Status::unavailable("the outcome is unknown"))
            }

            async fn r#try(&self, request: Request<pb::Trying>) -> Result<Response<pb::Tried>, Status> {
                let pb::Trying { outcome, interaction } = request.into_inner();
                self.record("try", "", &outcome);
                let text = content_block::Kind::Text(TextContent { text: outcome.clone() });
                let content = vec![ContentBlock { kind: Some(text), annotations: None }];
                let is_error = outcome == "error";
                let result = Some(ToolResult { content, is_error, ..Default::default() });
                let has_input = !interaction.unwrap_or_default().responses.is_empty();
                let input_required = match outcome.as_str() {
                    "status" => return Err(Status::not_found("there is no such thing")),
                    "question" if !has_input => Some(confirmation()),
                    _ => None,
                };
                Ok(Response::new(pb::Tried { result, input_required }))
            }

            async fn confide(&self, request: Request<pb::Query>) -> Result<Response<pb::Confided>, Status> {
                let about = request.into_inner().about;
                self.record("confide", "", &about);
                let secret = if about.is_empty() { String::new() } else { format!("the secret of {about}") };
                Ok(Response::new(pb::Confided { open: format!("openly, {about}"), secret }))
            }
        }
    };
}

service! {
    private1 private2 private3 private4 private5 private6 private7 private8
    tenant1 tenant2 tenant3 tenant4 tenant5 tenant6
    public1 public2 public3 public4 public5 public6
    look note brief greedy
}

fn confirmation() -> InputRequired {
    let form = ElicitForm {
        message: "Really?".to_owned(),
        requested_schema: Some(prost_types::Struct::default()),
    };
    let request = InputRequest { kind: Some(input_request::Kind::Form(form)) };
    InputRequired { requests: [("really".to_owned(), request)].into(), ..Default::default() }
}
