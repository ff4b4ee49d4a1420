//! The response cache: two edges, one Redis, and a tool service that counts its calls.

use std::{fs, path::PathBuf};

use drawbridge_mesh::{HostedService, MeshConfig};
use drawbridge_tests::{
    Client, Edge, REPLICA_SECRET, Redis, Reply, TestIssuer, TestMesh, cached::Cached, serve_cached,
};
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::limits::{metric, until};

mod entries;
mod isolation;
mod outages;
mod writes;

/// Generous: the speed of Redis is not under test.
const SETTINGS: &str = "[cache]\nredis_timeout_ms = 5000\n";

/// A mesh, the service with cacheable results, and replicas of the edge in front of it.
struct CacheTest {
    mesh: TestMesh,
    issuer: TestIssuer,
    service: Cached,
    _hosted: HostedService,
    redis: Option<Redis>,
    edges: Vec<Edge>,
    folder: TempDir,
}

impl CacheTest {
    /// Starts the replicas; several share a Redis.
    async fn start(replicas: usize) -> Self {
        Self::with(replicas, |_| {}).await
    }

    async fn with(replicas: usize, change: impl FnOnce(&mut MeshConfig)) -> Self {
        let redis = if replicas > 1 { Some(Redis::start().await) } else { None };
        let mut test =
            Self::over(replicas, redis.as_ref().map(|redis| redis.url.as_str()), change).await;
        test.redis = redis;
        test
    }

    /// Starts replicas that share the Redis at this URL.
    async fn over(
        replicas: usize,
        redis_url: Option<&str>,
        change: impl FnOnce(&mut MeshConfig),
    ) -> Self {
        let issuer = TestIssuer::start().await;
        let mesh = TestMesh::with(|config| {
            serve_cached(config);
            let file = config.policies.join("issuers.toml");
            let entry = format!(
                "[[issuers]]\nissuer = \"{}\"\nallow_private_addresses = true\ntenants = [\"*\"]\n",
                issuer.name()
            );
            fs::write(&file, entry).expect("a file");
            config.issuers = Some(file);
            change(config);
        })
        .await;
        let (service, hosted, url) = mesh.cached().await;
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("edge.toml"), SETTINGS).expect("a file");
        let mut edges = Vec::new();
        for _ in 0..replicas {
            let change = |config: &mut drawbridge_edge::Config| {
                config.secret = Some(REPLICA_SECRET.into());
                config.redis_url = redis_url.map(Into::into);
                config.config = Some(folder.path().join("edge.toml"));
            };
            edges.push(mesh.edge(&[("cached", &url)], change).await);
        }
        let test = Self { mesh, issuer, service, _hosted: hosted, redis: None, edges, folder };
        if redis_url.is_some() {
            test.wait_for_redis(true).await;
        }
        test
    }

    /// Waits until every replica has connected to Redis, or has lost it.
    async fn wait_for_redis(&self, available: bool) {
        let wanted = if available { "1" } else { "0" };
        for edge in &self.edges {
            until("Redis", async || {
                metric(edge, "edge_cache_redis_available").await.as_deref() == Some(wanted)
            })
            .await;
        }
    }

    fn config(&self) -> PathBuf {
        self.folder.path().join("edge.toml")
    }

    /// A client of one replica, for a subject of a tenant.
    fn client(&self, edge: usize, subject: &str, tenant: &str) -> Client {
        let mut claims = self.issuer.claims(self.mesh.mesh.mcp_url.as_str());
        (claims["sub"], claims["tenant"]) = (json!(subject), json!(tenant));
        self.edges[edge]
            .client(&self.mesh.client_with(&self.issuer.sign(&self.issuer.header(), &claims)))
    }
}

/// The result of a call: the value, the number of the call at the service, and whether it is a
/// cache hit.
#[derive(Debug)]
struct CallResult {
    value: String,
    call: u64,
    hit: bool,
}

async fn call(client: &Client, tool: &str, arguments: Value) -> CallResult {
    call_result(&client.call_tool(&format!("cached_{tool}"), arguments).await)
}

fn call_result(reply: &Reply) -> CallResult {
    assert_eq!(reply.status, StatusCode::OK, "{reply:?}");
    let result = &reply.json["result"];
    let content = &result["structuredContent"];
    CallResult {
        value: content["value"].as_str().unwrap_or_else(|| panic!("{reply:?}")).to_owned(),
        call: content["call"].as_u64().unwrap_or_else(|| panic!("{reply:?}")),
        hit: is_hit(reply),
    }
}

fn is_hit(reply: &Reply) -> bool {
    let meta = &reply.json["result"]["_meta"]["drawbridge/cache"];
    let hit = meta["hit"].as_bool().unwrap_or_else(|| panic!("{reply:?}"));
    assert_eq!(hit, meta["ageMs"].is_u64(), "{reply:?}");
    hit
}

/// Reads a resource as a client of the newest revision.
async fn read(client: &Client, uri: &str) -> Reply {
    let message = json!({
        "jsonrpc": "2.0", "id": 1, "method": "resources/read",
        "params": {
            "uri": uri,
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientInfo": { "name": "test", "version": "1" },
                "io.modelcontextprotocol/clientCapabilities": {},
            },
        },
    });
    let uri = HeaderValue::from_str(uri).expect("a header");
    let request = client.post().body(message.to_string()).build().map(|mut request| {
        let headers = request.headers_mut();
        headers.insert("mcp-protocol-version", HeaderValue::from_static("2026-07-28"));
        headers.insert("mcp-method", HeaderValue::from_static("resources/read"));
        headers.insert("mcp-name", uri);
        request
    });
    client.send_built(request).await
}
