//! `drawbridge call`: an RPC of a tool service, called directly as an internal caller does.
//!
//! The caller's own token is exchanged at auth for a transaction token, by the same policies that hold for
//! everybody; the service is then called by its own contract, which it tells by reflection.

use std::{io::Read as _, time::Duration};

use anyhow::{Context as _, anyhow, bail, ensure};
use drawbridge_proto::auth::v1::{
    self as pb, auth_service_client::AuthServiceClient, exchange_response,
};
use drawbridge_sdk::{
    CallContext, GrpcUrl, REQUEST_ID, RequestId, SpiffeId,
    dynamic::{self, DynamicCodec},
    reflection, status_text, with_transaction_token,
};
use http::uri::PathAndQuery;
use prost_reflect::{DynamicMessage, MethodDescriptor};
use secrecy::{ExposeSecret as _, SecretString};
use tonic::{Status, transport::Channel};

use crate::{caller::CallerArgs, state::Found};

/// What to call, and as whom.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  drawbridge call code Search '{\"query\":\"fn main\"}'
  drawbridge call --json code drawbridge.code.v1.CodeService/ListFiles \\
    '{\"glob\":\"*.proto\"}'
  echo '{\"query\":\"TODO\"}' | drawbridge call code Search -

With a mesh started by `drawbridge up`, nothing else is needed. Elsewhere, say where auth \
and the service are, and who is calling: a token, or a client id and secret at an issuer.")]
pub struct CallArgs {
    /// The tool service's namespace.
    service: String,

    /// The method, alone or as `package.Service/Method`.
    method: String,

    /// The request as JSON; `-` reads it from standard input.
    #[arg(default_value = "{}")]
    request: String,

    /// Where the service serves gRPC; on this host also `unix:/path`.
    #[arg(long, env = "DRAWBRIDGE_CALL_SERVICE_URL")]
    service_url: Option<GrpcUrl>,

    /// The SPIFFE id of the service. Absent: the caller's own with the namespace as its last segment.
    #[arg(long, value_name = "SPIFFE_ID")]
    service_spiffe_id: Option<SpiffeId>,

    /// How long the call may take, in milliseconds.
    #[arg(long, default_value_t = 30_000)]
    timeout_ms: u64,

    /// Write each answer as one line of JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    caller: CallerArgs,
}

/// Calls the RPC and prints what comes back, one JSON document for each message.
///
/// # Errors
/// When the caller is not known, the call is not allowed, or the service fails.
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
    let contract = reflection::contract(channel.clone(), &context).await.with_context(|| {
        format!("cannot read the contract of {} at {service_url}", args.service)
    })?;
    let method = find(&contract, &args.method)?;
    let request = read_request(&args, &method)?;

    let own = args.caller.token(state).await?;
    let rpc = format!("{}/{}", method.parent_service().full_name(), method.name());
    let auth = args.caller.auth(&peers, &auth_url)?;
    let token = exchange(auth, &context, &own, &rpc)
        .await
        .with_context(|| format!("auth at {auth_url}"))?;
    call(channel, &context, &method, &token, request, args.json)
        .await
        .map_err(|status| anyhow!("{rpc}: {}", status_text(&status)))
        .with_context(|| format!("request {}", context.request_id))
}

fn unknown_service(service: &str, mesh: &Found) -> anyhow::Error {
    let known =
        mesh.state().map(|state| state.services.keys().cloned().collect::<Vec<_>>().join(", "));
    match known {
        Some(known) => {
            anyhow!("no service {service} is known here (known: {known}); give --service-url")
        }
        None => {
            anyhow!("no service {service} is known here; {}, or give --service-url", mesh.advice())
        }
    }
}

fn find(contract: &reflection::Contract, wanted: &str) -> anyhow::Result<MethodDescriptor> {
    let services =
        contract.services.iter().filter_map(|name| contract.pool.get_service_by_name(name));
    let methods: Vec<_> =
        services.flat_map(|service| service.methods().collect::<Vec<_>>()).collect();
    let full_name = |method: &MethodDescriptor| {
        format!("{}/{}", method.parent_service().full_name(), method.name())
    };
    let mut found =
        methods.iter().filter(|method| method.name() == wanted || full_name(method) == wanted);
    match (found.next(), found.next()) {
        (Some(method), None) => Ok(method.clone()),
        (Some(_), Some(_)) => {
            bail!("several services have a method {wanted}; say package.Service/Method")
        }
        (None, _) => {
            let known: Vec<_> = methods.iter().map(MethodDescriptor::name).collect();
            bail!("there is no method {wanted}; there are: {}", known.join(", "))
        }
    }
}

fn read_request(args: &CallArgs, method: &MethodDescriptor) -> anyhow::Result<DynamicMessage> {
    ensure!(
        !method.is_client_streaming(),
        "{} takes a stream, which this command does not send",
        method.name()
    );
    let mut text = args.request.clone();
    if text == "-" {
        text.clear();
        std::io::stdin().read_to_string(&mut text).context("cannot read standard input")?;
    }
    let json = serde_json::from_str(&text).context("the request is not JSON")?;
    dynamic::from_json(method.input(), &json)
        .with_context(|| format!("the request is no {}", method.input().full_name()))
}

async fn exchange(
    auth: Channel,
    context: &CallContext,
    own: &SecretString,
    rpc: &str,
) -> anyhow::Result<SecretString> {
    let subject_token = own.expose_secret().to_owned();
    let request =
        pb::ExchangeRequest { subject_token, rpc: rpc.to_owned(), actor_token: String::new() };
    let answer = AuthServiceClient::new(auth).exchange(context.outgoing(request)).await;
    let answer = answer.map_err(|status| anyhow!("{}", status_text(&status)))?;
    let recorded =
        answer.metadata().get(REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default();
    let recorded = recorded.to_owned();
    match answer.into_inner().outcome {
        Some(exchange_response::Outcome::Allowed(pb::Allowed {
            transaction_token: Some(token),
            ..
        })) => Ok(token.token.into()),
        Some(exchange_response::Outcome::Denied(denied)) => {
            // Which policy it was, auth's records say by this id.
            bail!("denied by policy: {rpc}: {} (recorded as {recorded})", denied.reason)
        }
        Some(exchange_response::Outcome::Unauthenticated(reason)) => {
            bail!("{}", reason.description)
        }
        Some(exchange_response::Outcome::InsufficientScope(missing)) => {
            bail!("the token needs the scopes: {}", missing.scopes.join(" "))
        }
        _ => bail!("auth gives no answer"),
    }
}

async fn call(
    channel: Channel,
    context: &CallContext,
    method: &MethodDescriptor,
    token: &SecretString,
    message: DynamicMessage,
    one_line: bool,
) -> Result<(), Status> {
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    let path: PathAndQuery =
        path.parse().map_err(|_| Status::internal("the method's name makes no path"))?;
    let request = with_transaction_token(context.outgoing(message), token.expose_secret())?;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|_| Status::unavailable("the service does not answer"))?;
    // A unary answer is a stream of one.
    let codec = DynamicCodec::new(method.output());
    let mut answers = client.server_streaming(request, path, codec).await?.into_inner();
    while let Some(answer) = answers.message().await? {
        let json =
            dynamic::to_json(&answer).map_err(|error| Status::internal(error.to_string()))?;
        if one_line {
            anstream::println!("{json}");
        } else {
            anstream::println!("{json:#}");
        }
    }
    Ok(())
}
