//! Overload of the edge and of a tool service.

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

const USERS: usize = 30;
/// A tool service's concurrency limit, and the duration of each call, in milliseconds.
const CALLS_MAX: usize = 8;
const WORK_MS: u64 = 300;
/// The maximum duration of an admitted call: the work and the wait in a full queue, on a busy
/// machine.
const P99_MAX: Duration = Duration::from_secs(2);
const SHARE_MIN: f64 = 0.8;
const PEAK_SPAN: Duration = Duration::from_secs(5);

/// The duration of the overload: a minute in CI.
fn overload_span() -> Duration {
    Duration::from_secs(if env::var_os("CI").is_some() { 60 } else { 8 })
}

/// The outcomes of calls.
#[derive(Debug, Default)]
struct Outcomes {
    /// The durations of the answered calls.
    good: Mutex<Vec<Duration>>,
    /// The number of retryable rejections.
    rejected: AtomicUsize,
    wrong: Mutex<Vec<String>>,
}

impl Outcomes {
    fn record(&self, reply: &Reply, took: Duration) {
        let data = &reply.json["error"]["data"];
        if reply.status == StatusCode::OK && reply.json["result"]["isError"] == false {
            self.good.lock().unwrap_or_else(PoisonError::into_inner).push(took);
        } else if reply.error_code() == Some(-32053) && data["retryAfterMs"].as_u64().is_some() {
            self.rejected.fetch_add(1, Ordering::Relaxed);
        } else {
            self.wrong.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{reply:?}"));
        }
    }

    /// The answered calls per second, and the 99th percentile of their durations.
    fn summarize(&self, span: Duration) -> (f64, Duration) {
        let wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(
            wrong.is_empty(),
            "{} are neither answered nor rejected: {}",
            wrong.len(),
            wrong[0]
        );
        let mut good = self.good.lock().unwrap_or_else(PoisonError::into_inner).clone();
        good.sort_unstable();
        let p99 = good.get(good.len() * 99 / 100).copied().unwrap_or_default();
        (f64::from(u32::try_from(good.len()).expect("a count")) / span.as_secs_f64(), p99)
    }
}

/// The callers and their call.
struct Load {
    users: Vec<Client>,
    tool: &'static str,
    arguments: Value,
}

impl Load {
    async fn call_once(self: Arc<Self>, user: usize, outcomes: Arc<Outcomes>) {
        let began = Instant::now();
        let reply = self.users[user % USERS].call_tool(self.tool, self.arguments.clone()).await;
        outcomes.record(&reply, began.elapsed());
    }

    /// A closed loop: each of `callers` calls again as soon as it is answered.
    async fn closed_loop(self: &Arc<Self>, callers: usize, span: Duration) -> (f64, Duration) {
        let (outcomes, began, mut tasks) =
            (Arc::<Outcomes>::default(), Instant::now(), JoinSet::new());
        for caller in 0..callers {
            let (load, outcomes) = (Arc::clone(self), Arc::clone(&outcomes));
            tasks.spawn(async move {
                while began.elapsed() < span {
                    Arc::clone(&load).call_once(caller, Arc::clone(&outcomes)).await;
                }
            });
        }
        tasks.join_all().await;
        outcomes.summarize(span)
    }

    /// An open loop: `rate` calls per second, answered or not.
    async fn open_loop(self: &Arc<Self>, rate: f64, span: Duration) -> (f64, Duration, usize) {
        let (outcomes, began, mut tasks) =
            (Arc::<Outcomes>::default(), Instant::now(), JoinSet::new());
        let mut ticks = tokio::time::interval(Duration::from_millis(10));
        let mut sent = 0;
        while began.elapsed() < span {
            ticks.tick().await;
            while f64::from(sent) < began.elapsed().as_secs_f64() * rate {
                let user = usize::try_from(sent).expect("a number");
                tasks.spawn(Arc::clone(self).call_once(user, Arc::clone(&outcomes)));
                sent += 1;
            }
            while tasks.try_join_next().is_some() {}
        }
        tasks.join_all().await;
        let (rate, p99) = outcomes.summarize(span);
        (rate, p99, outcomes.rejected.load(Ordering::Relaxed))
    }
}

