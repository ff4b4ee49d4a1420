//! A tool service whose results may be kept, and that counts how often it is called.

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
use drawbridge_sdk::{
    Admin, GrpcServer, Listen, RunningService, ServiceBuilder, Telemetry,
    identity::{Caller, Verifier, VerifierError},
};
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

/// One call: of which tool, by whom, about what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Call {
    /// The method, in snake case.
    pub tool: String,
    /// What the answer tells of the caller.
    pub told: String,
    /// What was asked.
    pub about: String,
}

/// The service, and what it has seen.
#[derive(Clone, Debug, Default)]
pub struct Cached {
    calls: Arc<Mutex<BTreeMap<Call, usize>>>,
    notes: Arc<Mutex<HashMap<String, String>>>,
    number: Arc<AtomicU64>,
}

impl Cached {
    /// How often each call has come.
    pub fn calls(&self) -> BTreeMap<Call, usize> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often a tool was called about something.
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
    /// When no verifier can be made.
    pub async fn start(
        self,
        listen: Listen,
        jwks_url: url::Url,
        telemetry: &Telemetry,
    ) -> Result<RunningService, VerifierError> {
        let verifier = Verifier::new("cached", "drawbridge-auth", jwks_url)?;
        let server = GrpcServer::tool_service(CachedServiceServer::new(self), verifier)
            .descriptors(DESCRIPTORS);
        let starting = ServiceBuilder::new();
        let address = starting.grpc(&listen, server).expect("a port");
        starting.readiness().ready();
        let admin = "127.0.0.1:0".parse().expect("an address");
        Ok(starting.running(address, Admin::new(&admin, telemetry)).expect("a port"))
    }

    fn note(&self, tool: &str, told: &str, about: &str) -> u64 {
        let call = Call { tool: tool.to_owned(), told: told.to_owned(), about: about.to_owned() };
        *self.calls.lock().unwrap_or_else(PoisonError::into_inner).entry(call).or_default() += 1;
        self.number.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn write(&self, about: String, text: String) {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).insert(about, text);
    }

    async fn tell(
        &self,
        tool: &str,
        request: Request<pb::Question>,
    ) -> Result<Response<pb::Told>, Status> {
        let caller = Caller::of(&request).ok_or_else(|| Status::internal("nobody calls"))?;
        let tctx = &caller.claims.tctx;
        let tenant = tctx.tenant.as_deref().unwrap_or_default();
        let told = match tool {
            tool if tool.starts_with("private") => format!("{} of {tenant}", caller.claims.sub),
            tool if tool.starts_with("tenant") => tenant.to_owned(),
            _ => String::new(),
        };
        let pb::Question { about, milliseconds, bytes } = request.into_inner();
        let call = self.note(tool, &told, &about);
        // What is there when it is asked, not when it is answered.
        let note = self.notes.lock().unwrap_or_else(PoisonError::into_inner).get(&about).cloned();
        tokio::time::sleep(Duration::from_millis(milliseconds.into())).await;
        let filler = "x".repeat(usize::try_from(bytes).unwrap_or_default());
        Ok(Response::new(pb::Told { told: note.unwrap_or(told), call, filler }))
    }
}

macro_rules! service {
    ($($plain:ident)*) => {
        #[tonic::async_trait]
        impl CachedService for Cached {
            $(
                async fn $plain(&self, request: Request<pb::Question>) -> Result<Response<pb::Told>, Status> {
                    self.tell(stringify!($plain), request).await
                }
            )*

            async fn write(&self, request: Request<pb::Writing>) -> Result<Response<pb::Told>, Status> {
                let pb::Writing { about, text, late_milliseconds } = request.into_inner();
                let call = self.note("write", "", &about);
                if late_milliseconds == 0 {
                    self.write(about, text);
                    return Ok(Response::new(pb::Told { call, ..Default::default() }));
                }
                let service = self.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(late_milliseconds.into())).await;
                    service.write(about, text);
                });
                Err(Status::unavailable("nobody knows"))
            }

            async fn r#try(&self, request: Request<pb::Trying>) -> Result<Response<pb::Tried>, Status> {
                let pb::Trying { outcome, interaction } = request.into_inner();
                self.note("try", "", &outcome);
                let text = content_block::Kind::Text(TextContent { text: outcome.clone() });
                let content = vec![ContentBlock { kind: Some(text), annotations: None }];
                let is_error = outcome == "error";
                let result = Some(ToolResult { content, is_error, ..Default::default() });
                let answered = !interaction.unwrap_or_default().responses.is_empty();
                let input_required = match outcome.as_str() {
                    "status" => return Err(Status::not_found("there is no such thing")),
                    "question" if !answered => Some(question()),
                    _ => None,
                };
                Ok(Response::new(pb::Tried { result, input_required }))
            }

            async fn confide(&self, request: Request<pb::Question>) -> Result<Response<pb::Confided>, Status> {
                let about = request.into_inner().about;
                self.note("confide", "", &about);
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

fn question() -> InputRequired {
    let form = ElicitForm {
        message: "Really?".to_owned(),
        requested_schema: Some(prost_types::Struct::default()),
    };
    let request = InputRequest { kind: Some(input_request::Kind::Form(form)) };
    InputRequired { requests: [("really".to_owned(), request)].into(), ..Default::default() }
}
