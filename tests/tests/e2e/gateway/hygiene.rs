//! The edge's response headers for browsers, and its rejection of abusive requests.

use std::{
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use drawbridge_tests::{Client, Edge, TestMesh};
use flate2::{Compression, write::GzEncoder};
use http::{HeaderMap, Method, StatusCode};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    net::TcpStream,
    task::JoinSet,
};

mod connections;
mod http2;
mod messages;
mod tls;

/// The time limit of a single step.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn every_response_has_security_headers() {
    let mesh = TestMesh::start().await;
    let alice = mesh.client("alice").await;
    let http = reqwest::Client::new();
    let url = &mesh.mesh.mcp_url;
    let get = async |path: &str| {
        let response = http.get(url.join(path).expect("a URL")).send().await.expect("an answer");
        (response.status(), response.headers().clone())
    };
    let ping = alice.call("ping", json!({})).await;
    let unknown = mesh.anonymous().call("ping", json!({})).await;
    for ((status, headers), expected) in [
        ((ping.status, ping.headers), StatusCode::OK),
        ((unknown.status, unknown.headers), StatusCode::UNAUTHORIZED),
        (get("/.well-known/oauth-protected-resource").await, StatusCode::OK),
        (get("/nowhere").await, StatusCode::NOT_FOUND),
        (get("/.well-known/openid-configuration").await, StatusCode::OK),
    ] {
        assert_eq!(status, expected);
        check_security_headers(&headers);
        assert!(headers.contains_key("x-request-id"), "{headers:?}");
    }
    let issuer = &mesh.mesh.state.issuer;
    for path in ["/authorize", "/token", "/nowhere"] {
        let response = reqwest::get(issuer.join(path).expect("a URL")).await.expect("an answer");
        check_security_headers(response.headers());
    }
    assert_eq!(get("/mcp").await.1["cache-control"], "no-store");
}

fn check_security_headers(headers: &HeaderMap) {
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert_eq!(headers["x-frame-options"], "DENY");
    assert_eq!(headers["referrer-policy"], "no-referrer");
    let policy = headers["content-security-policy"].to_str().expect("a text");
    assert!(
        policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
        "{policy}"
    );
    for name in ["server", "x-powered-by", "strict-transport-security"] {
        assert!(!headers.contains_key(name), "{headers:?}");
    }
}

#[tokio::test]
async fn an_edge_with_an_https_url_sends_strict_transport_security() {
    let mesh = TestMesh::start().await;
    let public = "https://mcp.acme.example/mcp";
    let edge = mesh.edge(&[], |config| config.public_url = public.parse().expect("a URL")).await;
    let response = reqwest::get(edge.url.clone()).await.expect("an answer");
    assert_eq!(response.headers()["strict-transport-security"], "max-age=31536000");
}

