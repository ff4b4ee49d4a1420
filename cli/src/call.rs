//! `drawbridge call`: calls an RPC of a tool service directly, as an internal caller does.
//!
//! Auth exchanges the caller's token for a transaction token under the same policies as for any
//! other caller. The command reads the service's contract by reflection.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use drawbridge_contract::dynamic::{self, DynamicCodec};
use drawbridge_proto::auth::v1::{
    self as pb, auth_service_client::AuthServiceClient, exchange_response,
};
use drawbridge_runtime::{GrpcUrl, REQUEST_ID, RequestId, bounded};
use drawbridge_transport::{
    CallContext, SpiffeId, reflection, status_text, with_transaction_token,
};
use http::uri::PathAndQuery;
use prost_reflect::{DynamicMessage, MethodDescriptor};
use secrecy::{ExposeSecret as _, SecretString};
use tonic::{Status, transport::Channel};

use crate::caller::CallerArgs;
use drawbridge_mesh::state::MeshLookup;

/// The largest request on standard input, in bytes.
const REQUEST_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The RPC to call, and the caller.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  drawbridge call code Search '{\"query\":\"fn main\"}'
  drawbridge call --json code drawbridge.code.v1.CodeService/ListFiles \\
    '{\"glob\":\"*.proto\"}'
  echo '{\"query\":\"TODO\"}' | drawbridge call code Search -

With a mesh started by `drawbridge up`, nothing else is needed. Otherwise give the URLs of auth \
and the service, and the caller: a token, or a client id and secret at an issuer.")]
pub struct CallArgs {
    /// The tool service's namespace.
    service: String,

    /// The method, alone or as `package.Service/Method`.
    method: String,

    /// The request as JSON; `-` reads it from standard input.
    #[arg(default_value = "{}")]
    request: String,

    /// The gRPC URL of the service, or `unix:/path` on this host.
    #[arg(long, env = "DRAWBRIDGE_CALL_SERVICE_URL")]
    service_url: Option<GrpcUrl>,

    /// The SPIFFE id of the service. Absent: the caller's own with the namespace as its last
    /// segment.
    #[arg(long, value_name = "SPIFFE_ID")]
    service_spiffe_id: Option<SpiffeId>,

    /// The deadline of the call, in milliseconds.
    #[arg(long, default_value_t = 30_000)]
    timeout_ms: u64,

    /// Print each response as one line of JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    caller: CallerArgs,
}

/// Calls the RPC and prints each response message as a JSON document.
///
/// # Errors
/// When the caller has no identity, the call is not allowed, or the service fails.
pub async fn run(args: CallArgs) -> anyhow::Result<()> {
    let mesh = args.caller.mesh()?;
    let state = mesh.state();
    let service_url = args
        .service_url
        .clone()
        .map(|GrpcUrl(url)| url)
        .or_else(|| state?.services.get(&args.service).cloned())
        .ok_or_else(|| unknown_service(&args.service, &mesh))?;
    let auth_url = args.caller.auth_url(&mesh)?;
    let context = CallContext::new(RequestId::generate(), Duration::from_millis(args.timeout_ms));

    let peers = args.caller.peers(state)?;
    let channel = peers.connect(&service_url, &args.service, args.service_spiffe_id.as_ref())?;
    let contract =
        reflection::fetch_contract(channel.clone(), &context).await.with_context(|| {
            format!("cannot read the contract of {} at {service_url}", args.service)
        })?;
    let method = find_method(&contract, &args.method)?;
    let request = read_request(&args, &method)?;

    let caller_token = args.caller.token(state).await?;
    let rpc = format!("{}/{}", method.parent_service().full_name(), method.name());
    let auth = args.caller.auth(&peers, &auth_url)?;
    let token = exchange(auth, &context, &caller_token, &rpc)
        .await
        .with_context(|| format!("auth at {auth_url}"))?;
    call(channel, &context, &method, &token, request, args.json)
        .await
        .map_err(|status| anyhow!("{rpc}: {}", status_text(&status)))
        .with_context(|| format!("request {}", context.request_id))
}

