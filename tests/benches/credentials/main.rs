//! The cost of a call with credentials from Vault: a principal's first call and later ones, in one
//! run with the same calls to a service without credentials.
//!
//!     cargo bench -p drawbridge-tests --bench credentials -- [--json]
//!
//! The tool service `invoices` searches an empty PostgreSQL. *cold*: the principal is new, so the
//! call needs a login, a lease, and a connection as a new database user. *warm*: all of these
//! exist. *crowded*: there are more principals than connections.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a benchmark panics on errors, prints its results, and has small counts"
)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use drawbridge_credentials::{CredentialsConfig, VaultConfig};
use drawbridge_mesh::{HostedService, MeshDatabase, MeshVault};
use drawbridge_proto::invoices::v1::{SearchRequest, invoice_service_client::InvoiceServiceClient};
use drawbridge_runtime::TelemetryConfig;
use drawbridge_sdk::ToolServiceConfig;
use drawbridge_tests::{Postgres, TestIssuer, Vault, connect, now};
use drawbridge_transport::{
    TXN_TOKEN,
    transaction_token::{Principal, TransactionClaims, TransactionContext},
};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use tonic::{Request, transport::Channel};
use url::Url;

const RPC: &str = "drawbridge.invoices.v1.InvoiceService/Search";
/// Two connections each stay within PostgreSQL's limit of 100.
const PRINCIPALS: usize = 40;
const CONNECTIONS: usize = 8;
const CALLS: usize = 1000;
const ROUNDS: usize = 5;
/// The crowded service's limit: a quarter of the principals can have connections.
const CROWDED_CONNECTIONS: u32 = 20;

fn main() {
    let as_json = std::env::args().any(|arg| arg == "--json");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let report = runtime.expect("a runtime").block_on(run());
    match as_json {
        true => println!("{:#}", report.json()),
        false => print(&report),
    }
}

/// The latencies of a round's calls, and their throughput.
#[derive(Clone, Copy)]
struct Round {
    median_us: f64,
    p99_us: f64,
    calls_per_second: f64,
}

struct Report {
    without: Round,
    cold: Round,
    warm: Round,
    crowded: Round,
    /// Logins, leases and connections after the cold round, and after all warm ones.
    usage: [Usage; 2],
    /// The connections of the crowded service, over its cold and its measured round.
    crowded_connections: usize,
}

#[derive(Clone, Copy)]
struct Usage {
    logins: usize,
    leases: usize,
    connections: usize,
}

/// The dependencies of the calls.
struct World {
    issuer: TestIssuer,
    vault: Vault,
    postgres: Postgres,
}

impl World {
    async fn start() -> Self {
        let (issuer, vault, postgres) =
            tokio::join!(TestIssuer::with_every_algorithm(), Vault::start(), Postgres::start());
        postgres.migrate().await;
        let (username, password) = postgres.owner();
        let mesh_vault = MeshVault {
            config: VaultConfig::new(vault.url.clone()),
            token: vault.root_token.as_str().into(),
            audit_file: Some(vault.audit_file().display().to_string()),
            database: Some(MeshDatabase {
                connection_url: postgres.connection_url(),
                username: username.to_owned(),
                password: password.into(),
            }),
        };
        mesh_vault.bootstrap(issuer.url.join("/jwks").expect("a URL")).await.expect("a Vault");
        Self { issuer, vault, postgres }
    }

    /// Starts the service with this database.
    async fn service(&self, database_url: &str, connections_max: u32) -> HostedService {
        let unused: Url = "http://127.0.0.1:9".parse().expect("a URL");
        let keys = self.issuer.url.join("/jwks").expect("a URL");
        let config = drawbridge_invoices::Config {
            database_connections_max: connections_max,
            credentials: CredentialsConfig {
                vault: Some(VaultConfig::new(self.vault.url.clone())),
                ..CredentialsConfig::new(unused.clone())
            },
            ..drawbridge_invoices::Config::new(
                database_url.into(),
                unused,
                ToolServiceConfig::on_free_ports(keys),
            )
        };
        let telemetry = TelemetryConfig { log: "error".to_owned(), ..TelemetryConfig::default() };
        let hosted = HostedService::start("invoices", &telemetry, |telemetry| async move {
            drawbridge_invoices::start(config, &telemetry).await
        });
        hosted.await.expect("a service")
    }

    fn tokens(&self) -> Arc<Vec<String>> {
        let mut header = self.issuer.header_of(Algorithm::EdDSA);
        header.typ = Some("txntoken+jwt".to_owned());
        let token = |number: usize| {
            let claims = claims(&format!("user-{number}"));
            self.issuer.sign(&header, &serde_json::to_value(claims).expect("JSON"))
        };
        Arc::new((0..PRINCIPALS).map(token).collect())
    }

    fn usage(&self) -> Usage {
        Usage {
            logins: self.vault.responses("auth/drawbridge/login").len(),
            leases: self.vault.responses("database/creds/invoices-reader").len(),
            connections: self.connections(),
        }
    }

    /// The number of PostgreSQL connections by users that Vault created.
    fn connections(&self) -> usize {
        let query = "select count(*) from pg_stat_activity where usename like 'v-%'";
        self.postgres.query(query).expect("a number").concat().parse().expect("a number")
    }
}

fn claims(subject: &str) -> TransactionClaims {
    let issuer = "https://idp.example";
    TransactionClaims {
        iss: "drawbridge-auth".to_owned(),
        aud: "invoices".to_owned(),
        sub: subject.to_owned(),
        iat: now(),
        exp: now() + 600,
        txn: "bench".to_owned(),
        scope: String::new(),
        tctx: TransactionContext {
            iss: issuer.to_owned(),
            principal: Principal::new(issuer, subject, Some("acme")),
            tenant: Some("acme".to_owned()),
            client_id: "bench".to_owned(),
            tool: "invoices_search".to_owned(),
            rpc: RPC.to_owned(),
            message_sha256: None,
            facts: None,
        },
        act: None,
    }
}

