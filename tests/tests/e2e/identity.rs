//! Identity inside the mesh: transaction tokens on every RPC, and never the client's own token.

use std::time::Duration;

use drawbridge_cli::caller;
use drawbridge_contract::{Contract, dynamic::DynamicCodec};
use drawbridge_edge::ServiceAddress;
use drawbridge_mesh::HostedService;
use drawbridge_proto::auth::v1::{
    self as pb, auth_service_client::AuthServiceClient, exchange_response,
};
use drawbridge_runtime::{Listen, RequestId, TelemetryConfig};
use drawbridge_tests::{Spy, TestMesh, connect, sign_in};
use drawbridge_transport::{CallContext, TXN_TOKEN, reflection};
use http::StatusCode;
use prost_reflect::{DynamicMessage, MethodDescriptor};
use serde_json::{Value, json};
use tonic::{Code, Response, Status, Streaming};
use url::Url;

pub(crate) fn context() -> CallContext {
    CallContext::new(RequestId::generate(), Duration::from_secs(10))
}

pub(crate) async fn contract(url: &Url) -> Contract {
    reflection::fetch_contract(connect(url).expect("a channel"), &context())
        .await
        .expect("a contract")
}

/// The status of a call with these transaction tokens: of a valid one there is exactly one.
pub(crate) async fn call_with(url: &Url, method: &MethodDescriptor, tokens: &[&str]) -> Code {
    call(url, method, tokens).await.map_or_else(|status| status.code(), |_| Code::Ok)
}

/// The first message of a method's response to an empty request without a token, as JSON.
pub(crate) async fn response_of(url: &Url, method: &MethodDescriptor) -> Result<Value, Status> {
    let response = call(url, method, &[]).await?.into_inner().message().await?;
    Ok(serde_json::to_value(response).expect("JSON"))
}

async fn call(
    url: &Url,
    method: &MethodDescriptor,
    tokens: &[&str],
) -> Result<Response<Streaming<DynamicMessage>>, Status> {
    let mut request = context().outgoing(DynamicMessage::new(method.input()));
    for token in tokens {
        request.metadata_mut().append(TXN_TOKEN, token.parse().expect("a header value"));
    }
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    let mut client = tonic::client::Grpc::new(connect(url).expect("a channel"));
    client.ready().await.expect("a service");
    let codec = DynamicCodec::new(method.output());
    client.server_streaming(request, path.parse().expect("a path"), codec).await
}

/// A transaction token for `rpc`, obtained like the command line does.
pub(crate) async fn transaction_token(mesh: &TestMesh, rpc: &str) -> Result<String, String> {
    let state = &mesh.mesh.state;
    let workload = state.workload.as_ref().expect("a workload");
    let own = caller::client_credentials(
        &state.issuer,
        &workload.client_id,
        &workload.client_secret,
        &state.internal_audience,
    )
    .await
    .expect("a token");
    let own = secrecy::ExposeSecret::expose_secret(&own).to_owned();
    exchange(mesh, &own, rpc).await
}

/// A transaction token for the owner of this subject token.
pub(crate) async fn exchange(mesh: &TestMesh, own: &str, rpc: &str) -> Result<String, String> {
    let request = pb::ExchangeRequest {
        subject_token: own.to_owned(),
        rpc: rpc.to_owned(),
        actor_token: String::new(),
    };
    exchange_at(&mesh.mesh.state.auth_url, request).await
}

/// A transaction token, or auth's other outcome.
pub(crate) async fn exchange_at(
    auth_url: &Url,
    request: pb::ExchangeRequest,
) -> Result<String, String> {
    let mut auth = AuthServiceClient::new(connect(auth_url).expect("a channel"));
    match auth.exchange(context().outgoing(request)).await.expect("an answer").into_inner().outcome
    {
        Some(exchange_response::Outcome::Allowed(allowed)) => {
            Ok(allowed.transaction_token.expect("a token").token)
        }
        other => Err(format!("{other:?}")),
    }
}