fn unknown_service(service: &str, mesh: &MeshLookup) -> anyhow::Error {
    let known =
        mesh.state().map(|state| state.services.keys().cloned().collect::<Vec<_>>().join(", "));
    match known {
        Some(known) => {
            anyhow!("unknown service {service} (known: {known}); give --service-url")
        }
        None => {
            anyhow!("unknown service {service}; {}, or give --service-url", mesh.advice())
        }
    }
}

fn find_method(
    contract: &drawbridge_contract::Contract,
    wanted: &str,
) -> anyhow::Result<MethodDescriptor> {
    let services =
        contract.services.iter().filter_map(|name| contract.pool.get_service_by_name(name));
    let methods: Vec<_> =
        services.flat_map(|service| service.methods().collect::<Vec<_>>()).collect();
    let full_name = |method: &MethodDescriptor| {
        format!("{}/{}", method.parent_service().full_name(), method.name())
    };
    let mut matching =
        methods.iter().filter(|method| method.name() == wanted || full_name(method) == wanted);
    match (matching.next(), matching.next()) {
        (Some(method), None) => Ok(method.clone()),
        (Some(_), Some(_)) => {
            bail!("several services have a method {wanted}; write package.Service/Method")
        }
        (None, _) => {
            let known: Vec<_> = methods.iter().map(MethodDescriptor::name).collect();
            bail!("unknown method {wanted}; known methods: {}", known.join(", "))
        }
    }
}

fn read_request(args: &CallArgs, method: &MethodDescriptor) -> anyhow::Result<DynamicMessage> {
    ensure!(
        !method.is_client_streaming(),
        "{} is a client-streaming method, which this command does not support",
        method.name()
    );
    let mut text = args.request.clone();
    if text == "-" {
        text = bounded::read_to_string(std::io::stdin(), REQUEST_BYTES_MAX)
            .context("cannot read standard input")?;
    }
    let json = serde_json::from_str(&text).context("the request is not valid JSON")?;
    dynamic::from_json(method.input(), &json)
        .with_context(|| format!("the request is not a valid {}", method.input().full_name()))
}

async fn exchange(
    auth: Channel,
    context: &CallContext,
    caller_token: &SecretString,
    rpc: &str,
) -> anyhow::Result<SecretString> {
    let subject_token = caller_token.expose_secret().to_owned();
    let request =
        pb::ExchangeRequest { subject_token, rpc: rpc.to_owned(), actor_token: String::new() };
    let response = AuthServiceClient::new(auth).exchange(context.outgoing(request)).await;
    let response = response.map_err(|status| anyhow!("{}", status_text(&status)))?;
    let record_id =
        response.metadata().get(REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default();
    let record_id = record_id.to_owned();
    match response.into_inner().outcome {
        Some(exchange_response::Outcome::Allowed(pb::Allowed {
            transaction_token: Some(token),
            ..
        })) => Ok(token.token.into()),
        Some(exchange_response::Outcome::Denied(denied)) => {
            // Auth's audit log names the policy under this id.
            bail!("denied by policy: {rpc}: {} (audit record {record_id})", denied.reason)
        }
        Some(exchange_response::Outcome::Unauthenticated(reason)) => {
            bail!("{}", reason.description)
        }
        Some(exchange_response::Outcome::InsufficientScope(missing)) => {
            bail!("the token lacks scopes: {} are required", missing.scopes.join(" "))
        }
        _ => bail!("auth sent an empty response"),
    }
}

async fn call(
    channel: Channel,
    context: &CallContext,
    method: &MethodDescriptor,
    token: &SecretString,
    message: DynamicMessage,
    compact: bool,
) -> Result<(), Status> {
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    let path: PathAndQuery =
        path.parse().map_err(|_| Status::internal("the method's name is not a valid path"))?;
    let request = with_transaction_token(context.outgoing(message), token.expose_secret())?;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|_| Status::unavailable("the service does not answer"))?;
    // A unary response is a stream of one message.
    let codec = DynamicCodec::new(method.output());
    let mut responses = client.server_streaming(request, path, codec).await?.into_inner();
    while let Some(response) = responses.message().await? {
        let json =
            dynamic::to_json(&response).map_err(|error| Status::internal(error.to_string()))?;
        if compact {
            anstream::println!("{json}");
        } else {
            anstream::println!("{json:#}");
        }
    }
    Ok(())
}
