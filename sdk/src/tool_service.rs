//! What every tool service repeats: its options, its start, and the errors of both.

use std::{
    future::ready,
    net::{Ipv4Addr, SocketAddr},
};

use drawbridge_runtime::{
    Admin, BindError, Effect, Listen, Readiness, RunningService, ServiceBuilder, Telemetry,
    backoff::ReconnectDelays, parse_defaults,
};
use drawbridge_transport::{
    GrpcServer, GrpcService, MtlsError, MtlsServerConfig, Peers, SpiffeId,
    jwks::Jwks,
    transaction_token::{Verifier, VerifierError},
};
use url::Url;

/// The options of every tool service. `PORT` is the default port of its gRPC server on loopback;
/// its admin port is the next one. A service flattens it after its own options, or has no others:
///
/// ```
/// #[derive(Clone, Debug, clap::Args)]
/// struct Config {
///     /// The largest text, in bytes.
///     #[arg(long, default_value_t = 65_536)]
///     text_bytes_max: usize,
///
///     #[command(flatten)]
///     service: drawbridge_sdk::ToolServiceConfig<7460>,
/// }
/// ```
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Tool service")]
pub struct ToolServiceConfig<const PORT: u16 = 7450> {
    /// Where to serve gRPC: an address and a port, or `unix:/path` for this host only.
    // `default_value_t` would have one value for all `PORT`s.
    #[arg(long, default_value = loopback(PORT).to_string())]
    pub listen: Listen,

    /// Where to serve health, readiness and metrics.
    #[arg(long, default_value = loopback(PORT + 1).to_string())]
    pub admin_listen: Listen,

    /// The JWKS URL of auth's transaction tokens.
    #[arg(long, default_value = "http://127.0.0.1:7111/.well-known/jwks.json")]
    pub auth_jwks_url: Url,

    /// The `iss` of transaction tokens.
    #[arg(long, default_value = "drawbridge-auth")]
    pub auth_issuer: String,

    /// The SPIFFE id of auth. Absent: the service's own with `auth` as its last segment.
    #[arg(long, value_name = "SPIFFE_ID")]
    pub auth_spiffe_id: Option<SpiffeId>,

    /// The callers to accept, and the service's certificate.
    #[command(flatten)]
    pub mtls: MtlsServerConfig,
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

impl<const PORT: u16> Default for ToolServiceConfig<PORT> {
    fn default() -> Self {
        parse_defaults(&[])
    }
}

impl<const PORT: u16> ToolServiceConfig<PORT> {
    /// A config for transaction tokens with these keys, with defaults otherwise, on free ports.
    #[must_use]
    pub fn on_free_ports(auth_jwks_url: Url) -> Self {
        let free = Listen::Address(loopback(0));
        Self { listen: free.clone(), admin_listen: free, auth_jwks_url, ..Self::default() }
    }

