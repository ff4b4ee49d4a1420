//! Where each service listens, and how it is configured to find the others.

use std::net::SocketAddr;

use drawbridge_auth::{RefusedTokensConfig, SeenConfig};
use drawbridge_edge::ServiceAddress;
use drawbridge_sdk::{Listen, MtlsConfig, MtlsServerConfig, credentials::CredentialsConfig};
use url::{Host, Url};

use super::{INTERNAL_AUDIENCE, MeshAuthority, MeshConfig, MeshError, TRANSACTION_ISSUER, WORKLOAD};
use crate::state::WorkloadCredentials;

/// Who calls tool services.
const CALLERS: [&str; 2] = ["edge", WORKLOAD];

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// The tenants that the mesh's first issuer may name.
fn issuer_tenants(config: &MeshConfig) -> Result<Vec<String>, MeshError> {
    if config.issuer.is_some() {
        return Ok(config.issuer_tenants.clone());
    }
    let tenants = drawbridge_idp::tenants(config.users.as_deref())
        .map_err(|source| MeshError::Service { service: "idp", source: source.into() })?;
    Ok(tenants.into_iter().collect())
}

/// Who listens where, and under which names they know one another.
pub(super) struct Plan {
    pub(super) idp: Option<Socket>,
    pub(super) auth: Socket,
    pub(super) auth_admin: Socket,
    pub(super) edge: Socket,
    pub(super) code: Socket,
    pub(super) invoices: Socket,
    pub(super) tickets: Socket,
    pub(super) issuer: String,
    pub(super) mcp_url: Url,
    pub(super) authority: Option<MeshAuthority>,
}

pub(super) struct Socket {
    pub(super) listen: Listen,
    pub(super) address: SocketAddr,
}

