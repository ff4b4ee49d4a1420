//! The scope of a transaction token.

use std::fs;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use drawbridge_contract::dynamic;
use drawbridge_mesh::{HostedService, MeshConfig};
use drawbridge_proto::auth::v1::{self as pb, auth_service_client::AuthServiceClient};
use drawbridge_tests::{Client, Edge, Spy, TestMesh, connect, permit, serve_conformance, sign_in};
use drawbridge_transport::{TXN_TOKEN, transaction_token::TransactionClaims};
use prost_reflect::{Kind, MessageDescriptor, MethodDescriptor};
use serde_json::{Value, json};
use tonic::{Code, Status, metadata::MetadataMap};
use url::Url;

use crate::{
    catalog::PythonService,
    identity::{context, contract, exchange},
    mcp::interaction::call_with,
};

const SERVICE: &str = "drawbridge.conformance.v1.ConformanceService";
/// Forbids some arguments, so that decisions on these items read them.
const READS_ARGUMENTS: &str = r#"
@id("no-secret-values")
forbid (principal, action == Action::"test_custom_header", resource)
when { context.input.value == "secret" };
@id("no-secret-messages")
forbid (principal, action == Action::"test_elicitation", resource)
when { context.input.message == "secret" };
@id("no-secret-ids")
forbid (principal, action == Action::"test_template_data", resource)
when { context.input.id == "secret" };
"#;

fn add_argument_policies(config: &mut MeshConfig) {
    serve_conformance(config);
    fs::write(config.policies.join("reads-arguments.cedar"), READS_ARGUMENTS).expect("a file");
}

/// The conformance service with an edge, and the recorded calls between them.
struct RecordedMesh {
    mesh: TestMesh,
    service: Url,
    edge: Edge,
    spy: Spy,
    alice: Client,
    _hosted: (HostedService, Edge),
}

impl RecordedMesh {
    async fn start() -> Self {
        let mesh = TestMesh::with(add_argument_policies).await;
        let (_, hosted, other_edge) = mesh.conformance(|_| {}).await;
        let service = mesh.grpc_url(&hosted.running.address);
        let (spy, spied) = Spy::start(&service).await;
        let edge = mesh.edge(&[("test", &spied)], |_| {}).await;
        let alice = edge.client(&mesh.client("alice").await);
        Self { mesh, service, edge, spy, alice, _hosted: (hosted, other_edge) }
    }

    /// The transaction token of the last call of this RPC.
    fn token(&self, rpc: &str) -> String {
        let path = format!("/{SERVICE}/{rpc}");
        let calls = self.spy.calls();
        let (_, headers) = calls.iter().rev().find(|(called, _)| *called == path).expect("a call");
        headers[TXN_TOKEN].to_str().expect("a token").to_owned()
    }

    /// Calls the service without the edge, like an attacker who intercepted a token.
    async fn replay(&self, rpc: &str, token: &str, arguments: Value) -> Result<Value, Status> {
        let method = method(&self.service, SERVICE, rpc).await;
        let metadata = |metadata: &mut MetadataMap| {
            metadata.insert(TXN_TOKEN, token.parse().expect("a value"));
        };
        call(&self.service, &method, arguments, metadata).await
    }
}

async fn method(url: &Url, service: &str, rpc: &str) -> MethodDescriptor {
    let service = contract(url).await.pool.get_service_by_name(service).expect("a service");
    service.methods().find(|method| method.name() == rpc).expect("a method")
}

/// The first message of an RPC's response.
async fn call(
    url: &Url,
    method: &MethodDescriptor,
    arguments: Value,
    metadata: impl FnOnce(&mut MetadataMap),
) -> Result<Value, Status> {
    let message = dynamic::from_json(method.input(), &arguments).expect("a message");
    let mut request = context().outgoing(message);
    metadata(request.metadata_mut());
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    let mut client = tonic::client::Grpc::new(connect(url).expect("a channel"));
    client.ready().await.expect("a service");
    let codec = dynamic::DynamicCodec::new(method.output());
    let responses = client.server_streaming(request, path.parse().expect("a path"), codec).await?;
    let response = responses.into_inner().message().await?;
    Ok(serde_json::to_value(response).expect("JSON"))
}

fn claims(token: &str) -> TransactionClaims {
    let payload = token.split('.').nth(1).expect("a payload");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).expect("base64")).expect("claims")
}

fn error_of(response: Result<Value, Status>) -> (Code, String) {
    let status = response.expect_err("a rejection");
    (status.code(), status.message().to_owned())
}

