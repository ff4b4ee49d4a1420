//! What is checked: the set-up that options, variables of services, or the state of a running mesh
//! describe.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use drawbridge_config::Namespace;
use drawbridge_credentials::VaultConfig;
use drawbridge_edge::{NamedServices, ServiceAddress, named_services};
use drawbridge_mesh::state::MeshState;
use drawbridge_runtime::error_chain;
use drawbridge_transport::Peers;
use secrecy::SecretString;
use url::Url;

use super::{
    DoctorArgs,
    bundles::BundleTarget,
    certificates::CertificateTarget,
    check::{Check, Finding},
    database,
    edge::{self, AcceptedTokens},
    files,
    issuers::IssuerTarget,
    redis::RedisTarget,
    services::{self, LockTarget, ToolTarget},
    vault::VaultTarget,
};

/// A set-up.
#[derive(Debug, Default)]
pub(super) struct Setup {
    pub(super) issuers: BTreeMap<String, IssuerTarget>,
    pub(super) public_urls: Vec<Url>,
    /// The Redis of each service.
    pub(super) redis: Vec<RedisTarget>,
    pub(super) vaults: Vec<VaultTarget>,
    pub(super) databases: Vec<SecretString>,
    pub(super) certificates: Vec<CertificateTarget>,
    /// The admin ports, by service.
    pub(super) admin: Vec<(String, Url)>,
    /// The tool services that options of the edge name.
    pub(super) tools: Vec<ServiceAddress>,
    /// The edge's config file.
    pub(super) edge_config: Option<PathBuf>,
    /// The transport of the edge to tool services.
    pub(super) peers: Peers,
    /// Config files besides the edge's.
    pub(super) files: Vec<PathBuf>,
    pub(super) policies: Vec<PathBuf>,
    /// Signed bundles of policies.
    pub(super) bundles: Vec<BundleTarget>,
    /// The URLs of the edge whose tokens auth accepts.
    pub(super) audiences: Vec<String>,
    /// What is wrong with the description itself.
    pub(super) problems: Vec<(String, Finding)>,
}

impl Setup {
    /// Adds what options name.
    pub(super) fn add_options(&mut self, args: &DoctorArgs) {
        self.public_urls.extend(args.public_url.clone());
        if let Some(issuer) = &args.issuer {
            self.add_issuer(IssuerTarget::of_option(issuer, issuer.name()), issuer.name());
        }
        if let Some(path) = &args.issuers {
            self.add_issuers_file(path.clone());
        }
        self.redis.extend(args.redis_url.clone().map(|url| RedisTarget {
            used_by: "the options".to_owned(),
            url,
            is_temporary: false,
        }));
        if let Some(url) = &args.vault_url {
            let config = VaultConfig::new(url.clone());
            self.vaults.push(VaultTarget { config, services: Vec::new() });
        }
        self.databases.extend(args.database_url.clone());
        self.policies.extend(args.policies.clone());
        for file in &args.config {
            // The edge's file names services too.
            if file.to_string_lossy().ends_with("edge.toml") {
                self.edge_config = Some(file.clone());
            } else {
                self.files.push(file.clone());
            }
        }
        self.admin.extend(args.admin.iter().map(|it| (it.name.clone(), it.url.clone())));
    }

    /// The set-up of a running mesh.
    pub(super) fn of_mesh(state: &MeshState) -> Self {
        let mut setup = Self {
            public_urls: vec![state.mcp_url.clone()],
            admin: state.admin.clone().into_iter().collect(),
            ..Self::default()
        };
        setup.add_issuer(
            IssuerTarget::of_option(&state.issuer, state.issuer_name()),
            state.issuer_name(),
        );
        match state.peers() {
            Ok(peers) => setup.peers = peers,
            Err(error) => setup
                .add_problem("mesh", Finding::failed(error_chain(&error), "start the mesh again")),
        }
        setup.certificates.extend(state.mtls.as_ref().map(|files| CertificateTarget {
            used_by: "this command".to_owned(),
            certificate: files.certificate.clone(),
            key: files.key.clone(),
            trust_bundle: Some(files.trust_bundle.clone()),
        }));
        let tools = state.services.iter().filter_map(|(namespace, url)| {
            Some(ServiceAddress { namespace: namespace.parse().ok()?, url: url.clone() })
        });
        setup.tools.extend(tools);
        let files = &state.setup;
        setup.edge_config.clone_from(&files.edge_config);
        setup.files.extend(files.users.clone());
        if let Some(path) = &files.issuers {
            setup.add_issuers_file(path.clone());
        }
        setup.policies.extend(files.policies.clone());
        setup.redis.extend(files.redis_url.clone().map(|url| RedisTarget {
            used_by: "the mesh".to_owned(),
            url,
            is_temporary: true,
        }));
        setup.databases.extend(files.database_url.clone());
        setup.vaults.extend(files.vault_url.clone().map(|url| VaultTarget {
            config: VaultConfig::new(url),
            services: vec!["invoices".to_owned()],
        }));
        setup
    }