impl Socket {
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
            mcp_url: edge.url("/mcp")?,
            edge,
            code: ports.bind(7210)?,
            invoices: ports.bind(7220)?,
            tickets: ports.bind(7230)?,
            issuer,
            authority: if config.mtls { Some(MeshAuthority::new()?) } else { None },
        })
    }

    /// Where a service serves gRPC.
    pub(super) fn grpc_url(&self, socket: &Socket) -> Result<Url, url::ParseError> {
        let scheme = if self.authority.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", socket.address).parse()
    }

    /// What a service shows to others, and whom it believes.
    pub(super) fn mtls(&self, service: &str) -> Result<MtlsConfig, MeshError> {
        let issued = self.authority.as_ref().map(|authority| authority.issue(service));
        Ok(issued.transpose()?.unwrap_or_default())
    }

    /// The same for a service that these may call.
    fn mtls_server(&self, service: &str, allow: &[&str]) -> Result<MtlsServerConfig, MeshError> {
        let issued = self.authority.as_ref().map(|authority| authority.issue_to_server(service, allow));
        Ok(issued.transpose()?.unwrap_or_default())
    }

    /// The keys of transaction tokens, as services get them: with mTLS from auth itself, and nobody between.
    fn keys_for_services(&self) -> Result<Url, url::ParseError> {
        match self.authority {
            Some(_) => self.grpc_url(&self.auth)?.join("/.well-known/jwks.json"),
            None => self.keys(),
        }
    }

    /// The keys of transaction tokens, for Vault.
    pub(super) fn keys(&self) -> Result<Url, url::ParseError> {
        self.auth_admin.url("/.well-known/jwks.json")
    }

    /// The tool services: under which name each is offered, and where.
    pub(super) fn services(&self) -> impl Iterator<Item = (&'static str, Result<Url, url::ParseError>)> {
        [("code", &self.code), ("invoices", &self.invoices), ("tickets", &self.tickets)]
            .into_iter()
            .map(|(name, socket)| (name, self.grpc_url(socket)))
    }

    pub(super) fn idp(
        &self,
        config: &MeshConfig,
        socket: &Socket,
        workload: &WorkloadCredentials,
    ) -> Result<drawbridge_idp::Config, MeshError> {
        Ok(drawbridge_idp::Config {
            listen: socket.listen.clone(),
            admin_listen: config.ports.bind(7101)?.listen,
            issuer: Some(self.issuer.parse()?),
            // The endpoint for all services, and the one for each.
            resources: std::iter::once(self.mcp_url.to_string())
                .chain(self.services().map(|(name, _)| format!("{}/{name}", self.mcp_url)))
                .collect(),
            users: config.users.clone(),
            workloads: vec![drawbridge_idp::Workload {
                client_id: workload.client_id.clone(),
                client_secret: workload.client_secret.clone(),
                groups: config.workload_groups.clone(),
                internal: true,
            }],
            clients: config.clients.clone(),
            internal_resources: vec![INTERNAL_AUDIENCE.to_owned()],
            auth_url: Some(self.grpc_url(&self.auth)?),
            auth_audience: INTERNAL_AUDIENCE.to_owned(),
            mtls: self.mtls("idp")?,
            ..drawbridge_idp::Config::default()
        })
    }

    pub(super) fn auth(&self, config: &MeshConfig) -> Result<drawbridge_auth::Config, MeshError> {
        Ok(drawbridge_auth::Config {
            listen: self.auth.listen.clone(),
            admin_listen: self.auth_admin.listen.clone(),
            issuer: Some(self.issuer.clone()),
            allow_private_addresses: config.issuer.as_ref().is_none_or(|issuer| is_loopback(issuer)),
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
            decision_log: config.decision_log.clone(),
            mtls: self.mtls_server("auth", &[WORKLOAD, "code", "invoices", "tickets", "idp"])?,
            mtls_allow_edge: Vec::new(),
        })
    }

    pub(super) fn code(&self, config: &MeshConfig) -> Result<drawbridge_code::Config, MeshError> {
        Ok(drawbridge_code::Config {
            listen: self.code.listen.clone(),
            admin_listen: config.ports.bind(7211)?.listen,
            auth_issuer: TRANSACTION_ISSUER.to_owned(),
            mtls: self.mtls_server("code", &CALLERS)?,
            ..drawbridge_code::Config::new(config.code_root.clone(), self.keys_for_services()?)
        })
    }

    pub(super) fn invoices(&self, config: &MeshConfig) -> Result<drawbridge_invoices::Config, MeshError> {
        let (auth, keys) = (self.grpc_url(&self.auth)?, self.keys_for_services()?);
        let vault = config.vault.as_ref().map(|vault| vault.config.clone());
        Ok(drawbridge_invoices::Config {
            listen: self.invoices.listen.clone(),
            admin_listen: config.ports.bind(7221)?.listen,
            auth_issuer: TRANSACTION_ISSUER.to_owned(),
            mtls: self.mtls_server("invoices", &CALLERS)?,
            credentials: CredentialsConfig { vault, ..CredentialsConfig::new(auth.clone()) },
            ..drawbridge_invoices::Config::new(config.invoices_database_url.clone(), auth, keys)
        })
    }

    pub(super) fn tickets(&self, config: &MeshConfig) -> Result<drawbridge_tickets::Config, MeshError> {
        let (auth, keys) = (self.grpc_url(&self.auth)?, self.keys_for_services()?);
        Ok(drawbridge_tickets::Config {
            listen: self.tickets.listen.clone(),
            admin_listen: config.ports.bind(7231)?.listen,
            sample_helpdesk: true,
            mtls: self.mtls_server("tickets", &CALLERS)?,
            auth_issuer: TRANSACTION_ISSUER.to_owned(),
            ..drawbridge_tickets::Config::new(auth, keys)
        })
    }

    pub(super) fn edge(&self, config: &MeshConfig) -> Result<drawbridge_edge::Config, MeshError> {
        let services = self.services().map(|(name, url)| {
            format!("{name}={}", url?).parse().map_err(|source: drawbridge_edge::ServiceAddressError| {
                MeshError::Service { service: "edge", source: source.into() }
            })
        });
        let (mcp, auth) = (self.mcp_url.clone(), self.grpc_url(&self.auth)?);
        Ok(drawbridge_edge::Config {
            listen: self.edge.listen.clone(),
            admin_listen: config.ports.bind(7181)?.listen,
            services: services.collect::<Result<Vec<ServiceAddress>, _>>()?,
            allowed_origins: config.allowed_origins.clone(),
            bodies: config.bodies.clone(),
            redis_url: config.redis_url.clone(),
            mtls: self.mtls("edge")?,
            ..drawbridge_edge::Config::new(mcp, self.issuer.clone(), auth)
        })
    }
}
