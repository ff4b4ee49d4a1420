//! The sockets and the configs of the services.

use std::net::SocketAddr;

use drawbridge_auth::{RefusedTokensConfig, SeenConfig};
use drawbridge_credentials::CredentialsConfig;
use drawbridge_edge::{NamedServices, ServiceAddress, named_services};
use drawbridge_runtime::Listen;
use drawbridge_transport::{MtlsConfig, MtlsServerConfig};
use url::{Host, Url};

use super::{
    INTERNAL_AUDIENCE, MeshAuthority, MeshConfig, MeshError, TRANSACTION_ISSUER, WORKLOAD,
    environment,
};
use crate::state::{MeshState, MtlsFiles, WorkloadCredentials};

/// The callers of tool services.
const CALLERS: [&str; 2] = ["edge", WORKLOAD];

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// The tenants that the mesh's main issuer may name.
fn issuer_tenants(config: &MeshConfig) -> Result<Vec<String>, MeshError> {
    if config.issuer.is_some() {
        return Ok(config.issuer_tenants.clone());
    }
    let tenants = drawbridge_idp::tenants(config.users.as_deref())
        .map_err(|source| MeshError::Service { service: "idp", source: source.into() })?;
    Ok(tenants.into_iter().collect())
}

/// The bound sockets, and the URLs under which services reach one another.
pub(super) struct Plan {
    pub(super) idp: Option<BoundSocket>,
    pub(super) auth: BoundSocket,
    pub(super) auth_admin: BoundSocket,
    pub(super) edge: BoundSocket,
    pub(super) code: BoundSocket,
    pub(super) invoices: BoundSocket,
    pub(super) tickets: BoundSocket,
    pub(super) issuer: String,
    pub(super) mcp_url: Url,
    pub(super) authority: Option<MeshAuthority>,
}

pub(super) struct BoundSocket {
    pub(super) listen: Listen,
    pub(super) address: SocketAddr,
}

impl BoundSocket {
    pub(super) fn url(&self, path: &str) -> Result<Url, url::ParseError> {
        format!("http://{}{path}", self.address).parse()
    }
}

impl Plan {
    pub(super) fn new(config: &MeshConfig) -> Result<Self, MeshError> {
        let ports = config.ports;
        let (idp, issuer) = match &config.issuer {
            Some(issuer) => (None, issuer.name().to_owned()),
            None => {
                let socket = ports.bind(7100)?;
                let issuer = format!("http://{}", socket.address);
                (Some(socket), issuer)
            }
        };
        let edge = ports.bind(7180)?;
        Ok(Self {
            idp,
            auth: ports.bind(7110)?,
            auth_admin: ports.bind(7111)?,
            mcp_url: config.public_url.clone().map_or_else(|| edge.url("/mcp"), Ok)?,
            edge,
            code: ports.bind(7210)?,
            invoices: ports.bind(7220)?,
            tickets: ports.bind(7230)?,
            issuer,
            authority: if config.mtls { Some(MeshAuthority::new()?) } else { None },
        })
    }

    /// The gRPC URL of a service.
    pub(super) fn grpc_url(&self, socket: &BoundSocket) -> Result<Url, url::ParseError> {
        let scheme = if self.authority.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", socket.address).parse()
    }

    /// The client mTLS config of a service.
    pub(super) fn mtls(&self, service: &str) -> Result<MtlsConfig, MeshError> {
        let issued = self.authority.as_ref().map(|authority| authority.issue(service));
        Ok(issued.transpose()?.unwrap_or_default())
    }

    /// The mTLS config of a server that the given services may call.
    fn mtls_server(&self, service: &str, allow: &[&str]) -> Result<MtlsServerConfig, MeshError> {
        let issued =
            self.authority.as_ref().map(|authority| authority.issue_to_server(service, allow));
        Ok(issued.transpose()?.unwrap_or_default())
    }

    /// The JWKS URL of transaction tokens for services: over mTLS, directly from auth.
    fn service_jwks_url(&self) -> Result<Url, url::ParseError> {
        match self.authority {
            Some(_) => self.grpc_url(&self.auth)?.join("/.well-known/jwks.json"),
            None => self.jwks_url(),
        }
    }

