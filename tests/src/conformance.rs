//! The tool service that the official conformance suite expects, built on the public contract
//! alone.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use drawbridge_proto::mcp::v1::{self as mcp, InputResponses};
use drawbridge_runtime::{Admin, Listen, RunningService, ServiceBuilder, Telemetry};
use drawbridge_transport::{
    GrpcServer, MtlsServerConfig, Peers,
    transaction_token::{VerifiedCaller, Verifier, VerifierError},
};
use secrecy::SecretString;
use tokio::sync::watch;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status};

pub use self::changes::ContractChanges;
use self::{
    make::{audio, image, json_struct, prompt, reply, reply_text, resource, text},
    pb::conformance_service_server::{ConformanceService, ConformanceServiceServer},
};

mod changes;
mod elicit;
mod make;
mod streaming;

mod pb {
    #![allow(
        missing_docs,
        clippy::all,
        clippy::clone_on_ref_ptr,
        unreachable_pub,
        reason = "generated code"
    )]
    tonic::include_proto!("drawbridge.conformance.v1");
}

/// The service's contract.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/conformance.binpb"));

const PNG: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8/5+hHgAHggJ/PchI7wAAAABJRU5ErkJggg==";
const WAV: &str = "UklGRiQAAABXQVZFZm10IBAAAAABAAEARKwAAIhYAQACABAAZGF0YQAAAAA=";

/// The service and its recorded calls.
#[derive(Clone, Debug, Default)]
pub struct Conformance {
    /// Calls of SlowWork that were cancelled.
    pub cancelled: Arc<AtomicU32>,
    /// Calls of SlowWork that completed.
    pub finished: Arc<AtomicU32>,
    /// Calls of FailWith.
    pub failures: Arc<AtomicU32>,
    /// Whether the page of OpenPage was opened.
    pub opened: Arc<AtomicBool>,
    /// Changes to its contract, in force from its next start on.
    pub changes: watch::Sender<ContractChanges>,
    called_with: Arc<Mutex<Option<SecretString>>>,
    /// Its certificate and its allowed peers.
    pub mtls: MtlsServerConfig,
}

impl Conformance {
    /// The transaction token of the last WhoAmI call.
    pub fn called_with(&self) -> Option<SecretString> {
        self.called_with.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
        let descriptors = self.changes.borrow().descriptors();
        self.start_as(descriptors, listen, jwks_url, telemetry).await
    }

    /// Starts the service with this contract instead of its own.
    ///
    /// # Errors
    /// When no verifier can be made.
    pub async fn start_as(
        self,
        descriptors: &'static [u8],
        listen: Listen,
        jwks_url: url::Url,
        telemetry: &Telemetry,
    ) -> Result<RunningService, VerifierError> {
        let verifier = Verifier::new("test", "drawbridge-auth", jwks_url)?;
        let (builder, mtls) = (ServiceBuilder::new(), self.mtls.clone());
        let peers = Peers::start(&builder, &mtls.identity).expect("a certificate");
        let server = GrpcServer::tool_service(ConformanceServiceServer::new(self), verifier)
            .descriptors(descriptors);
        let server = server.accept(&peers, &mtls).expect("allowed peers");
        let address = server.start(&builder, &listen).expect("a port");
        builder.readiness().set_ready();
        let admin = "127.0.0.1:0".parse().expect("an address");
        Ok(builder.finish(address, Admin::new(&admin, telemetry)).expect("a port"))
    }
}

type ContentsResult = Result<Response<pb::Contents>, Status>;
type UnaryResult = Result<Response<pb::Answer>, Status>;
type StreamResult = Result<Response<ReceiverStream<Result<pb::Event, Status>>>, Status>;

fn interaction(request: &Request<pb::Asking>) -> InputResponses {
    request.get_ref().interaction.clone().unwrap_or_default()
}

#[tonic::async_trait]
impl ConformanceService for Conformance {
    type ToolWithProgressStream = ReceiverStream<Result<pb::Event, Status>>;
    type ToolWithLoggingStream = ReceiverStream<Result<pb::Event, Status>>;
    type LoggingToolStream = ReceiverStream<Result<pb::Event, Status>>;
    type StreamingElicitationStream = ReceiverStream<Result<pb::Event, Status>>;
    type WatchStream = ReceiverStream<Result<pb::Changed, Status>>;
    type SlowWorkStream = ReceiverStream<Result<pb::Event, Status>>;

    async fn simple_text(&self, _: Request<pb::Nothing>) -> UnaryResult {
        reply_text("This is a simple text response for testing.")
    }

    async fn image_content(&self, _: Request<pb::Nothing>) -> UnaryResult {
        reply(vec![image(PNG)])
    }

    async fn audio_content(&self, _: Request<pb::Nothing>) -> UnaryResult {
        reply(vec![audio(WAV)])
    }