/// Requests the OAuth metadata, which needs no token, until it is dropped. Records the slowest
/// response in milliseconds.
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

fn users(mesh: &TestMesh, edge: &Edge, issuer: &TestIssuer) -> Vec<Client> {
    let user = |number: usize| {
        let mut claims = issuer.claims(mesh.mesh.mcp_url.as_str());
        claims["sub"] = json!(format!("user-{number}"));
        edge.client(&mesh.client_with(&issuer.sign(&issuer.header(), &claims)))
    };
    (0..USERS).map(user).collect()
}

/// The conformance service behind an edge with this config file.
async fn edge_with(
    mesh: &TestMesh,
    config: &str,
) -> (Conformance, drawbridge_mesh::HostedService, Edge, TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("edge.toml");
    fs::write(&file, config).expect("a file");
    let (service, hosted, edge) = mesh.conformance(|edge| edge.config = Some(file)).await;
    (service, hosted, edge, folder)
}

#[test]
fn goodput_holds_at_three_times_the_peak_load() {
    // Its own process, so that no other test affects its memory.
    let mut alone = Command::new(env::current_exe().expect("this program"));
    alone.args(["--exact", "--ignored", "--nocapture", "gateway::overload::overloaded"]);
    let output = alone.output().expect("a process");
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{stdout}");
    assert!(output.status.success() && stdout.contains("1 passed"), "{stdout}{stderr}");
}

#[ignore = "the process of the test above"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn overloaded() {
    let issuer = TestIssuer::start().await;
    let mesh = mesh_of(&issuer).await;
    let config = format!("[concurrency]\nservice = {{ test = {CALLS_MAX} }}\n");
    let (_service, _hosted, edge, _folder) = edge_with(&mesh, &config).await;
    let arguments = json!({ "milliseconds": WORK_MS });
    let load =
        Arc::new(Load { users: users(&mesh, &edge, &issuer), tool: "test_slow_work", arguments });

    load.closed_loop(2 * CALLS_MAX, Duration::from_secs(1)).await;
    let (peak, peak_p99) = load.closed_loop(2 * CALLS_MAX, PEAK_SPAN).await;
    let (offered, slowest) = (3.0 * peak, AtomicU64::new(0));
    let overloaded = async {
        load.open_loop(offered, overload_span() / 4).await;
        let before = resident_mib();
        let seen = load.open_loop(offered, overload_span()).await;
        (seen, resident_mib().saturating_sub(before))
    };
    let ((goodput, p99, rejected), grown) = tokio::select! {
        seen = overloaded => seen,
        () = metadata(&edge, &slowest) => unreachable!("it does not end"),
    };
    let slowest = slowest.load(Ordering::Relaxed);
    println!(
        "{peak:.0} calls/s at the peak (p99 {peak_p99:.0?}); of {offered:.0} calls/s {goodput:.0} were answered \
         (p99 {p99:.0?}), {rejected} calls rejected; the slowest metadata {slowest} ms, memory +{grown} MiB"
    );
    assert!(goodput >= SHARE_MIN * peak, "{goodput:.0} of {peak:.0}");
    assert!(p99 <= P99_MAX, "{p99:?}");
    assert!(rejected > 0 && slowest < 5000);
    assert!(grown < 32, "memory grew by {grown} MiB");
}

#[tokio::test]
async fn a_caller_with_many_calls_does_not_delay_others_in_the_call_queue() {
    check_fairness("[concurrency]\nservice = { test = 2 }\nwait_ms = 60000\n").await;
}

#[tokio::test]
async fn a_caller_with_many_requests_does_not_delay_others_in_the_request_queue() {
    check_fairness("[concurrency]\nrequests_max = 2\nrequests_min = 2\nwait_ms = 60000\n").await;
}

