//! Access tokens of a person for the MCP endpoint: of the development authorization server, or of
//! any other through a browser. Refresh tokens are stored, so that a person signs in once.

use anyhow::Context as _;
use drawbridge_mesh::state::{MeshArgs, MeshState};
use drawbridge_transport::fetch::{Fetcher, NetworkScope};
use secrecy::SecretString;
use url::Url;

use self::{
    oauth::{Server, Tokens},
    stored::StoredSignIn,
};

mod browser;
mod development;
mod oauth;
mod stored;

/// The MCP endpoint, and who signs in.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Sign-in")]
pub(crate) struct SignInArgs {
    #[command(flatten)]
    mesh: MeshArgs,

    /// The URL of the MCP endpoint. Absent: that of the running mesh.
    #[arg(long, env = "DRAWBRIDGE_CLIENT_URL", conflicts_with = "mesh")]
    url: Option<Url>,

    /// Sign in as this user at the development authorization server, without a browser.
    #[arg(long, env = "DRAWBRIDGE_CLIENT_USER")]
    user: Option<String>,

    /// The user's password. Absent: the user's name, as for the built-in users.
    #[arg(long, env = "DRAWBRIDGE_CLIENT_PASSWORD", hide_env_values = true, requires = "user")]
    password: Option<SecretString>,

    /// The client id at the authorization server, for the redirect URI
    /// `http://127.0.0.1/callback` with any port. Absent: the command registers itself.
    #[arg(long, env = "DRAWBRIDGE_CLIENT_CLIENT_ID")]
    client_id: Option<String>,

    /// Print the URL of the sign-in page and open no browser.
    #[arg(long, env = "DRAWBRIDGE_CLIENT_NO_BROWSER")]
    no_browser: bool,
}

/// A person who signs in at the authorization server of an MCP endpoint.
#[derive(Debug)]
pub(crate) struct SignIn {
    /// The MCP endpoint.
    pub(crate) endpoint: Url,
    /// The process of the running mesh. Absent: another endpoint.
    mesh_pid: Option<u32>,
    args: SignInArgs,
    fetcher: Fetcher,
}

impl SignInArgs {
    /// The endpoint of the option, or that of the running mesh.
    pub(crate) fn open(self) -> anyhow::Result<SignIn> {
        let (endpoint, mesh_pid) = match &self.url {
            Some(url) => (url.clone(), None),
            None => {
                let mesh = self.mesh.find()?;
                let unknown =
                    || format!("the MCP endpoint is unknown; {}, or give --url", mesh.advice());
                let state = mesh.state().with_context(unknown)?;
                (state.mcp_url.clone(), Some(state.pid))
            }
        };
        oauth::check_secure(&endpoint)?;
        let fetcher = Fetcher::new(NetworkScope::Anywhere)?;
        Ok(SignIn { endpoint, mesh_pid, args: self, fetcher })
    }
}

impl SignIn {
    /// A token: the stored one while it is valid, one from the stored refresh token, or one of a new
    /// sign-in. `is_refused`: the stored one was not accepted.
    pub(crate) async fn token(&self, is_refused: bool) -> anyhow::Result<Tokens> {
        let folder = MeshState::folder();
        let file = stored::file(&folder, &self.endpoint, self.args.user.as_deref());
        if let Some(tokens) = self.stored(&file, is_refused).await? {
            return Ok(tokens);
        }
        let server = oauth::discover(&self.fetcher, &self.endpoint).await?;
        let (client_id, tokens) = match &self.args.user {
            Some(user) => {
                let password = self.args.password.clone();
                let password = password.unwrap_or_else(|| user.clone().into());
                development::sign_in(&self.fetcher, &server, user, &password).await?
            }
            None => {
                let client_id = self.args.client_id.as_deref();
                browser::sign_in(&self.fetcher, &server, client_id, self.args.no_browser).await?
            }
        };
        self.store(&file, &server, client_id, &tokens)?;
        Ok(tokens)
    }

    /// The stored token, refreshed if it has expired, or if it is refused, or if another mesh is
    /// running at its address. `None`: no stored one can be used.
    async fn stored(
        &self,
        file: &std::path::Path,
        is_refused: bool,
    ) -> anyhow::Result<Option<Tokens>> {
        // A refresh token that two processes use revokes the grant.
        let _lock = stored::lock(file)?;
        let Some(stored) = stored::read(file)? else { return Ok(None) };
        if !is_refused && stored.mesh_pid == self.mesh_pid && stored.tokens.is_fresh() {
            return Ok(Some(stored.tokens));
        }
        let Some(refresh_token) = &stored.tokens.refresh_token else { return Ok(None) };
        let Ok(server) = oauth::discover(&self.fetcher, &self.endpoint).await else {
            return Ok(None);
        };
        // The authorization server of the endpoint may have changed: it gets no token of another.
        if server.issuer != stored.issuer {
            return Ok(None);
        }
        let refreshed =
            oauth::refresh(&self.fetcher, &server, &stored.client_id, refresh_token).await;
        let Ok(mut tokens) = refreshed else { return Ok(None) };
        tokens.refresh_token = tokens.refresh_token.or_else(|| stored.tokens.refresh_token.clone());
        self.store(file, &server, stored.client_id, &tokens)?;
        Ok(Some(tokens))
    }

    fn store(
        &self,
        file: &std::path::Path,
        server: &Server,
        client_id: String,
        tokens: &Tokens,
    ) -> anyhow::Result<()> {
        let stored = StoredSignIn {
            endpoint: self.endpoint.clone(),
            issuer: server.issuer.clone(),
            client_id,
            mesh_pid: self.mesh_pid,
            tokens: tokens.clone(),
        };
        stored::write(file, &stored)
    }
}
