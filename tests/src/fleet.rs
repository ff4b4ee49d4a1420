//! A mesh as it is operated: every service a process of its own with several replicas, mTLS between
//! them, a TCP balancer in front of them, and real Redis, PostgreSQL and OpenBao.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use drawbridge_mesh::{MeshAuthority, WORKLOAD, dependencies::Dependencies};
use drawbridge_proto::auth::v1::{
    self as pb, auth_service_client::AuthServiceClient, revoke_response::Outcome as RevokeOutcome,
    token_set::Which,
};
use drawbridge_runtime::RequestId;
use drawbridge_transport::{CallContext, MtlsServerConfig, Peers};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use url::Url;

pub use self::{
    balancer::Balancer,
    call::{Call, Outcome},
    callers::Caller,
    load::Load,
    replica::Replica,
    report::Report,
    servers::DependencyName,
};
use self::{
    balancer::{Backend, BalancerPorts},
    callers::INTERNAL_AUDIENCE,
};
use crate::{Client, REPLICA_SECRET, TestIssuer, repository};

mod balancer;
mod call;
mod callers;
mod load;
mod replica;
mod report;
mod servers;

/// The names of the balancer's addresses.
const EDGE: &str = "edge";
const AUTH: &str = "auth";
const AUTH_ADMIN: &str = "auth-admin";

/// The time limit of a revocation, on a busy machine too.
const REVOKE_TIMEOUT: Duration = Duration::from_secs(60);
/// Longer than the balancer takes to notice that a replica is not ready.
const DRAIN_DELAY_MS: &str = "1000";

/// How many replicas a fleet may have of each service. They are configured to know one another;
/// those that are not started are down.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Of auth.
    pub auth: usize,
    /// Of the edge.
    pub edge: usize,
    /// Of code and of invoices. There is one of tickets.
    pub tools: usize,
}

/// A whole mesh of processes.
pub struct Fleet {
    /// The replicas of auth.
    pub auth: Vec<Replica>,
    /// The replicas of the edge.
    pub edge: Vec<Replica>,
    /// The replicas of the tool services.
    pub tools: Vec<Replica>,
    /// In front of edges, and of auths for all but edges.
    pub balancer: Balancer,
    /// The MCP endpoint through the balancer.
    pub mcp_url: Url,
    /// The gRPC address of auth through the balancer.
    pub auth_url: Url,
    /// The issuer of the callers' access tokens.
    pub issuer: TestIssuer,
    authority: MeshAuthority,
    dependencies: Dependencies,
    migrator: Replica,
    folder: Option<TempDir>,
}

/// What the command lines of all replicas are made of.
struct Plan<'a> {
    program: &'a dyn Fn(&str) -> PathBuf,
    folder: &'a Path,
    authority: &'a MeshAuthority,
    issuer: &'a TestIssuer,
    dependencies: &'a Dependencies,
    mcp_url: &'a Url,
    auth_url: &'a Url,
}