    pub(super) fn add_issuer(&mut self, issuer: IssuerTarget, name: &str) {
        self.issuers.insert(name.to_owned(), issuer);
    }

    pub(super) fn add_issuers_file(&mut self, path: PathBuf) {
        for issuer in IssuerTarget::of_file(&path) {
            self.issuers.insert(issuer.name().to_owned(), issuer);
        }
        self.files.push(path);
    }

    pub(super) fn add_problem(&mut self, subject: &str, finding: Finding) {
        self.problems.push((subject.to_owned(), finding));
    }

    /// Whether there is nothing to check.
    pub(super) fn is_empty(&self) -> bool {
        self.problems.is_empty() && self.edge_config.is_none() && self.is_without_targets()
    }

    fn is_without_targets(&self) -> bool {
        self.issuers.is_empty()
            && self.public_urls.is_empty()
            && self.redis.is_empty()
            && self.vaults.is_empty()
            && self.databases.is_empty()
            && self.certificates.is_empty()
            && self.admin.is_empty()
            && self.tools.is_empty()
            && self.files.is_empty()
            && self.policies.is_empty()
            && self.bundles.is_empty()
    }

    /// All checks.
    pub(super) fn checks(mut self, limit: Duration) -> Vec<Check> {
        let mut checks = Vec::new();
        for (subject, finding) in std::mem::take(&mut self.problems) {
            checks.push(Check::new("settings", subject, async move { vec![finding] }));
        }
        self.add_tools(limit, &mut checks);
        let namespaces: Vec<Namespace> =
            self.tools.iter().map(|tool| tool.namespace.clone()).collect();
        let edge_config = self.edge_config.into_iter();
        checks.extend(edge_config.map(|file| files::file(file, namespaces.clone())));
        checks.extend(self.files.into_iter().map(|file| files::file(file, Vec::new())));
        checks.extend(self.policies.into_iter().map(files::policies));
        checks.extend(self.bundles.into_iter().map(BundleTarget::check));
        checks.extend(self.certificates.into_iter().map(CertificateTarget::check));
        let issuers = self.issuers.keys().cloned().collect();
        let accepted = AcceptedTokens { issuers, audiences: self.audiences };
        checks.extend(self.issuers.into_values().map(IssuerTarget::check));
        checks.extend(self.redis.into_iter().map(|redis| redis.check(limit)));
        checks.extend(self.vaults.into_iter().map(VaultTarget::check));
        checks.extend(self.databases.into_iter().map(database::check));
        checks.extend(self.public_urls.into_iter().map(|url| edge::check(url, accepted.clone())));
        checks.extend(self.admin.into_iter().map(|(name, url)| services::admin(name, url)));
        checks
    }

    /// The checks of tool services, and of the lock. A config file with mistakes names none, and is
    /// a finding of its own check.
    fn add_tools(&self, limit: Duration, checks: &mut Vec<Check>) {
        let named = named_services(&self.tools, self.edge_config.as_deref());
        let NamedServices { services, lock, .. } = named.unwrap_or_default();
        let tools: Vec<_> = services
            .into_iter()
            .map(|(namespace, urls, spiffe_id)| ToolTarget {
                namespace: namespace.to_string(),
                urls,
                spiffe_id,
                contract: Arc::default(),
            })
            .collect();
        for tool in &tools {
            checks.push(tool.clone().check(self.peers.clone(), limit));
        }
        if let (Some(lock), Some(config)) = (lock, self.edge_config.clone()) {
            let target = LockTarget { config, lock, limit };
            checks.push(services::lock(target, tools, self.peers.clone()));
        }
    }
}
