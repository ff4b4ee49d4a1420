//! The identity with which a command calls the mesh.

use anyhow::{Context as _, bail, ensure};
use drawbridge_runtime::GrpcUrl;
use drawbridge_transport::{
    ChannelError, MtlsConfig, Peers, SpiffeId,
    fetch::{Fetcher, NetworkScope},
};
use http::Method;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use tonic::transport::Channel;
use url::Url;

use crate::contracts;
use drawbridge_mesh::state::{MeshArgs, MeshLookup, MeshState};

/// The address of auth and the caller's identity. Not needed with a mesh started by `drawbridge
/// up`.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Caller")]
pub struct CallerArgs {
    #[command(flatten)]
    mesh: MeshArgs,

    /// The gRPC URL of auth.
    #[arg(long, env = "DRAWBRIDGE_CALL_AUTH_URL")]
    auth_url: Option<GrpcUrl>,

    /// The SPIFFE id of auth. Absent: the caller's own with `auth` as its last segment.
    #[arg(long, env = "DRAWBRIDGE_CALL_AUTH_SPIFFE_ID", value_name = "SPIFFE_ID")]
    auth_spiffe_id: Option<SpiffeId>,

    /// An access token whose audience is auth.
    #[arg(long, env = "DRAWBRIDGE_CALL_TOKEN", hide_env_values = true)]
    token: Option<SecretString>,

    /// The issuer to request a token from.
    #[arg(long, env = "DRAWBRIDGE_CALL_ISSUER", requires = "client_id")]
    issuer: Option<Url>,

    /// The client id for the client-credentials grant.
    #[arg(long, env = "DRAWBRIDGE_CALL_CLIENT_ID", requires_all = ["issuer", "client_secret"])]
    client_id: Option<String>,

    /// The client secret for the client-credentials grant.
    #[arg(long, env = "DRAWBRIDGE_CALL_CLIENT_SECRET", hide_env_values = true)]
    client_secret: Option<SecretString>,

    /// The audience of the token: the value of auth's --internal-audience.
    #[arg(long, env = "DRAWBRIDGE_CALL_AUDIENCE", default_value = "drawbridge-auth")]
    audience: String,

    /// The client certificate, and the authorities to trust.
    #[command(flatten)]
    mtls: MtlsConfig,
}

impl CallerArgs {
    /// The selected running mesh, if any.
    pub(crate) fn mesh(&self) -> anyhow::Result<MeshLookup> {
        self.mesh.find()
    }

    /// The gRPC URL of auth: from the option, or else from the running mesh's state.
    pub(crate) fn auth_url(&self, mesh: &MeshLookup) -> anyhow::Result<Url> {
        let url = self
            .auth_url
            .clone()
            .map(|GrpcUrl(url)| url)
            .or_else(|| Some(mesh.state()?.auth_url.clone()));
        url.with_context(|| {
            format!("the URL of auth is unknown; {}, or give --auth-url", mesh.advice())
        })
    }

    /// The transport to the mesh's services: from the options, or else from the running mesh's
    /// state.
    pub(crate) fn peers(&self, state: Option<&MeshState>) -> anyhow::Result<Peers> {
        contracts::peers(&self.mtls, state)
    }

    /// A channel to auth.
    pub(crate) fn auth(&self, peers: &Peers, url: &Url) -> Result<Channel, ChannelError> {
        peers.connect(url, "auth", self.auth_spiffe_id.as_ref())
    }

    /// The caller's token: the given one, or one requested with the given client credentials, or
    /// with those of the running mesh.
    pub(crate) async fn token(&self, state: Option<&MeshState>) -> anyhow::Result<SecretString> {
        if let Some(token) = &self.token {
            return Ok(token.clone());
        }
        let own = state.and_then(|state| Some((&*state.issuer, state.workload.as_ref()?)));
        let (issuer, client_id, client_secret) = match (
            &self.issuer,
            &self.client_id,
            &self.client_secret,
            own,
        ) {
            (Some(issuer), Some(id), Some(secret), _) => (issuer, id, secret),
            (_, _, _, Some((issuer, own))) => (issuer, &own.client_id, &own.client_secret),
            _ => bail!(
                "no caller identity: give --token, or --issuer with --client-id and --client-secret"
            ),
        };
        client_credentials(issuer, client_id, client_secret, &self.audience)
            .await
            .with_context(|| format!("cannot get a token for the client {client_id} from {issuer}"))
    }
}

#[derive(Deserialize)]
struct ServerMetadata {
    token_endpoint: Url,
}

#[derive(Deserialize)]
struct TokenResponse {
    access_token: SecretString,
}

/// Gets a token by the client-credentials grant (RFC 6749 section 4.4) for one resource (RFC 8707).
///
/// # Errors
/// When the issuer does not answer or refuses.
pub async fn client_credentials(
    issuer: &Url,
    client_id: &str,
    client_secret: &SecretString,
    audience: &str,
) -> anyhow::Result<SecretString> {
    let fetcher = Fetcher::new(NetworkScope::Anywhere)?;
    let metadata: ServerMetadata =
        fetcher.json(&issuer.join("/.well-known/oauth-authorization-server")?).await?;
    let form = [("grant_type", "client_credentials"), ("resource", audience)];
    let request = fetcher
        .request(Method::POST, &metadata.token_endpoint)?
        .basic_auth(client_id, Some(client_secret.expose_secret()))
        .form(&form);
    let response = fetcher.send(&metadata.token_endpoint, request).await?;
    ensure!(
        response.status.is_success(),
        "the issuer responded with {}: {}",
        response.status,
        response.text()
    );
    let token: TokenResponse = response.json()?;
    Ok(token.access_token)
}
