//! The sockets and the configs of the services.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use drawbridge_edge::{NamedServices, ServiceAddress, named_services};
use drawbridge_runtime::is_loopback;
use drawbridge_transport::{MtlsConfig, MtlsServerConfig};
use url::Url;

use super::{
    INTERNAL_AUDIENCE, MeshAuthority, MeshConfig, MeshError, TRANSACTION_ISSUER, WORKLOAD,
    environment,
};
use crate::{
    sockets::{AUTH_PORT, BoundSocket, EDGE_PORT, IDP_PORT},
    state::{MeshSetup, MeshState, MtlsFiles, WorkloadCredentials},
};

/// The callers of tool services.
const CALLERS: [&str; 2] = ["edge", WORKLOAD];

/// Options of the edge that the mesh sets itself.
const EDGE_OPTIONS: &[&str] = &["public-url", "authorization-server"];
/// Options of auth that the mesh sets itself.
const AUTH_OPTIONS: &[&str] = &[
    "issuer",
    "issuer-tenants",
    "issuers",
    "allow-private-addresses",
    "audience",
    "internal-audience",
    "policies",
    "transaction-issuer",
    "revocations-file",
    "mtls-allow-edge",
];
/// Options of idp that the mesh sets itself.
const IDP_OPTIONS: &[&str] =
    &["issuer", "resources", "internal-resources", "auth-audience", "users", "state-file"];

/// The tenants that the mesh's main issuer may name.
fn issuer_tenants(config: &MeshConfig) -> Result<Vec<String>, MeshError> {
    if config.issuer.is_some() {
        return Ok(config.issuer_tenants.clone());
    }
    let tenants = drawbridge_idp::tenants(config.users.as_deref())
        .map_err(|source| MeshError::Service { service: "idp", source: source.into() })?;
    Ok(tenants.into_iter().collect())
}

/// What the mesh is started with. Other commands may run in another folder.
fn setup(config: &MeshConfig) -> MeshSetup {
    let absolute = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let absolute_if_any = |path: &Option<PathBuf>| path.as_deref().map(absolute);
    MeshSetup {
        policies: Some(absolute(&config.policies)),
        edge_config: absolute_if_any(&config.edge_config),
        issuers: absolute_if_any(&config.issuers),
        users: absolute_if_any(&config.users),
        redis_url: config.redis_url.clone(),
        vault_url: config.vault.as_ref().map(|vault| vault.config.vault_url.clone()),
        database_url: Some(config.invoices_database_url.clone()),
    }
}

