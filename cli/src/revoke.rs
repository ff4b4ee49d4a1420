//! `drawbridge revoke`: revokes access tokens before they expire.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use drawbridge_proto::auth::v1::{
    self as pb, auth_service_client::AuthServiceClient, revoke_response::Outcome, token_set::Which,
};
use drawbridge_runtime::RequestId;
use drawbridge_transport::{CallContext, status_text};
use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use serde_json::json;
use tonic::Code;

use crate::caller::CallerArgs;

const TIMEOUT: Duration = Duration::from_secs(10);

/// Which tokens to revoke.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  drawbridge revoke --subject alice
  drawbridge revoke --client mcp-client --of https://idp.example
  drawbridge revoke --token-id 0b7f6e5c-7b3e-4a52-8f4e-2d7c1c2f9b1a

For a subject or a client, all tokens issued until now are revoked; tokens issued later are valid. \
Policies decide who may revoke, by the action `revoke`.")]
pub struct RevokeArgs {
    #[command(flatten)]
    which: WhichArgs,

    /// The issuer of the tokens. Absent: the issuer of the running mesh.
    #[arg(long = "of", value_name = "ISSUER")]
    of: Option<String>,

    /// Print the result as one line of JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    caller: CallerArgs,
}

#[derive(Clone, Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct WhichArgs {
    /// All tokens of this subject.
    #[arg(long)]
    subject: Option<String>,

    /// All tokens that were issued through this client.
    #[arg(long, value_name = "CLIENT_ID")]
    client: Option<String>,

    /// The one token with this id (`jti`).
    #[arg(long, value_name = "JTI")]
    token_id: Option<String>,
}

impl WhichArgs {
    fn which(self) -> Option<Which> {
        let subject = self.subject.map(Which::Subject);
        subject.or(self.client.map(Which::ClientId)).or(self.token_id.map(Which::TokenId))
    }
}

/// Revokes tokens and prints the time of the revocation.
///
/// # Errors
/// When the caller has no identity or no permission, or auth cannot store the revocation.
pub async fn run(args: RevokeArgs) -> anyhow::Result<()> {
    let mesh = args.caller.mesh()?;
    let state = mesh.state();
    let auth_url = args.caller.auth_url(&mesh)?;
    let issuer = args.of.clone().or_else(|| Some(state?.issuer_name().to_owned()));
    let issuer = issuer.context("the issuer of the tokens is unknown; give --of")?;
    let caller_token = args.caller.token(state).await?;

    let context = CallContext::new(RequestId::generate(), TIMEOUT);
    let tokens = pb::TokenSet { issuer, which: args.which.which() };
    let request = pb::RevokeRequest {
        subject_token: caller_token.expose_secret().to_owned(),
        tokens: Some(tokens.clone()),
    };
    let mut auth = AuthServiceClient::new(args.caller.auth(&args.caller.peers(state)?, &auth_url)?);
    let response = auth.revoke(context.outgoing(request)).await;
    let response = response
        .map_err(|status| match status.code() {
            // The message describes the mistake in full.
            Code::InvalidArgument => anyhow!("{}", status.message()),
            _ => anyhow!("auth at {auth_url}: {}", status_text(&status)),
        })
        .with_context(|| format!("request {}", context.request_id))?;
    match response.into_inner().outcome {
        Some(Outcome::Revoked(revoked)) => {
            report(&tokens, &revoked, args.json);
            Ok(())
        }
        Some(Outcome::Unauthenticated(reason)) => bail!("{}", reason.description),
        Some(Outcome::Denied(denied)) => {
            bail!("denied by policy: revoke: {}", denied.reason)
        }
        None => bail!("auth sent an empty response"),
    }
}

fn report(tokens: &pb::TokenSet, revoked: &pb::Revoked, as_json: bool) {
    let time = |time: Option<prost_types::Timestamp>| {
        let time = Timestamp::new(time?.seconds, 0).ok()?;
        Some(time.to_string())
    };
    let (at, until) = (time(revoked.revoked_at), time(revoked.forgotten_at));
    let not_seen_since = time(revoked.not_seen_since);
    let (key, what, name) = match &tokens.which {
        Some(Which::Subject(name)) => ("subject", "subject", name.as_str()),
        Some(Which::ClientId(name)) => ("client", "client", name.as_str()),
        Some(Which::TokenId(name)) => ("tokenId", "token id", name.as_str()),
        None => ("", "", ""),
    };
    let issuer = &tokens.issuer;
    if as_json {
        anstream::println!(
            "{}",
            json!({
                "issuer": issuer,
                key: name,
                "revokedAt": at,
                "forgottenAt": until,
                "notSeenSince": not_seen_since,
            })
        );
    } else {
        let at = at.unwrap_or_default();
        anstream::println!(
            "revoked the tokens of {issuer} for the {what} {name} issued until {at}"
        );
    }
    if let Some(since) = not_seen_since {
        anstream::eprintln!(
            "warning: auth has verified no token of {issuer} for the {what} {name} since {since}; \
             check the spelling"
        );
    }
}