#[tokio::test]
async fn an_internal_caller_exchanges_its_own_token_under_the_same_policies() {
    let mesh = TestMesh::start().await;
    let code = &mesh.mesh.state.services["code"];
    let contract = contract(code).await;
    let service =
        contract.pool.get_service_by_name("drawbridge.code.v1.CodeService").expect("a service");
    let list = service.methods().find(|method| method.name() == "ListFiles").expect("a method");

    let token = transaction_token(&mesh, "drawbridge.code.v1.CodeService/ListFiles")
        .await
        .expect("a token");
    assert_eq!(call_with(code, &list, &[&token]).await, Code::Ok);

    // A policy decides on the path, which is unknown at the time of the exchange.
    let read = transaction_token(&mesh, "drawbridge.code.v1.CodeService/ReadFile").await;
    assert!(read.expect_err("no token").contains("Denied"));
    let unknown = transaction_token(&mesh, "drawbridge.code.v1.CodeService/NoSuch").await;
    assert!(unknown.expect_err("no token").contains("Denied"));

    // A user's token for the edge is not valid for auth.
    let alice = mesh.client("alice").await;
    let refused = exchange(&mesh, alice.token(), "drawbridge.code.v1.CodeService/ListFiles").await;
    assert!(refused.expect_err("no token").contains("another audience"));
    let alice = sign_in(&mesh.mesh.state.issuer, "drawbridge-auth", "alice", "alice").await;
    assert!(exchange(&mesh, &alice, "drawbridge.code.v1.CodeService/ListFiles").await.is_ok());
}

#[tokio::test]
async fn the_clients_token_never_passes_the_edge() {
    let mesh = TestMesh::start().await;
    let (spy, spied) = Spy::start(&mesh.mesh.state.services["code"]).await;
    let (listen, address) =
        Listen::bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let config = drawbridge_edge::Config {
        listen,
        admin_listen: "127.0.0.1:0".parse().expect("an address"),
        services: vec![ServiceAddress {
            namespace: "code".parse().expect("a namespace"),
            url: spied,
        }],
        allowed_hosts: vec![address.to_string()],
        mtls: mesh.mtls("edge"),
        ..drawbridge_edge::Config::new(
            mesh.mesh.mcp_url.clone(),
            mesh.mesh.state.issuer.to_string(),
            mesh.mesh.state.auth_url.clone(),
        )
    };
    let telemetry = TelemetryConfig::default();
    let edge = HostedService::start("edge", &telemetry, |telemetry| async move {
        drawbridge_edge::start(config, &telemetry).await
    });
    let edge = edge.await.expect("an edge");
    edge.running.readiness().wait_ready().await;

    let alice = mesh.client("alice").await;
    let call = json!({
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": { "name": "code_search", "arguments": { "query": "fn main" } },
    });
    // The edge drops internal headers of outside requests.
    let request = alice.post().header("txn-token", "forged").body(call.to_string()).build();
    let request = request.map(|mut request| {
        *request.url_mut() = format!("http://{address}/mcp").parse().expect("a URL");
        request
    });
    let reply = alice.send_built(request).await;
    assert_eq!((reply.status, reply.error_code()), (StatusCode::OK, None), "{reply:?}");

    let calls = spy.calls();
    let (_, headers) = calls.iter().find(|(path, _)| path.ends_with("/Search")).expect("the call");
    assert!(headers.contains_key("txn-token") && headers.contains_key("traceparent"));
    assert_eq!(headers["x-request-id"], reply.request_id());
    assert!(!headers.contains_key("authorization"));
    for (path, headers) in &calls {
        for (name, value) in headers {
            let value = value.to_str().unwrap_or_default();
            assert!(!value.contains(alice.token()) && value != "forged", "{path} {name}");
        }
    }
    assert!(!mesh.log().contains(alice.token()), "a token in the log");
    edge.stop().await;
}