/// Checks the queue's fairness: two permits, and forty calls of one caller.
async fn check_fairness(config: &str) {
    let mesh = TestMesh::with(serve_conformance).await;
    let (service, _hosted, edge, _folder) = edge_with(&mesh, config).await;
    let alice = edge.client(&mesh.client("alice").await);
    let bob = edge.client(&mesh.client("bob").await);
    let work = json!({ "milliseconds": 100 });
    // Each authenticated principal has its own queue.
    for client in [&alice, &bob] {
        client.call_tool("test_slow_work", work.clone()).await;
    }
    let mut tasks = JoinSet::new();
    for _ in 0..40 {
        let (alice, work) = (alice.clone(), work.clone());
        tasks.spawn(async move { alice.call_tool("test_slow_work", work).await });
    }
    while service.finished.load(Ordering::Relaxed) < 4 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let before = service.finished.load(Ordering::Relaxed);
    let reply = bob.call_tool("test_slow_work", work).await;
    assert_eq!(reply.json["result"]["isError"], false, "{reply:?}");
    let meanwhile = service.finished.load(Ordering::Relaxed) - before;
    // Two that ran, two that were next, and a margin for a slow machine.
    assert!(meanwhile <= 12, "{meanwhile}");
    for reply in tasks.join_all().await {
        assert_eq!(reply.json["result"]["isError"], false, "{reply:?}");
    }
}

/// Makes concurrent calls of half a second each.
async fn call_concurrently(client: &Client, calls: usize) -> Vec<Reply> {
    let mut tasks = JoinSet::new();
    for _ in 0..calls {
        let client = client.clone();
        tasks.spawn(async move {
            client.call_tool("test_slow_work", json!({ "milliseconds": 500 })).await
        });
    }
    tasks.join_all().await
}

fn rejected(replies: &[Reply]) -> Vec<&Reply> {
    replies.iter().filter(|reply| reply.error_code().is_some()).collect()
}

#[tokio::test]
async fn a_call_that_gets_no_permit_is_rejected_as_retryable_and_reaches_no_service() {
    let mesh = TestMesh::with(serve_conformance).await;
    let config =
        "[concurrency]\ncalls_per_principal = 1\nwaiting_per_principal = 1\nwait_ms = 60000\n";
    let (service, _hosted, edge, folder) = edge_with(&mesh, config).await;
    let alice = edge.client(&mesh.client("alice").await);
    let bob = edge.client(&mesh.client("bob").await);
    let (replies, other) = tokio::join!(call_concurrently(&alice, 4), call_concurrently(&bob, 2));
    // For each principal one call runs and one waits.
    let rejections = rejected(&replies);
    assert_eq!((rejections.len(), rejected(&other).len()), (2, 0), "{replies:?}");
    assert_eq!(service.finished.load(Ordering::Relaxed), 4);
    for reply in rejections {
        let data = &reply.json["error"]["data"];
        assert_eq!((reply.error_code(), &data["reason"]), (Some(-32053), &json!("principal_busy")));
        assert_eq!((&data["retryable"], &data["retryAfterMs"]), (&json!(true), &json!(1000)));
        reply.assert_names_request();
    }
    // A higher limit in the file takes effect at once.
    fs::write(folder.path().join("edge.toml"), "[concurrency]\ncalls_per_principal = 4\n")
        .expect("a file");
    let began = Instant::now();
    while !rejected(&call_concurrently(&alice, 4).await).is_empty() {
        assert!(began.elapsed() < Duration::from_secs(30), "the edit takes too long");
    }
}

#[tokio::test]
async fn an_overloaded_edge_rejects_early_and_does_not_count_subscribers() {
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
    let mut subscribers = Vec::new();
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
        subscribers.push(answer);
    }
    let replies = call_concurrently(&alice, 3).await;
    let rejections = rejected(&replies);
    assert_eq!(rejections.len(), 1, "{replies:?}");
    assert_eq!(service.finished.load(Ordering::Relaxed), 2);
    let reply = rejections[0];
    assert_eq!((reply.status, reply.error_code()), (StatusCode::SERVICE_UNAVAILABLE, Some(-32053)));
    assert_eq!(
        reply.headers.get(header::RETRY_AFTER).map(|value| value.as_bytes()),
        Some(&b"1"[..])
    );
    assert_eq!(reply.json["error"]["data"]["reason"], "overloaded");
    reply.assert_names_request();
    assert_eq!(rejected(&call_concurrently(&alice, 2).await).len(), 0);
    drop(subscribers);
}