fn another_message() -> (Code, String) {
    (Code::Unauthenticated, "the transaction token is for another message".to_owned())
}

/// The attack: an intercepted token carried any arguments for 30 seconds, also those that policy
/// forbids.
#[tokio::test]
async fn a_token_of_a_decision_that_read_arguments_is_valid_for_that_message_only() {
    let recorded = RecordedMesh::start().await;
    let reply =
        recorded.alice.call_tool("test_custom_header", json!({ "value": "harmless" })).await;
    assert_eq!(reply.message(), "harmless", "{reply:?}");
    let denied = recorded.alice.call_tool("test_custom_header", json!({ "value": "secret" })).await;
    assert_eq!(denied.error_code(), Some(-32043), "{denied:?}");

    let token = recorded.token("CustomHeader");
    assert!(claims(&token).tctx.message_sha256.is_some());
    for other in [json!({ "value": "secret" }), json!({ "value": "harmless " }), json!({})] {
        let answer = recorded.replay("CustomHeader", &token, other.clone()).await;
        assert_eq!(error_of(answer), another_message(), "{other}");
    }
    let same = recorded.replay("CustomHeader", &token, json!({ "value": "harmless" })).await;
    assert!(same.is_ok(), "{same:?}");
}

#[tokio::test]
async fn a_decision_that_reads_arguments_issues_no_token_without_a_message_digest() {
    let recorded = RecordedMesh::start().await;
    let state = &recorded.mesh.mesh.state;
    let mut auth = AuthServiceClient::new(connect(&state.auth_url).expect("a channel"));
    let mut authorize =
        async |name: &str, rpc: &str, arguments: Value, message_sha256: Option<Vec<u8>>| {
            let item = pb::CatalogItem {
                name: name.to_owned(),
                service: "test".to_owned(),
                rpc: format!("{SERVICE}/{rpc}"),
                scopes: Vec::new(),
            };
            let operation = pb::Operation {
                kind: pb::operation::Kind::CallTool.into(),
                item: Some(item),
                arguments_json: Some(arguments.to_string().into_bytes().into()),
                recorded_arguments_json: None,
                message_sha256,
            };
            let request = pb::AuthorizeRequest {
                access_token: recorded.alice.token().to_owned(),
                operation: Some(operation),
                resource: recorded.mesh.mesh.mcp_url.to_string(),
                client_address: String::new(),
            };
            let answer = auth.authorize(context().outgoing(request)).await?;
            match answer.into_inner().outcome.expect("an outcome") {
                pb::authorize_response::Outcome::Allowed(allowed) => Ok(allowed.transaction_token),
                other => panic!("{other:?}"),
            }
        };
    let harmless = || json!({ "value": "harmless" });
    assert_eq!(
        authorize("test_custom_header", "CustomHeader", harmless(), None).await.expect("an answer"),
        None
    );
    let token =
        authorize("test_custom_header", "CustomHeader", harmless(), Some(vec![7; 32])).await;
    let token = token.expect("an answer").expect("a token").token;
    let digest = URL_SAFE_NO_PAD.encode([7; 32]);
    assert_eq!(claims(&token).tctx.message_sha256.as_deref(), Some(digest.as_str()));
    let short: Result<_, Status> =
        authorize("test_custom_header", "CustomHeader", harmless(), Some(vec![7; 31])).await;
    assert_eq!(short.expect_err("a rejection").code(), Code::InvalidArgument);
    // A decision that reads no arguments needs no digest.
    let token = authorize("test_simple_text", "SimpleText", json!({}), None).await;
    let token = token.expect("an answer").expect("a token").token;
    assert_eq!(claims(&token).tctx.message_sha256, None);
}

#[tokio::test]
async fn a_token_of_a_decision_that_reads_no_arguments_is_valid_for_any_message_of_the_rpc() {
    let recorded = RecordedMesh::start().await;
    let get =
        json!({ "name": "test_prompt_with_arguments", "arguments": { "arg1": "a", "arg2": "b" } });
    let got = recorded.alice.call("prompts/get", get).await;
    assert_eq!(got.error_code(), None, "{got:?}");
    let token = recorded.token("PromptWithArguments");
    assert_eq!(claims(&token).tctx.message_sha256, None);
    let other =
        recorded.replay("PromptWithArguments", &token, json!({ "arg1": "c", "arg2": "d" })).await;
    assert!(other.is_ok(), "{other:?}");
    let other_rpc = recorded.replay("CustomHeader", &token, json!({ "value": "harmless" })).await;
    assert_eq!(error_of(other_rpc).0, Code::Unauthenticated);
}