impl Fleet {
    /// Starts the dependencies, the first replicas of auth, and all of the other services, and
    /// waits until all are ready. `program` finds the binary of a service.
    pub async fn start(program: impl Fn(&str) -> PathBuf, sizes: Sizes, auths: usize) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let dependencies = Box::pin(servers::start()).await;
        let ports = BalancerPorts::reserve(&[EDGE, AUTH, AUTH_ADMIN]);
        let url = |text: String| text.parse::<Url>().expect("a URL");
        let mcp_url = url(format!("http://{}/mcp", ports.address(EDGE)));
        let auth_url = url(format!("https://{}", ports.address(AUTH)));
        let keys_url = url(format!("http://{}/.well-known/jwks.json", ports.address(AUTH_ADMIN)));
        let issuer = TestIssuer::start().await;
        let authority = MeshAuthority::new().expect("an authority");
        let plan = Plan {
            program: &program,
            folder: folder.path(),
            authority: &authority,
            issuer: &issuer,
            dependencies: &dependencies,
            mcp_url: &mcp_url,
            auth_url: &auth_url,
        };
        let mut auth = plan.auths(sizes.auth);
        let tools = plan.tools(sizes.tools);
        let edge = plan.edges(sizes.edge, &auth, &tools);
        let backend = |name, replicas, is_admin| Backend { name, replicas, is_admin };
        let backends = [
            backend(EDGE, &edge, false),
            backend(AUTH, &auth, false),
            backend(AUTH_ADMIN, &auth, true),
        ];
        let balancer = ports.start(&backends, folder.path());
        start_all(&mut auth[..auths]).await;
        for replica in &auth[..auths] {
            balancer.wait_for(&replica.name).await;
        }
        let vault = dependencies.mesh_vault().expect("a Vault");
        Box::pin(vault.bootstrap(keys_url)).await.unwrap_or_else(|error| panic!("{error:?}"));
        let mut migrator = plan.tool("invoices", 0);
        migrator.run("migrate").await;
        let folder = Some(folder);
        let mut fleet = Self {
            auth,
            edge,
            tools,
            balancer,
            mcp_url,
            auth_url,
            issuer,
            authority,
            dependencies,
            migrator,
            folder,
        };
        start_all(&mut fleet.tools).await;
        start_all(&mut fleet.edge).await;
        for replica in &fleet.edge {
            fleet.balancer.wait_for(&replica.name).await;
        }
        fleet
    }

    /// All replicas, of auth first.
    pub fn replicas(&self) -> impl Iterator<Item = &Replica> {
        self.auth.iter().chain(&self.tools).chain(&self.edge)
    }

    /// The same, to stop and to start them.
    pub fn replicas_mut(&mut self) -> impl Iterator<Item = &mut Replica> {
        self.auth.iter_mut().chain(&mut self.tools).chain(&mut self.edge)
    }

    /// The replica of this name.
    pub fn replica_mut(&mut self, name: &str) -> &mut Replica {
        self.replicas_mut().find(|replica| replica.name == name).expect("a replica of this name")
    }

    /// Migrates the database of invoices with this binary of the service.
    pub async fn migrate(&mut self, program: PathBuf) {
        self.migrator.set_program(program);
        self.migrator.run("migrate").await;
    }

    /// Kills a server that the fleet depends on, like a failing machine.
    pub fn kill_dependency(&mut self, name: DependencyName) {
        servers::kill(&mut self.dependencies, name);
    }

    /// Restarts it, with the data that it stores. Redis stores none.
    pub async fn restart_dependency(&mut self, name: DependencyName) {
        servers::restart(&mut self.dependencies, name).await;
    }

    /// Suspends or resumes it. Suspended, it accepts connections but does not respond.
    pub fn freeze_dependency(&self, name: DependencyName, is_frozen: bool) {
        servers::freeze(&self.dependencies, name, is_frozen);
    }

    /// Begins a load of callers of all kinds, through the balancer.
    pub fn load(&self, calls_per_second: u32) -> Load {
        let callers = callers::callers(&self.issuer, self.mcp_url.as_str());
        Load::start(&self.mcp_url, callers, calls_per_second)
    }

    /// A client of the balancer whose token has these claims, in addition to an engineer's.
    pub fn client(&self, over: Value) -> Client {
        let token = callers::token(&self.issuer, self.mcp_url.as_str(), &over);
        let http = reqwest::Client::builder().pool_max_idle_per_host(0).build();
        Client::with_http(http.expect("a client"), self.mcp_url.clone(), Some(token))
    }

    /// What becomes of an engineer's search with this client.
    pub async fn search(client: &Client) -> Outcome {
        call::outcome(client.try_call_tool("code_list_files", json!({})).await)
    }

    /// Revokes the token with this id at the auth that the balancer selects; again, while it is
    /// unavailable.
    pub async fn revoke(&self, token_id: &str) {
        let program = json!({ "sub": "platform", "client_id": "platform", "groups": ["platform"] });
        let own = callers::token(&self.issuer, INTERNAL_AUDIENCE, &program);
        let peers = self.authority.issue(WORKLOAD).expect("a certificate");
        let peers = Peers::open(&peers).expect("a certificate");
        let began = Instant::now();
        loop {
            let which = Some(Which::TokenId(token_id.to_owned()));
            let tokens = pb::TokenSet { issuer: self.issuer.name().to_owned(), which };
            let request = pb::RevokeRequest { subject_token: own.clone(), tokens: Some(tokens) };
            let context = CallContext::new(RequestId::generate(), Duration::from_secs(10));
            let channel = peers.connect(&self.auth_url, AUTH, None).expect("a channel");
            let mut auth = AuthServiceClient::new(channel);
            match auth.revoke(context.outgoing(request)).await {
                Ok(answer) => {
                    let outcome = answer.into_inner().outcome;
                    assert!(matches!(outcome, Some(RevokeOutcome::Revoked(_))), "{outcome:?}");
                    return;
                }
                Err(status) => assert!(began.elapsed() < REVOKE_TIMEOUT, "{status:?}"),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// How many of these calls each edge answered, by its access log.
    pub fn calls_by_edge(&self, report: &Report) -> Vec<(String, usize)> {
        let ids = report.calls.iter().filter_map(|call| call.request_id.as_deref());
        let ids: HashSet<_> = ids.collect();
        let count = |edge: &Replica| {
            let log = edge.log();
            let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let answered = events.filter(|event| event["message"] == "answered");
            answered
                .filter(|event| event["request_id"].as_str().is_some_and(|id| ids.contains(id)))
                .count()
        };
        self.edge.iter().map(|edge| (edge.name.clone(), count(edge))).collect()
    }

    /// The names and lines of all logs that contain this text.
    pub fn logged(&self, text: &str) -> Vec<String> {
        let lines = self.replicas().flat_map(|replica| {
            let log = replica.log();
            let found = log.lines().filter(|line| line.contains(text)).map(str::to_owned);
            found.map(|line| format!("{}: {line}", replica.name)).collect::<Vec<_>>()
        });
        lines.collect()
    }
}

impl Drop for Fleet {
    #[expect(clippy::print_stderr, reason = "the logs explain what failed")]
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(folder) = self.folder.take()
        {
            eprintln!("the logs of all processes are in {}", folder.keep().display());
        }
    }
}

/// Starts replicas at once, and waits until all of them are ready.
async fn start_all(replicas: &mut [Replica]) {
    replicas.iter_mut().for_each(Replica::start);
    for replica in replicas {
        replica.wait_ready().await;
    }
}

impl Plan<'_> {
    fn replica(&self, service: &str, number: usize) -> Replica {
        let name = format!("{service}-{number}");
        let mut replica = Replica::new(name, (self.program)(service), self.folder);
        replica.option("drain-delay-ms", DRAIN_DELAY_MS);
        replica
    }

    fn auths(&self, size: usize) -> Vec<Replica> {
        let mut auths: Vec<_> = (1..=size).map(|number| self.replica(AUTH, number)).collect();
        let addresses: Vec<_> = auths.iter().map(Replica::address).collect();
        let policies = repository().join("policies");
        for (number, auth) in auths.iter_mut().enumerate() {
            auth.option("issuer", self.issuer.name());
            auth.flag("allow-private-addresses");
            auth.option("audience", self.mcp_url.as_str());
            auth.option("internal-audience", INTERNAL_AUDIENCE);
            auth.option("policies", &policies);
            auth.variable("DRAWBRIDGE_AUTH_REDIS_URL", self.redis_url());
            let others = addresses.iter().enumerate().filter(|(other, _)| *other != number);
            for (_, address) in others {
                auth.option("peers", format!("https://{address}"));
            }
            self.mtls(auth, AUTH, &[AUTH, "code", "invoices", "tickets", WORKLOAD]);
        }
        auths
    }

    fn tools(&self, size: usize) -> Vec<Replica> {
        let several = (1..=size).flat_map(|number| [("code", number), ("invoices", number)]);
        several
            .chain([("tickets", 1)])
            .map(|(service, number)| self.tool(service, number))
            .collect()
    }

    fn tool(&self, service: &str, number: usize) -> Replica {
        let mut tool = self.replica(service, number);
        let keys = self.auth_url.join("/.well-known/jwks.json").expect("a URL");
        tool.option("auth-jwks-url", keys.as_str());
        match service {
            "code" => tool.option("root", repository().join("policies")),
            "invoices" => self.invoices(&mut tool),
            _ => {
                tool.option("auth-url", self.auth_url.as_str());
                tool.flag("sample-helpdesk");
            }
        }
        self.mtls(&mut tool, service, &[EDGE, WORKLOAD]);
        tool
    }

    fn invoices(&self, invoices: &mut Replica) {
        let database = self.dependencies.invoices_database_url().expect("PostgreSQL");
        let vault = self.dependencies.vault.as_ref().expect("a Vault");
        invoices.option("auth-url", self.auth_url.as_str());
        invoices.option("vault-url", vault.url.as_str());
        // Its own login, for the version of the schema. An agent would write the token.
        let token = self.folder.join("vault-token");
        fs::write(&token, vault.root_token.expose_secret()).expect("a file");
        invoices.option("vault-login", "token-file");
        invoices.option("vault-login-file", token);
        invoices.variable("DRAWBRIDGE_INVOICES_DATABASE_URL", database.expose_secret());
    }

    fn edges(&self, size: usize, auths: &[Replica], tools: &[Replica]) -> Vec<Replica> {
        let start = |number: usize| {
            let mut edge = self.replica(EDGE, number);
            edge.option("public-url", self.mcp_url.as_str());
            edge.option("authorization-server", self.issuer.name());
            edge.option("config", repository().join("tests/uncached.toml"));
            for auth in auths {
                edge.option("auth-url", format!("https://{}", auth.address()));
            }
            for tool in tools {
                let address = format!("{}=https://{}", tool.service(), tool.address());
                edge.option("service", address);
            }
            edge.variable("DRAWBRIDGE_EDGE_SECRET", REPLICA_SECRET);
            edge.variable("DRAWBRIDGE_EDGE_REDIS_URL", self.redis_url());
            self.mtls(&mut edge, EDGE, &[]);
            edge
        };
        (1..=size).map(start).collect()
    }

    fn redis_url(&self) -> String {
        self.dependencies.redis_url().expect("Redis").expose_secret().to_owned()
    }

    /// The certificate of a service, and who may call it.
    fn mtls(&self, replica: &mut Replica, service: &str, callers: &[&str]) {
        let mtls = self.authority.issue_to_server(service, callers).expect("a certificate");
        let MtlsServerConfig { identity, mtls_allow, .. } = mtls;
        let files = [
            ("mtls-certificate-file", identity.mtls_certificate_file),
            ("mtls-key-file", identity.mtls_key_file),
            ("mtls-trust-bundle-file", identity.mtls_trust_bundle_file),
        ];
        for (option, file) in files {
            replica.option(option, file.expect("a file"));
        }
        for id in mtls_allow {
            replica.option("mtls-allow", id.to_string());
        }
    }
}
