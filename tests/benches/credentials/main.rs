//! What a call costs whose credentials come from Vault: the first of a principal, and those after it, in one run with the
//! same calls to a service that needs none.
//!
//!     cargo bench -p drawbridge-tests --bench credentials -- [--json]
//!
//! The tool service `invoices` searches a PostgreSQL that holds nothing. *cold*: the principal is new: a login, a lease, and
//! a connection as a user that was just made. *warm*: all that is there. *crowded*: there are more principals than the
//! connections suffice for.

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a benchmark that cannot go on says so, prints what it has measured, and counts little"
)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use drawbridge_cli::mesh::{Hosted, MeshDatabase, MeshVault};
use drawbridge_proto::invoices::v1::{SearchRequest, invoice_service_client::InvoiceServiceClient};
use drawbridge_sdk::{
    TXN_TOKEN, TelemetryConfig,
    credentials::{CredentialsConfig, VaultConfig},
    identity::{Principal, TransactionClaims, TransactionContext},
};
use drawbridge_tests::{Postgres, TestIssuer, Vault, connect, now};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use tonic::{Request, transport::Channel};
use url::Url;

const RPC: &str = "drawbridge.invoices.v1.InvoiceService/Search";
/// With two connections each they are within the 100 that PostgreSQL takes.
const PRINCIPALS: usize = 40;
const CONNECTIONS: usize = 8;
const CALLS: usize = 1000;
const ROUNDS: usize = 5;
/// Of the crowded service: a quarter of the principals have connections at once.
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

/// What a round of calls took: of one call the median and the 99th of a hundred, and of all of them together.
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
    taken: [Taken; 2],
    /// Connections that the crowded service has made, in its cold round and the one that is shown.
    crowded_connections: usize,
}

#[derive(Clone, Copy)]
struct Taken {
    logins: usize,
    leases: usize,
    connections: usize,
}

/// What the calls stand on.
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

    /// The service, over this database.
    async fn service(&self, database_url: &str, connections_max: u32) -> Hosted {
        let nowhere: Url = "http://127.0.0.1:9".parse().expect("a URL");
        let keys = self.issuer.url.join("/jwks").expect("a URL");
        let config = drawbridge_invoices::Config {
            database_connections_max: connections_max,
            credentials: CredentialsConfig {
                vault: Some(VaultConfig::new(self.vault.url.clone())),
                ..CredentialsConfig::new(nowhere.clone())
            },
            ..drawbridge_invoices::Config::new(database_url.into(), nowhere, keys)
        };
        let telemetry = TelemetryConfig { log: "error".to_owned(), ..TelemetryConfig::default() };
        let hosted = Hosted::start("invoices", &telemetry, |telemetry| async move {
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

    fn taken(&self) -> Taken {
        Taken {
            logins: self.vault.answered("auth/drawbridge/login").len(),
            leases: self.vault.answered("database/creds/invoices-reader").len(),
            connections: self.connections(),
        }
    }

    /// How many connections PostgreSQL was asked for, by users that Vault has made.
    fn connections(&self) -> usize {
        let made = "select count(*) from pg_stat_activity where usename like 'v-%'";
        self.postgres.ask(made).expect("a number").concat().parse().expect("a number")
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
    let first = world.taken();
    round(&without, &tokens, CALLS).await;
    let (mut of_without, mut of_warm) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        of_without.push(round(&without, &tokens, CALLS).await);
        of_warm.push(round(&service, &tokens, CALLS).await);
    }
    let last = world.taken();
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
        taken: [first, last],
        crowded_connections: sessions(&world.postgres).saturating_sub(before),
    }
}

/// How many connections PostgreSQL has ever taken.
fn sessions(postgres: &Postgres) -> usize {
    let ever = "select pg_stat_force_next_flush(); select sessions from pg_stat_database where datname = current_database()";
    postgres.ask(ever).expect("a number").concat().parse().expect("a number")
}

/// So many calls by all principals in turn, on some connections at once.
async fn round(service: &Hosted, tokens: &Arc<Vec<String>>, calls: usize) -> Round {
    let url: Url = format!("http://{}", service.running.address).parse().expect("a URL");
    let next = Arc::new(AtomicUsize::new(0));
    let began = Instant::now();
    let connections: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let client = InvoiceServiceClient::new(connect(&url).expect("a channel"));
            tokio::spawn(calls_of(client, Arc::clone(tokens), Arc::clone(&next), calls))
        })
        .collect();
    let mut took = Vec::with_capacity(calls);
    for connection in connections {
        took.extend(connection.await.expect("an end"));
    }
    let calls_per_second = calls as f64 / began.elapsed().as_secs_f64();
    took.sort_unstable();
    let at = |part: usize| took[(took.len() - 1) * part / 100].as_secs_f64() * 1e6;
    Round { median_us: at(50), p99_us: at(99), calls_per_second }
}

async fn calls_of(
    mut client: InvoiceServiceClient<Channel>,
    tokens: Arc<Vec<String>>,
    next: Arc<AtomicUsize>,
    calls: usize,
) -> Vec<Duration> {
    let mut took = Vec::new();
    loop {
        let call = next.fetch_add(1, Ordering::Relaxed);
        if call >= calls {
            return took;
        }
        let mut request = Request::new(SearchRequest::default());
        let token = tokens[call % tokens.len()].parse().expect("a header");
        request.metadata_mut().insert(TXN_TOKEN, token);
        request.set_timeout(Duration::from_secs(30));
        let began = Instant::now();
        let answer = client.search(request).await.expect("an answer").into_inner();
        took.push(began.elapsed());
        assert!(answer.invoices.is_empty(), "{answer:?}");
    }
}

/// The round whose median is the median.
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
        let taken = |taken: Taken| json!({ "logins": taken.logins, "leases": taken.leases, "connections": taken.connections });
        let rounds = self.rounds().map(|(name, of)| (name.to_owned(), round(of)));
        let rounds: serde_json::Map<_, _> = rounds.into_iter().collect();
        json!({
            "rounds": rounds,
            "taken": { "cold": taken(self.taken[0]), "warm": taken(self.taken[1]) },
            "crowded_connections": self.crowded_connections,
        })
    }
}

fn print(report: &Report) {
    println!(
        "{PRINCIPALS} principals, {CONNECTIONS} calls at once, {CALLS} calls a round, median of {ROUNDS} rounds\n"
    );
    println!("{:<10}{:>12}{:>12}{:>12}{:>14}", "", "median µs", "p99 µs", "calls/s", "to without");
    for (name, round) in report.rounds() {
        let Round { median_us, p99_us, calls_per_second } = round;
        let ratio = median_us / report.without.median_us;
        println!("{name:<10}{median_us:>12.0}{p99_us:>12.0}{calls_per_second:>12.0}{ratio:>14.2}");
    }
    for (name, taken) in ["the cold round", "all warm rounds"].iter().zip(&report.taken) {
        let Taken { logins, leases, connections } = taken;
        println!("after {name}: {logins} logins, {leases} leases, {connections} connections");
    }
    println!(
        "crowded, with {CROWDED_CONNECTIONS} connections at most: {} were made for {} calls",
        report.crowded_connections,
        PRINCIPALS + CALLS,
    );
}