/// The bound sockets, and the URLs under which services reach one another.
pub(super) struct Plan {
    pub(super) idp: Option<BoundSocket>,
    pub(super) auth: BoundSocket,
    pub(super) auth_admin: BoundSocket,
    pub(super) edge: BoundSocket,
    /// The tool services, by name.
    pub(super) tools: Vec<(&'static str, BoundSocket)>,
    pub(super) issuer: String,
    pub(super) mcp_url: Url,
    pub(super) authority: Option<MeshAuthority>,
}

impl Plan {
    /// Binds the sockets; `tools` are the names and documented ports of the tool services.
    pub(super) fn new(
        config: &MeshConfig,
        tools: impl Iterator<Item = (&'static str, u16)>,
    ) -> Result<Self, MeshError> {
        let ports = config.ports;
        let (idp, issuer) = match &config.issuer {
            Some(issuer) => (None, issuer.name().to_owned()),
            None => {
                let socket = ports.bind(IDP_PORT)?;
                let issuer = format!("http://{}", socket.address);
                (Some(socket), issuer)
            }
        };
        let edge = ports.bind(EDGE_PORT)?;
        Ok(Self {
            idp,
            auth: ports.bind(AUTH_PORT)?,
            auth_admin: ports.bind(AUTH_PORT + 1)?,
            mcp_url: config.public_url.clone().map_or_else(|| edge.url("/mcp"), Ok)?,
            edge,
            tools: tools
                .map(|(name, port)| Ok((name, ports.bind(port)?)))
                .collect::<Result<_, MeshError>>()?,
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

    /// The mTLS config of a tool service.
    pub(super) fn tool_mtls(&self, service: &str) -> Result<MtlsServerConfig, MeshError> {
        self.mtls_server(service, &CALLERS)
    }

    /// The gRPC URL of auth.
    pub(super) fn auth_url(&self) -> Result<Url, url::ParseError> {
        self.grpc_url(&self.auth)
    }

    /// The JWKS URL of transaction tokens for services: over mTLS, directly from auth.
    pub(super) fn service_jwks_url(&self) -> Result<Url, url::ParseError> {
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
        self.tools.iter().map(|(name, socket)| (*name, self.grpc_url(socket)))
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
            mcp_url: self.mcp_url.clone(),
            issuer: self.issuer.parse()?,
            auth_url: self.grpc_url(&self.auth)?,
            internal_audience: INTERNAL_AUDIENCE.to_owned(),
            services: services.chain(own).collect::<Result<_, MeshError>>()?,
            workload,
            mtls: MtlsFiles::of(&self.mtls(WORKLOAD)?),
            admin: BTreeMap::new(),
            setup: setup(config),
            calls_socket: None,
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
                admin_listen: config.ports.bind(IDP_PORT + 1)?.listen,
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
                    client_id: workload.client_id.clone().into(),
                    client_secret: workload.client_secret.clone(),
                    groups: config.workload_groups.clone(),
                    internal: true,
                }],
                clients: config.clients.clone(),
                internal_resources: vec![INTERNAL_AUDIENCE.to_owned()],
                auth_url: Some(self.grpc_url(&self.auth)?.into()),
                auth_audience: INTERNAL_AUDIENCE.to_owned(),
                audit: config.audit.clone(),
                mtls: self.mtls("idp")?,
                ..drawbridge_idp::Config::default()
            };
        environment::apply(config, "idp", IDP_OPTIONS, idp)
    }

    pub(super) fn auth(&self, config: &MeshConfig) -> Result<drawbridge_auth::Config, MeshError> {
        let tools = self.tools.iter().map(|(name, _)| *name);
        let callers: Vec<_> = [WORKLOAD, "idp"].into_iter().chain(tools).collect();
        let auth = drawbridge_auth::Config {
            listen: self.auth.listen.clone(),
            admin_listen: self.auth_admin.listen.clone(),
            allow_private_addresses: config
                .issuer
                .as_ref()
                .is_none_or(|issuer| is_loopback(issuer)),
            issuer_tenants: issuer_tenants(config)?,
            issuers: config.issuers.clone(),
            internal_audience: INTERNAL_AUDIENCE.to_owned(),
            policies: config.policies.clone().into(),
            transaction_issuer: TRANSACTION_ISSUER.to_owned(),
            redis_url: config.redis_url.clone(),
            revocations_file: config.revocations_file.clone(),
            audit: config.audit.clone(),
            mtls: self.mtls_server("auth", &callers)?,
            ..drawbridge_auth::Config::new(self.issuer.clone(), vec![self.mcp_url.to_string()])
        };
        environment::apply(config, "auth", AUTH_OPTIONS, auth)
    }

    /// The edge's config, and the user-supplied services in it.
    pub(super) fn edge(
        &self,
        config: &MeshConfig,
    ) -> Result<(drawbridge_edge::Config, NamedServices), MeshError> {
        let (mcp, auth) = (self.mcp_url.clone(), self.grpc_url(&self.auth)?);
        let edge = drawbridge_edge::Config {
            listen: self.edge.listen.clone(),
            admin_listen: config.ports.bind(EDGE_PORT + 1)?.listen,
            bodies: config.bodies.clone(),
            // Of this mesh's one edge; `DRAWBRIDGE_EDGE_SECRET` replaces it.
            secret: Some(drawbridge_edge::random_secret()),
            redis_url: config.redis_url.clone(),
            audit: config.audit.clone(),
            mtls: self.mtls("edge")?,
            ..drawbridge_edge::Config::new(mcp, self.issuer.clone(), auth)
        };
        let mut edge = environment::apply(config, "edge", EDGE_OPTIONS, edge)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::tests::check_managed;

    #[test]
    fn every_option_that_the_mesh_manages_exists() {
        check_managed::<drawbridge_edge::Config>("edge", EDGE_OPTIONS);
        check_managed::<drawbridge_auth::Config>("auth", AUTH_OPTIONS);
        check_managed::<drawbridge_idp::Config>("idp", IDP_OPTIONS);
    }
}