    /// The JWKS URL of transaction tokens for Vault.
    pub(super) fn jwks_url(&self) -> Result<Url, url::ParseError> {
        self.auth_admin.url("/.well-known/jwks.json")
    }

    /// The namespaces and gRPC URLs of the tool services.
    pub(super) fn services(
        &self,
    ) -> impl Iterator<Item = (&'static str, Result<Url, url::ParseError>)> {
        [("code", &self.code), ("invoices", &self.invoices), ("tickets", &self.tickets)]
            .into_iter()
            .map(|(name, socket)| (name, self.grpc_url(socket)))
    }

    /// The state for other commands.
    pub(super) fn state(
        &self,
        config: &MeshConfig,
        workload: Option<WorkloadCredentials>,
        own_services: &NamedServices,
    ) -> Result<MeshState, MeshError> {
        let services = self.services().map(|(name, url)| Ok((name.to_owned(), url?)));
        let own = own_services.services.iter();
        let own =
            own.filter_map(|(name, urls, _)| Some(Ok((name.to_string(), urls.first()?.clone()))));
        Ok(MeshState {
            name: config.name.clone().unwrap_or_else(|| self.edge.address.port().into()),
            pid: std::process::id(),
            issuer: self.issuer.parse()?,
            auth_url: self.grpc_url(&self.auth)?,
            internal_audience: INTERNAL_AUDIENCE.to_owned(),
            services: services.chain(own).collect::<Result<_, MeshError>>()?,
            workload,
            mtls: MtlsFiles::of(&self.mtls(WORKLOAD)?),
        })
    }

    pub(super) fn idp(
        &self,
        config: &MeshConfig,
        socket: &BoundSocket,
        workload: &WorkloadCredentials,
        own_services: &NamedServices,
    ) -> Result<drawbridge_idp::Config, MeshError> {
        let own =
            own_services.services.iter().map(|(name, _, _)| name).chain(&own_services.servers);
        let names =
            self.services().map(|(name, _)| name.to_owned()).chain(own.map(ToString::to_string));
        let idp =
            drawbridge_idp::Config {
                listen: socket.listen.clone(),
                admin_listen: config.ports.bind(7101)?.listen,
                issuer: Some(self.issuer.parse()?),
                // The endpoint of all services, and one per service.
                resources: std::iter::once(self.mcp_url.to_string())
                    .chain(names.map(|name| {
                        format!("{}/{name}", self.mcp_url.as_str().trim_end_matches('/'))
                    }))
                    .collect(),
                users: config.users.clone(),
                state_file: config.idp_state_file.clone(),
                workloads: vec![drawbridge_idp::Workload {
                    client_id: workload.client_id.clone(),
                    client_secret: workload.client_secret.clone(),
                    groups: config.workload_groups.clone(),
                    internal: true,
                }],
                clients: config.clients.clone(),
                internal_resources: vec![INTERNAL_AUDIENCE.to_owned()],
                auth_url: Some(self.grpc_url(&self.auth)?.into()),
                auth_audience: INTERNAL_AUDIENCE.to_owned(),
                mtls: self.mtls("idp")?,
                ..drawbridge_idp::Config::default()
            };
        environment::apply(config, "idp", idp)
    }

    pub(super) fn auth(&self, config: &MeshConfig) -> Result<drawbridge_auth::Config, MeshError> {
        let auth = drawbridge_auth::Config {
            listen: self.auth.listen.clone(),
            admin_listen: self.auth_admin.listen.clone(),
            issuer: Some(self.issuer.clone()),
            allow_private_addresses: config
                .issuer
                .as_ref()
                .is_none_or(|issuer| is_loopback(issuer)),
            issuer_tenants: issuer_tenants(config)?,
            issuers: config.issuers.clone(),
            audience: vec![self.mcp_url.to_string()],
            refused_tokens: RefusedTokensConfig::default(),
            seen: SeenConfig::default(),
            internal_audience: INTERNAL_AUDIENCE.to_owned(),
            policies: config.policies.clone(),
            transaction_issuer: TRANSACTION_ISSUER.to_owned(),
            transaction_ttl_seconds: 30,
            transaction_key_seconds: 86_400,
            redis_url: config.redis_url.clone(),
            revocations_file: config.revocations_file.clone(),
            decision_log: config.decision_log.clone(),
            mtls: self.mtls_server("auth", &[WORKLOAD, "code", "invoices", "tickets", "idp"])?,
            mtls_allow_edge: Vec::new(),
        };
        environment::apply(config, "auth", auth)
    }