    async fn embedded_resource(&self, _: Request<pb::Nothing>) -> UnaryResult {
        reply(vec![resource(
            "test://embedded-resource",
            "text/plain",
            "This is an embedded resource content.",
        )])
    }

    async fn multiple_content_types(&self, _: Request<pb::Nothing>) -> UnaryResult {
        reply(vec![
            text("Multiple content types test:"),
            image(PNG),
            resource(
                "test://mixed-content-resource",
                "application/json",
                r#"{"test":"data","value":123}"#,
            ),
        ])
    }

    async fn error_handling(&self, _: Request<pb::Nothing>) -> UnaryResult {
        Err(Status::failed_precondition("This tool intentionally returns an error for testing"))
    }

    async fn scoped(&self, _: Request<pb::Nothing>) -> UnaryResult {
        reply_text("scoped")
    }

    async fn who_am_i(&self, request: Request<pb::Introduced>) -> UnaryResult {
        let Some(caller) = VerifiedCaller::from_request(&request) else {
            return Err(Status::internal("no caller"));
        };
        let token = SecretString::clone(&caller.token);
        *self.called_with.lock().unwrap_or_else(PoisonError::into_inner) = Some(token);
        let tenant = caller.claims.tctx.tenant.as_deref().unwrap_or_default();
        reply_text(&format!("{} of {tenant}", caller.claims.sub))
    }

    async fn tool_with_progress(&self, _: Request<pb::Nothing>) -> StreamResult {
        streaming::progress()
    }

    async fn tool_with_logging(&self, _: Request<pb::Nothing>) -> StreamResult {
        streaming::log_lines()
    }

    async fn logging_tool(&self, _: Request<pb::Nothing>) -> StreamResult {
        streaming::log_lines()
    }

    async fn reconnection(&self, _: Request<pb::Nothing>) -> UnaryResult {
        reply_text("done")
    }

    async fn sampling(&self, request: Request<pb::Prompted>) -> UnaryResult {
        let pb::Prompted { prompt, interaction } = request.into_inner();
        elicit::sampling(&prompt, &interaction.unwrap_or_default())
    }

    async fn elicitation(&self, request: Request<pb::Messaged>) -> UnaryResult {
        let pb::Messaged { message, interaction } = request.into_inner();
        elicit::elicitation(&message, &interaction.unwrap_or_default())
    }

    async fn elicitation_sep1034_defaults(&self, request: Request<pb::Asking>) -> UnaryResult {
        elicit::form("Please fill in the form", &elicit::defaults(), &interaction(&request))
    }

    async fn elicitation_sep1330_enums(&self, request: Request<pb::Asking>) -> UnaryResult {
        elicit::form("Please choose", &elicit::enums(), &interaction(&request))
    }

    async fn streaming_elicitation(&self, request: Request<pb::Asking>) -> StreamResult {
        streaming::elicitation(&interaction(&request)).await
    }

    async fn open_page(&self, request: Request<pb::Asking>) -> UnaryResult {
        elicit::page(self.opened.load(Ordering::Relaxed), &interaction(&request))
    }

    async fn client_extensions(&self, request: Request<pb::Asking>) -> UnaryResult {
        let extensions = interaction(&request).client.and_then(|client| client.extensions);
        reply_text(
            &extensions.map_or_else(|| "none".to_owned(), |extensions| json_struct(&extensions)),
        )
    }

    async fn trigger_tool_change(&self, _: Request<pb::Nothing>) -> UnaryResult {
        self.changes.send_modify(|changes| changes.tools = !changes.tools);
        reply_text("the tools change")
    }

    async fn trigger_prompt_change(&self, _: Request<pb::Nothing>) -> UnaryResult {
        self.changes.send_modify(|changes| changes.prompts = !changes.prompts);
        reply_text("the prompts change")
    }

    async fn missing_capability(&self, request: Request<pb::Asking>) -> UnaryResult {
        elicit::capital(&interaction(&request))
    }

    async fn custom_header(&self, request: Request<pb::Headed>) -> UnaryResult {
        reply_text(&request.into_inner().value)
    }

    async fn json_schema(&self, _: Request<pb::Nothing>) -> UnaryResult {
        reply_text("done")
    }

    async fn input_required_result_elicitation(&self, request: Request<pb::Asking>) -> UnaryResult {
        elicit::user_name(&interaction(&request))
    }

    async fn input_required_result_sampling(&self, request: Request<pb::Asking>) -> UnaryResult {
        elicit::capital(&interaction(&request))
    }

    async fn input_required_result_list_roots(&self, request: Request<pb::Asking>) -> UnaryResult {
        elicit::client_roots(&interaction(&request))
    }

    async fn input_required_result_request_state(
        &self,
        request: Request<pb::Asking>,
    ) -> UnaryResult {
        elicit::with_state(&interaction(&request))
    }

