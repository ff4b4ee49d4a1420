//! More than the edge, or a tool service, can carry.

use std::{
    env, fs,
    process::Command,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use drawbridge_tests::{
    Client, Edge, Reply, TestIssuer, TestMesh, conformance::Conformance, serve_conformance,
};
use http::{StatusCode, header};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

const PERSONS: usize = 30;
/// What a tool service may have to do at once, and how long each takes, in milliseconds.
const CALLS_MAX: usize = 8;
const WORK_MS: u64 = 300;
/// What an admitted call takes at most: the work, and the wait of a line that is standing, on a busy machine.
const P99_MAX: Duration = Duration::from_secs(2);
const SHARE_MIN: f64 = 0.8;
const PEAK_SPAN: Duration = Duration::from_secs(5);

/// For how long there is too much: a minute in CI.
fn overload_span() -> Duration {
    Duration::from_secs(if env::var_os("CI").is_some() { 60 } else { 8 })
}

/// What callers got.
#[derive(Debug, Default)]
struct Got {
    /// How long each call took that was answered.
    good: Mutex<Vec<Duration>>,
    /// Those that are to try again.
    refused: AtomicUsize,
    wrong: Mutex<Vec<String>>,
}

impl Got {
    fn note(&self, reply: &Reply, took: Duration) {
        let data = &reply.json["error"]["data"];
        if reply.status == StatusCode::OK && reply.json["result"]["isError"] == false {
            self.good.lock().unwrap_or_else(PoisonError::into_inner).push(took);
        } else if reply.error_code() == Some(-32053) && data["retryAfterMs"].as_u64().is_some() {
            self.refused.fetch_add(1, Ordering::Relaxed);
        } else {
            self.wrong.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{reply:?}"));
        }
    }

    /// Answers a second, and the time within which 99 of 100 came.
    fn sum(&self, span: Duration) -> (f64, Duration) {
        let wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(wrong.is_empty(), "{} are neither answered nor refused: {}", wrong.len(), wrong[0]);
        let mut good = self.good.lock().unwrap_or_else(PoisonError::into_inner).clone();
        good.sort_unstable();
        let p99 = good.get(good.len() * 99 / 100).copied().unwrap_or_default();
        (f64::from(u32::try_from(good.len()).expect("a count")) / span.as_secs_f64(), p99)
    }
}

/// Who calls, and what.
struct Load {
    persons: Vec<Client>,
    tool: &'static str,
    arguments: Value,
}

impl Load {
    async fn one(self: Arc<Self>, person: usize, got: Arc<Got>) {
        let began = Instant::now();
        let reply =
            self.persons[person % PERSONS].call_tool(self.tool, self.arguments.clone()).await;
        got.note(&reply, began.elapsed());
    }

    /// Each of so many calls again as soon as it is answered.
    async fn closed(self: &Arc<Self>, callers: usize, span: Duration) -> (f64, Duration) {
        let (got, began, mut calling) = (Arc::<Got>::default(), Instant::now(), JoinSet::new());
        for caller in 0..callers {
            let (load, got) = (Arc::clone(self), Arc::clone(&got));
            calling.spawn(async move {
                while began.elapsed() < span {
                    Arc::clone(&load).one(caller, Arc::clone(&got)).await;
                }
            });
        }
        calling.join_all().await;
        got.sum(span)
    }

    /// So many a second, answered or not.
    async fn open(self: &Arc<Self>, rate: f64, span: Duration) -> (f64, Duration, usize) {
        let (got, began, mut calling) = (Arc::<Got>::default(), Instant::now(), JoinSet::new());
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        let mut sent = 0;
        while began.elapsed() < span {
            ticks.tick().await;
            while f64::from(sent) < began.elapsed().as_secs_f64() * rate {
                let person = usize::try_from(sent).expect("a number");
                calling.spawn(Arc::clone(self).one(person, Arc::clone(&got)));
                sent += 1;
            }
            while calling.try_join_next().is_some() {}
        }
        calling.join_all().await;
        let (rate, p99) = got.sum(span);
        (rate, p99, got.refused.load(Ordering::Relaxed))
    }
}

/// Asks for the OAuth metadata, which needs no token, until it is dropped. Says how many milliseconds the slowest took.
async fn metadata(edge: &Edge, slowest: &AtomicU64) {
    let url = edge.url.join("/.well-known/oauth-protected-resource/mcp").expect("a URL");
    let client = reqwest::Client::new();
    loop {
        let began = Instant::now();
        let answer = client.get(url.clone()).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        slowest.fetch_max(
            u64::try_from(began.elapsed().as_millis()).expect("a time"),
            Ordering::Relaxed,
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn resident_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("this process's status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("its memory");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("a number") / 1024
}

async fn mesh_of(issuer: &TestIssuer) -> TestMesh {
    TestMesh::with(|config| {
        serve_conformance(config);
        config.telemetry.log = "error".to_owned();
        let file = config.policies.join("issuers.toml");
        let entry = format!(
            "[[issuers]]\nissuer = \"{}\"\nallow_private_addresses = true\n",
            issuer.name()
        );
        fs::write(&file, entry).expect("a file");
        config.issuers = Some(file);
    })
    .await
}

fn persons(mesh: &TestMesh, edge: &Edge, issuer: &TestIssuer) -> Vec<Client> {
    let person = |number: usize| {
        let mut claims = issuer.claims(mesh.mesh.mcp_url.as_str());
        claims["sub"] = json!(format!("person-{number}"));
        edge.client(&mesh.client_with(&issuer.sign(&issuer.header(), &claims)))
    };
    (0..PERSONS).map(person).collect()
}

/// A mesh with the conformance service behind an edge that is set up like this.
async fn edge_with(
    mesh: &TestMesh,
    config: &str,
) -> (Conformance, drawbridge_cli::mesh::Hosted, Edge, TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("edge.toml");
    fs::write(&file, config).expect("a file");
    let (service, hosted, edge) = mesh.conformance(|edge| edge.config = Some(file)).await;
    (service, hosted, edge, folder)
}

#[test]
fn at_three_times_what_can_be_carried_as_much_is_answered_as_ever() {
    // A process of its own: how much memory it has is nobody else's doing.
    let mut alone = Command::new(env::current_exe().expect("this program"));
    alone.args(["--exact", "--ignored", "--nocapture", "gateway::overload::overloaded"]);
    let done = alone.output().expect("a process");
    let (said, failed) =
        (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    println!("{said}");
    assert!(done.status.success() && said.contains("1 passed"), "{said}{failed}");
}

#[ignore = "the process of the test above"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overloaded() {
    let issuer = TestIssuer::start().await;
    let mesh = mesh_of(&issuer).await;
    let config = format!("[concurrency]\nservice = {{ test = {CALLS_MAX} }}\n");
    let (_service, _hosted, edge, _folder) = edge_with(&mesh, &config).await;
    let arguments = json!({ "milliseconds": WORK_MS });
    let load = Arc::new(Load {
        persons: persons(&mesh, &edge, &issuer),
        tool: "test_slow_work",
        arguments,
    });

    load.closed(2 * CALLS_MAX, Duration::from_secs(1)).await;
    let (peak, peak_p99) = load.closed(2 * CALLS_MAX, PEAK_SPAN).await;
    let (offered, slowest) = (3.0 * peak, AtomicU64::new(0));
    let overloaded = async {
        load.open(offered, overload_span() / 4).await;
        let before = resident_mib();
        let seen = load.open(offered, overload_span()).await;
        (seen, resident_mib().saturating_sub(before))
    };
    let ((goodput, p99, refused), grown) = tokio::select! {
        seen = overloaded => seen,
        () = metadata(&edge, &slowest) => unreachable!("it does not end"),
    };
    let slowest = slowest.load(Ordering::Relaxed);
    println!(
        "{peak:.0} calls/s at the peak (p99 {peak_p99:.0?}); of {offered:.0} calls/s {goodput:.0} were answered \
         (p99 {p99:.0?}), {refused} calls refused; the slowest metadata {slowest} ms, memory +{grown} MiB"
    );
    assert!(goodput >= SHARE_MIN * peak, "{goodput:.0} of {peak:.0}");
    assert!(p99 <= P99_MAX, "{p99:?}");
    assert!(refused > 0 && slowest < 5000);
    assert!(grown < 32, "memory grew by {grown} MiB");
}

#[tokio::test]
async fn a_caller_with_many_calls_keeps_nobody_waiting_for_them() {
    assert_turns("[concurrency]\nservice = { test = 2 }\nwait_ms = 60000\n").await;
}

#[tokio::test]
async fn a_caller_with_many_requests_keeps_nobody_waiting_at_the_door() {
    assert_turns("[concurrency]\nrequests_max = 2\nrequests_min = 2\nwait_ms = 60000\n").await;
}

/// Two at once, and of one caller forty.
async fn assert_turns(config: &str) {
    let mesh = TestMesh::with(serve_conformance).await;
    let (service, _hosted, edge, _folder) = edge_with(&mesh, config).await;
    let alice = edge.client(&mesh.client("alice").await);
    let bob = edge.client(&mesh.client("bob").await);
    let work = json!({ "milliseconds": 100 });
    // Whoever has been let in once has a line of their own.
    for client in [&alice, &bob] {
        client.call_tool("test_slow_work", work.clone()).await;
    }
    let mut calling = JoinSet::new();
    for _ in 0..40 {
        let (alice, work) = (alice.clone(), work.clone());
        calling.spawn(async move { alice.call_tool("test_slow_work", work).await });
    }
    while service.finished.load(Ordering::Relaxed) < 4 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let before = service.finished.load(Ordering::Relaxed);
    let reply = bob.call_tool("test_slow_work", work).await;
    assert_eq!(reply.json["result"]["isError"], false, "{reply:?}");
    let meanwhile = service.finished.load(Ordering::Relaxed) - before;
    // Two that ran, two that were next, and what a slow machine lets end before it tells.
    assert!(meanwhile <= 12, "{meanwhile}");
    for reply in calling.join_all().await {
        assert_eq!(reply.json["result"]["isError"], false, "{reply:?}");
    }
}

/// So many calls at once, each of half a second.
async fn at_once(client: &Client, calls: usize) -> Vec<Reply> {
    let mut calling = JoinSet::new();
    for _ in 0..calls {
        let client = client.clone();
        calling.spawn(async move {
            client.call_tool("test_slow_work", json!({ "milliseconds": 500 })).await
        });
    }
    calling.join_all().await
}

fn refused(replies: &[Reply]) -> Vec<&Reply> {
    replies.iter().filter(|reply| reply.error_code().is_some()).collect()
}

#[tokio::test]
async fn a_call_whose_turn_does_not_come_is_told_to_try_again_and_reaches_no_service() {
    let mesh = TestMesh::with(serve_conformance).await;
    let config =
        "[concurrency]\ncalls_per_principal = 1\nwaiting_per_principal = 1\nwait_ms = 60000\n";
    let (service, _hosted, edge, folder) = edge_with(&mesh, config).await;
    let alice = edge.client(&mesh.client("alice").await);
    let bob = edge.client(&mesh.client("bob").await);
    let (replies, other) = tokio::join!(at_once(&alice, 4), at_once(&bob, 2));
    // One runs and one waits, and so it is for everybody.
    let refused_ones = refused(&replies);
    assert_eq!((refused_ones.len(), refused(&other).len()), (2, 0), "{replies:?}");
    assert_eq!(service.finished.load(Ordering::Relaxed), 4);
    for reply in refused_ones {
        let data = &reply.json["error"]["data"];
        assert_eq!((reply.error_code(), &data["reason"]), (Some(-32053), &json!("principal_busy")));
        assert_eq!((&data["retryable"], &data["retryAfterMs"]), (&json!(true), &json!(1000)));
        reply.assert_names_request();
    }
    // More room is room at once, when the file says so.
    fs::write(folder.path().join("edge.toml"), "[concurrency]\ncalls_per_principal = 4\n")
        .expect("a file");
    let began = Instant::now();
    while !refused(&at_once(&alice, 4).await).is_empty() {
        assert!(began.elapsed() < Duration::from_secs(30), "the edit takes too long");
    }
}

#[tokio::test]
async fn an_edge_that_has_too_much_to_do_refuses_early_and_whoever_only_listens_does_not_count() {
    let mesh = TestMesh::with(serve_conformance).await;
    let config = "[concurrency]\nrequests_max = 2\nrequests_min = 2\nwait_ms = 50\n";
    let (service, _hosted, edge, _folder) = edge_with(&mesh, config).await;
    let alice = edge.client(&mesh.client("alice").await);
    let listen = json!({
        "jsonrpc": "2.0", "id": 7, "method": "subscriptions/listen",
        "params": {
            "notifications": { "toolsListChanged": true },
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientInfo": { "name": "test", "version": "1" },
                "io.modelcontextprotocol/clientCapabilities": {},
            },
        },
    });
    let mut listening = Vec::new();
    for _ in 0..3 {
        let request =
            alice.post().header("mcp-method", "subscriptions/listen").body(listen.to_string());
        let request = request.header("mcp-protocol-version", "2026-07-28");
        let (client, request) = request.build_split();
        let mut request = request.expect("a request");
        request
            .headers_mut()
            .insert("mcp-protocol-version", http::HeaderValue::from_static("2026-07-28"));
        let answer = client.execute(request).await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        listening.push(answer);
    }
    let replies = at_once(&alice, 3).await;
    let refused_ones = refused(&replies);
    assert_eq!(refused_ones.len(), 1, "{replies:?}");
    assert_eq!(service.finished.load(Ordering::Relaxed), 2);
    let reply = refused_ones[0];
    assert_eq!((reply.status, reply.error_code()), (StatusCode::SERVICE_UNAVAILABLE, Some(-32053)));
    assert_eq!(
        reply.headers.get(header::RETRY_AFTER).map(|value| value.as_bytes()),
        Some(&b"1"[..])
    );
    assert_eq!(reply.json["error"]["data"]["reason"], "overloaded");
    reply.assert_names_request();
    assert_eq!(refused(&at_once(&alice, 2).await).len(), 0);
    drop(listening);
}