async fn run() -> Report {
    let world = World::start().await;
    let tokens = world.tokens();
    let plenty = u32::try_from(2 * PRINCIPALS).expect("a number");
    let without = world.service("sqlite::memory:", plenty).await;
    let service = world.service(&world.postgres.url(), plenty).await;

    let cold = round(&service, &tokens, PRINCIPALS).await;
    let first = world.usage();
    round(&without, &tokens, CALLS).await;
    let (mut of_without, mut of_warm) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        of_without.push(round(&without, &tokens, CALLS).await);
        of_warm.push(round(&service, &tokens, CALLS).await);
    }
    let last = world.usage();
    service.stop().await;

    let before = sessions(&world.postgres);
    let service = world.service(&world.postgres.url(), CROWDED_CONNECTIONS).await;
    round(&service, &tokens, PRINCIPALS).await;
    let crowded = round(&service, &tokens, CALLS).await;
    service.stop().await;
    without.stop().await;
    Report {
        without: median(of_without),
        cold,
        warm: median(of_warm),
        crowded,
        usage: [first, last],
        crowded_connections: sessions(&world.postgres).saturating_sub(before),
    }
}

/// The number of connections that PostgreSQL has ever accepted.
fn sessions(postgres: &Postgres) -> usize {
    let query = "select pg_stat_force_next_flush(); select sessions from pg_stat_database where datname = current_database()";
    postgres.query(query).expect("a number").concat().parse().expect("a number")
}

/// Makes `calls` calls over `CONNECTIONS` connections, round-robin over all principals.
async fn round(service: &HostedService, tokens: &Arc<Vec<String>>, calls: usize) -> Round {
    let url: Url = format!("http://{}", service.running.address).parse().expect("a URL");
    let next = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let connections: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let client = InvoiceServiceClient::new(connect(&url).expect("a channel"));
            tokio::spawn(calls_of(client, Arc::clone(tokens), Arc::clone(&next), calls))
        })
        .collect();
    let mut latencies = Vec::with_capacity(calls);
    for connection in connections {
        latencies.extend(connection.await.expect("a completed task"));
    }
    let calls_per_second = calls as f64 / started.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let percentile =
        |part: usize| latencies[(latencies.len() - 1) * part / 100].as_secs_f64() * 1e6;
    Round { median_us: percentile(50), p99_us: percentile(99), calls_per_second }
}

async fn calls_of(
    mut client: InvoiceServiceClient<Channel>,
    tokens: Arc<Vec<String>>,
    next: Arc<AtomicUsize>,
    calls: usize,
) -> Vec<Duration> {
    let mut latencies = Vec::new();
    loop {
        let call = next.fetch_add(1, Ordering::Relaxed);
        if call >= calls {
            return latencies;
        }
        let mut request = Request::new(SearchRequest::default());
        let token = tokens[call % tokens.len()].parse().expect("a header");
        request.metadata_mut().insert(TXN_TOKEN, token);
        request.set_timeout(Duration::from_secs(30));
        let started = Instant::now();
        let response = client.search(request).await.expect("a response").into_inner();
        latencies.push(started.elapsed());
        assert!(response.invoices.is_empty(), "{response:?}");
    }
}

/// The round with the median of the medians.
fn median(mut rounds: Vec<Round>) -> Round {
    rounds.sort_by(|one, other| one.median_us.total_cmp(&other.median_us));
    rounds[rounds.len() / 2]
}

impl Report {
    fn rounds(&self) -> [(&'static str, Round); 4] {
        [
            ("without", self.without),
            ("cold", self.cold),
            ("warm", self.warm),
            ("crowded", self.crowded),
        ]
    }

    fn json(&self) -> Value {
        let round = |round: Round| {
            json!({
                "median_us": round.median_us,
                "p99_us": round.p99_us,
                "calls_per_second": round.calls_per_second,
                "median_to_without": round.median_us / self.without.median_us,
            })
        };
        let usage = |usage: Usage| json!({ "logins": usage.logins, "leases": usage.leases, "connections": usage.connections });
        let rounds = self.rounds().map(|(name, of)| (name.to_owned(), round(of)));
        let rounds: serde_json::Map<_, _> = rounds.into_iter().collect();
        json!({
            "rounds": rounds,
            "usage": { "cold": usage(self.usage[0]), "warm": usage(self.usage[1]) },
            "crowded_connections": self.crowded_connections,
        })
    }
}

fn print(report: &Report) {
    println!(
        "{PRINCIPALS} principals, {CONNECTIONS} concurrent calls, {CALLS} calls per round, median of {ROUNDS} rounds\n"
    );
    println!("{:<10}{:>12}{:>12}{:>12}{:>14}", "", "median µs", "p99 µs", "calls/s", "to without");
    for (name, round) in report.rounds() {
        let Round { median_us, p99_us, calls_per_second } = round;
        let ratio = median_us / report.without.median_us;
        println!("{name:<10}{median_us:>12.0}{p99_us:>12.0}{calls_per_second:>12.0}{ratio:>14.2}");
    }
    for (name, usage) in ["the cold round", "all warm rounds"].iter().zip(&report.usage) {
        let Usage { logins, leases, connections } = usage;
        println!("after {name}: {logins} logins, {leases} leases, {connections} connections");
    }
    println!(
        "crowded, with {CROWDED_CONNECTIONS} connections at most: {} were opened for {} calls",
        report.crowded_connections,
        PRINCIPALS + CALLS,
    );
}