    async fn input_required_result_multiple_inputs(
        &self,
        request: Request<pb::Asking>,
    ) -> UnaryResult {
        elicit::several(&interaction(&request))
    }

    async fn input_required_result_multi_round(&self, request: Request<pb::Asking>) -> UnaryResult {
        elicit::two_rounds(&interaction(&request))
    }

    async fn input_required_result_tampered_state(
        &self,
        request: Request<pb::Asking>,
    ) -> UnaryResult {
        elicit::with_state(&interaction(&request))
    }

    async fn input_required_result_capabilities(
        &self,
        request: Request<pb::Asking>,
    ) -> UnaryResult {
        elicit::by_capability(&interaction(&request))
    }

    async fn static_text(&self, _: Request<pb::Nothing>) -> ContentsResult {
        make::contents("This is the content of the static text resource.")
    }

    async fn static_binary(&self, _: Request<pb::Nothing>) -> ContentsResult {
        let contents = Some(mcp::resource_contents::Contents::Blob(make::bytes(PNG)));
        let contents = mcp::ResourceContents { contents, ..Default::default() };
        Ok(Response::new(pb::Contents { contents: Some(contents) }))
    }

    async fn watched_resource(&self, _: Request<pb::Nothing>) -> ContentsResult {
        make::contents("This resource can be watched.")
    }

    async fn watch(
        &self,
        _: Request<pb::Nothing>,
    ) -> Result<Response<ReceiverStream<Result<pb::Changed, Status>>>, Status> {
        Ok(streaming::changes())
    }

    async fn template_data(&self, request: Request<pb::Identified>) -> ContentsResult {
        let id = request.into_inner().id;
        let text = format!("Data for ID: {id}");
        let data = serde_json::json!({ "id": id, "templateTest": true, "data": text });
        make::contents(&data.to_string())
    }

    async fn simple_prompt(&self, _: Request<pb::Nothing>) -> Result<Response<pb::Prompt>, Status> {
        prompt(vec![text("This is a simple prompt for testing.")])
    }

    async fn prompt_with_arguments(
        &self,
        request: Request<pb::TwoArguments>,
    ) -> Result<Response<pb::Prompt>, Status> {
        let pb::TwoArguments { arg1, arg2 } = request.into_inner();
        prompt(vec![text(&format!("Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"))])
    }

    async fn prompt_with_embedded_resource(
        &self,
        request: Request<pb::Referring>,
    ) -> Result<Response<pb::Prompt>, Status> {
        let uri = request.into_inner().resource_uri;
        prompt(vec![
            resource(&uri, "text/plain", "Embedded resource content for testing."),
            text("Please process the embedded resource above."),
        ])
    }

    async fn prompt_with_image(
        &self,
        _: Request<pb::Nothing>,
    ) -> Result<Response<pb::Prompt>, Status> {
        prompt(vec![image(PNG), text("Please analyze the image above.")])
    }

    async fn input_required_result_prompt(
        &self,
        request: Request<pb::Asking>,
    ) -> Result<Response<pb::Prompt>, Status> {
        let given = interaction(&request);
        let Some(context) = elicit::accepted(&given, "user_context") else {
            let form =
                make::form("What context should the prompt use?", &elicit::name_form("context"));
            let input_required = Some(elicit::one("user_context", form));
            return Ok(Response::new(pb::Prompt { input_required, ..Default::default() }));
        };
        prompt(vec![text(&format!("In the context of {}", json_struct(&context)))])
    }

    async fn complete(
        &self,
        request: Request<pb::Completing>,
    ) -> Result<Response<pb::Completed>, Status> {
        let argument = request.into_inner().argument.unwrap_or_default();
        let values = ["testValue1", "testValue2", "other"];
        let values: Vec<_> =
            values.into_iter().filter(|value| value.starts_with(&argument.value)).collect();
        let completion = mcp::Completion {
            total: Some(u32::try_from(values.len()).unwrap_or(u32::MAX)),
            values: values.into_iter().map(ToOwned::to_owned).collect(),
            has_more: false,
        };
        Ok(Response::new(pb::Completed { completion: Some(completion) }))
    }

    async fn slow_work(&self, request: Request<pb::SlowWorkRequest>) -> StreamResult {
        streaming::slow_work(self.clone(), request.into_inner())
    }

    async fn fail_with(&self, request: Request<pb::FailWithRequest>) -> UnaryResult {
        let pb::FailWithRequest { code, message, times } = request.into_inner();
        let before = self.failures.fetch_add(1, Ordering::Relaxed);
        if times > 0 && before >= times {
            return reply_text("succeeded at last");
        }
        Err(Status::new(Code::from(code), message))
    }

    async fn echo_values(
        &self,
        request: Request<pb::Values>,
    ) -> Result<Response<pb::Values>, Status> {
        Ok(Response::new(request.into_inner()))
    }
}