    pub(super) fn code(&self, config: &MeshConfig) -> Result<drawbridge_code::Config, MeshError> {
        let code = drawbridge_code::Config {
            listen: self.code.listen.clone(),
            admin_listen: config.ports.bind(7211)?.listen,
            auth_issuer: TRANSACTION_ISSUER.to_owned(),
            mtls: self.mtls_server("code", &CALLERS)?,
            ..drawbridge_code::Config::new(config.code_root.clone(), self.service_jwks_url()?)
        };
        environment::apply(config, "code", code)
    }

    pub(super) fn invoices(
        &self,
        config: &MeshConfig,
    ) -> Result<drawbridge_invoices::Config, MeshError> {
        let (auth, jwks_url) = (self.grpc_url(&self.auth)?, self.service_jwks_url()?);
        let vault = config.vault.as_ref().map(|vault| vault.config.clone());
        let credentials = CredentialsConfig { vault, ..CredentialsConfig::new(auth.clone()) };
        let invoices = drawbridge_invoices::Config {
            listen: self.invoices.listen.clone(),
            admin_listen: config.ports.bind(7221)?.listen,
            auth_issuer: TRANSACTION_ISSUER.to_owned(),
            mtls: self.mtls_server("invoices", &CALLERS)?,
            credentials: CredentialsConfig::placeholder(&auth),
            ..drawbridge_invoices::Config::new(config.invoices_database_url.clone(), auth, jwks_url)
        };
        let invoices = environment::apply(config, "invoices", invoices)?;
        Ok(drawbridge_invoices::Config { credentials, ..invoices })
    }

    pub(super) fn tickets(
        &self,
        config: &MeshConfig,
    ) -> Result<drawbridge_tickets::Config, MeshError> {
        let (auth, jwks_url) = (self.grpc_url(&self.auth)?, self.service_jwks_url()?);
        let own = drawbridge_tickets::Config::new(auth.clone(), jwks_url);
        let credentials = own.credentials.clone();
        let tickets = drawbridge_tickets::Config {
            listen: self.tickets.listen.clone(),
            admin_listen: config.ports.bind(7231)?.listen,
            sample_helpdesk: true,
            mtls: self.mtls_server("tickets", &CALLERS)?,
            auth_issuer: TRANSACTION_ISSUER.to_owned(),
            credentials: CredentialsConfig::placeholder(&auth),
            ..own
        };
        let tickets = environment::apply(config, "tickets", tickets)?;
        Ok(drawbridge_tickets::Config { credentials, ..tickets })
    }

    /// The edge's config, and the user-supplied services in it.
    pub(super) fn edge(
        &self,
        config: &MeshConfig,
    ) -> Result<(drawbridge_edge::Config, NamedServices), MeshError> {
        let (mcp, auth) = (self.mcp_url.clone(), self.grpc_url(&self.auth)?);
        let edge = drawbridge_edge::Config {
            listen: self.edge.listen.clone(),
            admin_listen: config.ports.bind(7181)?.listen,
            bodies: config.bodies.clone(),
            redis_url: config.redis_url.clone(),
            mtls: self.mtls("edge")?,
            ..drawbridge_edge::Config::new(mcp, self.issuer.clone(), auth)
        };
        let mut edge = environment::apply(config, "edge", edge)?;
        edge.allowed_origins.extend(config.allowed_origins.iter().cloned());
        edge.services.extend(config.own_services.iter().cloned());
        edge.config = config.edge_config.clone().or(edge.config);
        let own = named_services(&edge.services, edge.config.as_deref())?;
        for (name, url) in self.services() {
            if own.services.iter().any(|(namespace, _, _)| namespace.as_str() == name) {
                return Err(MeshError::OwnService { namespace: name.to_owned() });
            }
            let address = format!("{name}={}", url?).parse::<ServiceAddress>();
            edge.services.push(
                address.map_err(|source| MeshError::Service {
                    service: "edge",
                    source: source.into(),
                })?,
            );
        }
        Ok((edge, own))
    }
}