/// The attack: the token of an elicitation carried a response that the user never gave.
#[tokio::test]
async fn each_round_of_a_call_has_a_token_bound_to_its_input_responses() {
    let recorded = RecordedMesh::start().await;
    let (alice, arguments) = (&recorded.alice, || json!({ "message": "harmless" }));
    let elicits = || json!({ "elicitation": {} });
    let elicitation = call_with(alice, "test_elicitation", arguments(), elicits(), json!({})).await;
    assert_eq!(elicitation.json["result"]["resultType"], "input_required", "{elicitation:?}");
    let first = recorded.token("Elicitation");

    let (key, _) = elicitation.json["result"]["inputRequests"]
        .as_object()
        .and_then(|requests| requests.iter().next())
        .expect("an input request");
    let given = json!({
        "requestState": elicitation.json["result"]["requestState"],
        "inputResponses": { key: { "action": "accept", "content": { "username": "a", "email": "b" } } },
    });
    let forged = json!({
        "message": "harmless",
        "interaction": { "responses": { key: { "elicitation": { "action": "ACTION_ACCEPT" } } } },
    });
    for message in [forged.clone(), arguments()] {
        let answer = recorded.replay("Elicitation", &first, message).await;
        assert_eq!(error_of(answer), another_message());
    }

    let done = call_with(alice, "test_elicitation", arguments(), elicits(), given).await;
    assert!(done.message().starts_with("User response"), "{done:?}");
    let second = recorded.token("Elicitation");
    assert_ne!(claims(&first).tctx.message_sha256, claims(&second).tctx.message_sha256);
    assert_eq!(error_of(recorded.replay("Elicitation", &second, forged).await), another_message());

    let denied = json!({ "message": "secret" });
    let denied = call_with(alice, "test_elicitation", denied, elicits(), json!({})).await;
    assert_eq!(denied.error_code(), Some(-32043), "{denied:?}");
}

#[tokio::test]
async fn tokens_of_resources_and_completions_are_bound_to_their_messages_too() {
    let recorded = RecordedMesh::start().await;
    let uri = |id: &str| json!({ "uri": format!("test://template/{id}/data") });
    let read = recorded.alice.call("resources/read", uri("7")).await;
    assert_eq!(read.error_code(), None, "{read:?}");
    let token = recorded.token("TemplateData");
    let answer = recorded.replay("TemplateData", &token, json!({ "id": "secret" })).await;
    assert_eq!(error_of(answer), another_message());
    assert!(recorded.replay("TemplateData", &token, json!({ "id": "7" })).await.is_ok());

    let complete = json!({
        "ref": { "type": "ref/resource", "uri": "test://template/{id}/data" },
        "argument": { "name": "id", "value": "1" },
    });
    let completed = recorded.alice.call("completion/complete", complete).await;
    assert_eq!(completed.error_code(), None, "{completed:?}");
}