    /// Begins the service `name`, which is also its namespace and the audience of its transaction
    /// tokens.
    ///
    /// # Errors
    /// When its certificate is unusable, or auth's keys cannot be fetched from the URL.
    pub fn prepare(
        self,
        name: &str,
        telemetry: &Telemetry,
    ) -> Result<ToolServiceBuilder, ToolServiceError> {
        let builder = ServiceBuilder::new();
        let peers = Peers::start(&builder, &self.mtls.identity)?;
        let auth_id = self.auth_spiffe_id;
        let verifier = Verifier::with_peers(
            &peers,
            auth_id.as_ref(),
            name,
            &self.auth_issuer,
            self.auth_jwks_url,
        )?;
        watch_auth_keys(&builder, verifier.keys());
        Ok(ToolServiceBuilder {
            name: name.to_owned(),
            admin: Admin::new(&self.admin_listen, telemetry),
            listen: self.listen,
            mtls: self.mtls,
            builder,
            peers,
            auth_id,
            verifier,
            descriptors: None,
            request_bytes_max: None,
        })
    }
}

/// Without auth's keys the service refuses every call. Once it has them, it uses them for an hour
/// without auth.
fn watch_auth_keys(builder: &ServiceBuilder, keys: &Jwks) {
    let fetching = keys.clone();
    builder.tasks().spawn_until_stopping(async move {
        let mut delays = ReconnectDelays::default();
        while fetching.fetch_ahead().await.is_err() {
            delays.wait().await;
        }
    });
    let keys = keys.clone();
    let check = move || {
        let reason = || "have not been fetched, or are too old".to_owned();
        ready(keys.is_usable().then_some(()).ok_or_else(reason))
    };
    let condition = builder.readiness().condition("auth_keys", Effect::Required);
    builder.spawn(condition.monitor(check, builder.stopping()));
}

/// A tool service could not start.
#[derive(Debug, thiserror::Error)]
pub enum ToolServiceError {
    /// The certificate or trust bundle is unusable.
    #[error("cannot set up mTLS")]
    Mtls(#[from] MtlsError),
    /// The verifier of transaction tokens could not be created.
    #[error("cannot create the verifier of transaction tokens")]
    Verifier(#[from] VerifierError),
    /// An address could not be bound, or must not be served.
    #[error("cannot serve")]
    Bind(#[from] BindError),
}

/// A tool service that does not serve yet.
#[derive(Debug)]
pub struct ToolServiceBuilder {
    name: String,
    listen: Listen,
    mtls: MtlsServerConfig,
    admin: Admin,
    builder: ServiceBuilder,
    peers: Peers,
    auth_id: Option<SpiffeId>,
    verifier: Verifier,
    descriptors: Option<&'static [u8]>,
    request_bytes_max: Option<usize>,
}

impl ToolServiceBuilder {
    /// The name of the service.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The SPIFFE id of auth, if it is not the sibling of the service's own.
    #[must_use]
    pub fn auth_id(&self) -> Option<&SpiffeId> {
        self.auth_id.as_ref()
    }

    /// The service's life: its background tasks, and when they end.
    #[must_use]
    pub fn life(&self) -> &ServiceBuilder {
        &self.builder
    }

    /// The service's readiness, for what it depends on. It becomes ready when it serves.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        self.builder.readiness()
    }

    /// Releases the resources of calls once the calls have ended, or the drain timeout has passed.
    /// It may take five seconds.
    pub fn on_drained(&self, release: impl Future<Output = ()> + Send + 'static) {
        self.builder.on_drained(release);
    }

    /// Connects to other services of the mesh and authenticates them.
    #[must_use]
    pub fn peers(&self) -> &Peers {
        &self.peers
    }

    /// Opens the service's credentials. They are renewed and revoked in the background.
    ///
    /// # Errors
    /// When no source is configured, its files cannot be read, or gRPC cannot use auth's URL.
    #[cfg(feature = "credentials")]
    pub fn open_credentials(
        &self,
        config: crate::credentials::CredentialsConfig,
    ) -> Result<crate::credentials::Credentials, crate::credentials::SetupError> {
        let credentials = config.open(self.name(), self.peers(), self.auth_id())?;
        credentials.watch_source(&self.builder);
        Ok(credentials)
    }

    /// The contract, for reflection, if it is not in `drawbridge-proto`: an encoded
    /// `FileDescriptorSet` with comments, such as the constant `DESCRIPTORS` of `drawbridge-build`.
    #[must_use]
    pub fn descriptors(mut self, descriptors: &'static [u8]) -> Self {
        self.descriptors = Some(descriptors);
        self
    }

    /// The largest request message, in bytes: 4 MiB by default.
    #[must_use]
    pub fn request_bytes_max(mut self, bytes: usize) -> Self {
        self.request_bytes_max = Some(bytes);
        self
    }

    /// Serves `service` with health, reflection and the admin port. Each of its RPCs requires a
    /// transaction token for it.
    ///
    /// # Errors
    /// When mTLS allows no peer, an address cannot be bound or must not be served in plaintext, or
    /// the service is not in its descriptors.
    pub fn serve(self, service: impl GrpcService) -> Result<RunningService, ToolServiceError> {
        let mut server = GrpcServer::tool_service(service, self.verifier);
        if let Some(descriptors) = self.descriptors {
            server = server.descriptors(descriptors);
        }
        if let Some(bytes) = self.request_bytes_max {
            server = server.request_bytes_max(bytes);
        }
        let address = server.accept(&self.peers, &self.mtls)?.start(&self.builder, &self.listen)?;
        self.builder.readiness().set_ready();
        Ok(self.builder.finish(address, self.admin)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_service_has_its_own_default_ports() {
        let ports = |listen: &Listen| listen.tcp_address().unwrap().port();
        let (one, other) =
            (ToolServiceConfig::<7210>::default(), ToolServiceConfig::<7220>::default());
        assert_eq!((ports(&one.listen), ports(&one.admin_listen)), (7210, 7211));
        assert_eq!((ports(&other.listen), ports(&other.admin_listen)), (7220, 7221));
    }
}