#[tokio::test]
async fn a_foreign_origin_gets_no_cors_headers() {
    let allowed = "https://app.example";
    let mesh = TestMesh::with(|config| config.allowed_origins = vec![allowed.to_owned()]).await;
    let http = reqwest::Client::new();
    for (origin, is_allowed) in [(allowed, true), ("https://evil.example", false), ("null", false)]
    {
        for method in [Method::OPTIONS, Method::POST] {
            let request = http
                .request(method.clone(), mesh.mesh.mcp_url.clone())
                .header("origin", origin)
                .header("access-control-request-method", "POST")
                .header(
                    "access-control-request-headers",
                    "authorization,mcp-method,mcp-param-region",
                );
            let response = request.send().await.expect("an answer");
            let headers = response.headers();
            assert_eq!(
                headers.contains_key("access-control-allow-origin"),
                is_allowed,
                "{method} {origin}"
            );
            assert_eq!(
                response.status() == StatusCode::FORBIDDEN,
                !is_allowed,
                "{method} {origin}"
            );
            if is_allowed && method == Method::POST {
                let exposed = headers["access-control-expose-headers"].to_str().expect("a text");
                for name in ["www-authenticate", "mcp-session-id", "retry-after", "x-request-id"] {
                    assert!(exposed.contains(name), "{exposed}");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_compressed_body_is_rejected_and_never_decompressed() {
    let mesh = TestMesh::start().await;
    let alice = mesh.client("alice").await;
    let mut bomb = GzEncoder::new(Vec::new(), Compression::best());
    for _ in 0..256 {
        bomb.write_all(&[b' '; 1 << 20]).expect("memory");
    }
    let bomb = bomb.finish().expect("memory");
    eprintln!("gzip bomb: {} KiB for 256 MiB", bomb.len() / 1024);
    for encoding in ["gzip", "br", "identity, gzip"] {
        let request = alice.post().header("content-encoding", encoding).body(bomb.clone());
        let reply = alice.send(request).await;
        assert_eq!(reply.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{encoding}");
        assert_eq!(reply.headers["accept-encoding"], "identity");
        reply.assert_names_request();
    }
    let plain = alice.send(alice.post().header("content-encoding", "identity").body(bomb)).await;
    assert_eq!((plain.status, plain.error_code()), (StatusCode::BAD_REQUEST, Some(-32700)));
}

#[tokio::test]
async fn the_access_log_names_the_client_address_seen_by_trusted_proxies() {
    let mesh = TestMesh::start().await;
    for (hops, expected) in [(0, "127.0.0.1"), (1, "192.0.2.2"), (2, "192.0.2.1"), (3, "127.0.0.1")]
    {
        let edge = mesh.edge(&[], |config| config.trusted_hops = hops).await;
        let request = reqwest::Client::new()
            .get(edge.url.clone())
            .header("x-request-id", format!("hops-{hops}"))
            .header("x-forwarded-for", "192.0.2.1, 192.0.2.2");
        request.send().await.expect("an answer");
        let log = mesh.log();
        let of_request = format!("\"hops-{hops}\"");
        let line =
            log.lines().find(|line| line.contains(&of_request) && line.contains("\"answered\""));
        let line = line.unwrap_or_else(|| panic!("no log record of {of_request}"));
        assert!(line.contains(&format!("\"client.address\":\"{expected}\"")), "{line}");
        edge.hosted.running.stop().await;
    }
}

/// Twenty clients with ordinary traffic during an attack.
struct Ordinary {
    done: Arc<AtomicBool>,
    clients: JoinSet<Vec<Duration>>,
}

impl Ordinary {
    async fn start(mesh: &TestMesh, edge: &Edge) -> Self {
        let alice: Client = edge.client(&mesh.client("alice").await);
        let done = Arc::new(AtomicBool::new(false));
        let mut clients = JoinSet::new();
        for _ in 0..20 {
            let (client, done) = (alice.clone(), Arc::clone(&done));
            clients.spawn(async move {
                let mut times = Vec::new();
                while times.is_empty() || !done.load(Ordering::Relaxed) {
                    let started = Instant::now();
                    let reply = client.call("ping", json!({})).await;
                    assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
                    times.push(started.elapsed());
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                times
            });
        }
        Self { done, clients }
    }

    /// Stops the clients and prints their latencies. Panics if any call failed.
    #[expect(clippy::print_stderr, reason = "the output shows the latencies")]
    async fn stop(self, during: &str) {
        self.done.store(true, Ordering::Relaxed);
        let mut times = self.clients.join_all().await.concat();
        times.sort_unstable();
        let percentile = |part: usize| times[(times.len() - 1) * part / 100];
        eprintln!(
            "{during}: 20 ordinary clients made {} calls, median {:?}, p99 {:?}, all answered",
            times.len(),
            percentile(50),
            percentile(99)
        );
    }
}

async fn connect(edge: &Edge) -> TcpStream {
    TcpStream::connect(edge.hosted.running.address.to_string()).await.expect("a connection")
}

/// Reads until the server closes the connection.
async fn read_to_close(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let reading = tokio::time::timeout(STEP_TIMEOUT, stream.read_to_end(&mut bytes)).await;
    // A reset closes the connection too.
    let _ = reading.expect("a connection that the server closes");
    bytes
}