/// The attack: with two tokens, one is verified and the other used.
#[tokio::test]
async fn a_call_with_two_tokens_is_rejected() {
    let recorded = RecordedMesh::start().await;
    let reply = recorded.alice.call("prompts/get", json!({ "name": "test_simple_prompt" })).await;
    assert_eq!(reply.error_code(), None, "{reply:?}");
    let token = recorded.token("SimplePrompt");
    let method = method(&recorded.service, SERVICE, "SimplePrompt").await;
    let with = async |pairs: &[(&'static str, &str)]| {
        let metadata = |metadata: &mut MetadataMap| {
            metadata.insert(TXN_TOKEN, token.parse().expect("a value"));
            for (name, value) in pairs {
                metadata.append(*name, value.parse().expect("a value"));
            }
        };
        call(&recorded.service, &method, json!({}), metadata).await
    };
    assert!(with(&[]).await.is_ok());
    assert!(with(&[("authorization", "Bearer a")]).await.is_ok());
    for twice in [
        [(TXN_TOKEN, token.as_str())].as_slice(),
        &[(TXN_TOKEN, "nonsense")],
        &[("authorization", "Bearer a"), ("authorization", "Bearer b")],
    ] {
        let (code, message) = error_of(with(twice).await);
        assert_eq!(code, Code::Unauthenticated, "{twice:?}");
        assert!(message.contains("more than one value"), "{message}");
    }
    drop(recorded.edge);
}

#[tokio::test]
async fn a_service_in_python_verifies_the_message_digest() {
    const GREETER: &str = "greeter.v1.GreeterService";
    let contract = PythonService::contract().await;
    let mesh = TestMesh::with(|config| {
        permit(config, "greeter", &contract);
        let forbid = r#"
            @id("not-eve")
            forbid (principal, action == Action::"greeter_greet", resource) when { context.input.name == "Eve" };
        "#;
        fs::write(config.policies.join("not-eve.cedar"), forbid).expect("a file");
    });
    let mesh = mesh.await;
    let service = PythonService::start(&mesh.transaction_keys());
    let (spy, spied) = Spy::start(&service.url).await;
    let edge = mesh.edge(&[("greeter", &spied)], |_| {}).await;
    let alice = edge.client(&mesh.client("alice").await);
    let greeted = alice.call_tool("greeter_greet", json!({ "name": "Ada" })).await;
    assert_eq!(
        greeted.json["result"]["structuredContent"]["greeting"], "Hello, Ada!",
        "{greeted:?}"
    );

    let calls = spy.calls();
    let (_, headers) = calls.iter().find(|(path, _)| path.ends_with("/Greet")).expect("a call");
    let method = method(&service.url, GREETER, "Greet").await;
    let replay = async |name: &str| {
        let metadata = |metadata: &mut MetadataMap| {
            let token = headers[TXN_TOKEN].to_str().expect("a token").parse().expect("a value");
            metadata.insert(TXN_TOKEN, token);
        };
        call(&service.url, &method, json!({ "name": name }), metadata).await
    };
    assert_eq!(error_of(replay("Eve").await), another_message());
    assert!(replay("Ada").await.is_ok());
}

/// The first string field of a message.
fn text_field(message: &MessageDescriptor) -> Option<String> {
    let mut fields = message.fields();
    let field = fields.find(|field| matches!(field.kind(), Kind::String) && !field.is_list())?;
    Some(field.name().to_owned())
}

/// The attack: SQLite stops reading a string at NUL, so that a filter with one matched everything.
/// Internal callers reach tool services without the edge.
#[tokio::test]
async fn every_tool_service_rejects_nul_in_a_string_and_names_the_field() {
    let recorded = RecordedMesh::start().await;
    let state = &recorded.mesh.mesh.state;
    let mut tokens = Vec::new();
    for name in ["alice", "bob", "carol"] {
        tokens.push(sign_in(&state.issuer, &state.internal_audience, name, name).await);
    }
    let token = async |rpc: &str| {
        for own in &tokens {
            if let Ok(token) = exchange(&recorded.mesh, own, rpc).await {
                return Some(token);
            }
        }
        None
    };
    let services = state.services.iter().map(|(name, url)| (name.as_str(), url));
    for (name, url) in services.chain([("test", &recorded.service)]) {
        let contract = contract(url).await;
        let mut tried = 0;
        for service in
            contract.services.iter().filter_map(|name| contract.pool.get_service_by_name(name))
        {
            for method in service.methods() {
                let rpc = format!("{}/{}", service.full_name(), method.name());
                let Some(field) = text_field(&method.input()) else { continue };
                let Some(token) = token(&rpc).await else { continue };
                let metadata = |metadata: &mut MetadataMap| {
                    metadata.insert(TXN_TOKEN, token.parse().expect("a value"));
                };
                let answer = call(url, &method, json!({ &field: "%\0" }), metadata).await;
                let expected = format!("{field}: must not contain the character NUL (U+0000)");
                assert_eq!(error_of(answer), (Code::InvalidArgument, expected), "{rpc}");
                tried += 1;
            }
        }
        assert!(tried > 0, "{name}: no RPC was tried");
    }
    // The check covers nested messages.
    let rpc = format!("{SERVICE}/Sampling");
    let token = token(&rpc).await.expect("a token");
    let answers =
        json!({ "prompt": "x", "interaction": { "responses": { "a\0": { "roots": {} } } } });
    let (code, message) = error_of(recorded.replay("Sampling", &token, answers).await);
    assert_eq!(code, Code::InvalidArgument);
    assert!(message.starts_with("interaction.responses.key: "), "{message}");
    // Fields of bytes may contain NUL.
    let bytes = json!({ "prompt": "x", "interaction": { "state": "AAAA" } });
    assert!(recorded.replay("Sampling", &token, bytes).await.is_ok());
}
