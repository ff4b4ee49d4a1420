//! The measured edges and their callers.

use std::{
    fs,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::body::{Body, Bytes};
use drawbridge_mesh::{HostedService, MeshConfig};
use drawbridge_runtime::{LogFormat, LogSink, TelemetryConfig, TracesSampler};
use drawbridge_tests::{
    Collector, Edge, REPLICA_SECRET, Redis, TestAuthority, TestMesh, serve_conformance,
};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::Mutex,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};
use url::Url;

use crate::{
    CONNECTIONS,
    load::{self, Load, Sample},
    rows::{Call, Duties, Row, Tracing},
};

/// A mesh with a tool that does nothing, and alice's token.
#[derive(Clone)]
pub(crate) struct World(Arc<Inner>);

struct Inner {
    mesh: TestMesh,
    hosted: HostedService,
    token: String,
}

impl World {
    pub(crate) async fn start(change: Option<fn(&mut MeshConfig)>) -> Self {
        let mesh = TestMesh::with(|config| {
            config.telemetry.log = "error".to_owned();
            config.mtls = false;
            serve_conformance(config);
            if let Some(change) = change {
                change(config);
            }
        })
        .await;
        let (_, hosted, edge) = mesh.conformance(|_| {}).await;
        edge.hosted.stop().await;
        let token = mesh.client("alice").await.token().to_owned();
        Self(Arc::new(Inner { mesh, hosted, token }))
    }

    /// Stops the mesh if this is its last user.
    pub(crate) async fn stop(self) {
        if let Ok(Inner { mesh, hosted, .. }) = Arc::try_unwrap(self.0).map_err(|_| ()) {
            hosted.stop().await;
            mesh.stop().await;
        }
    }
}

/// An edge with the duties of a row.
pub(crate) struct MeasuredEdge {
    pub(crate) row: Row,
    world: World,
    edge: Edge,
    tls: Option<TlsConnector>,
    callers: Mutex<Vec<Caller>>,
    calls: Arc<AtomicUsize>,
    /// Its config file and its certificate.
    _folder: TempDir,
}

impl MeasuredEdge {
    pub(crate) async fn start(
        world: World,
        duties: &Duties,
        redis: &Redis,
        authority: &TestAuthority,
    ) -> Self {
        let Duties { row, config: text } = duties;
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).expect("a file");
            path
        };
        // Like in production: with spans, which the log's level controls too, whether or not there
        // is an access log.
        let log = if row.access_log { "info" } else { "info,drawbridge_edge::request_log=error" };
        let (traces_sampler_arg, otlp_endpoint) = match row.tracing {
            None => (1.0, None),
            Some(Tracing { ratio, has_collector: true }) => {
                (ratio, Some(Collector::start_discarding().await))
            }
            // Nothing listens there.
            Some(Tracing { ratio, has_collector: false }) => {
                (ratio, Some("http://127.0.0.1:1".parse().expect("a URL")))
            }
        };
        let telemetry = TelemetryConfig {
            traces_sampler: TracesSampler::TraceIdRatio,
            traces_sampler_arg,
            otlp_endpoint,
            log: log.to_owned(),
            log_format: LogFormat::Json,
            log_sink: LogSink::File(Arc::new(tempfile::tempfile().expect("a file"))),
            ..TelemetryConfig::default()
        };
        let signed = authority.sign(&["127.0.0.1"]);
        let Inner { mesh, hosted, .. } = &*world.0;
        let test = mesh.grpc_url(&hosted.running.address);
        let code = &mesh.mesh.state.services["code"];
        let services = [("test", &test), ("code", code)];
        let edge = mesh.edge_with_telemetry(&telemetry, &services, |config| {
            config.config = Some(file("edge.toml", text));
            config.secret = Some(REPLICA_SECRET.into());
            if let Some(mode) = row.audit {
                config.audit.audit_log = Some(folder.path().join("audit"));
                config.audit.audit_mode = mode;
            }
            config.redis_url = row.redis.then(|| redis.url.as_str().into());
            if row.tls {
                config.tls_certificate_file = Some(file("tls.crt", &signed.certificate));
                config.tls_key_file = Some(file("tls.key", &signed.key));
            }
        });
        let edge = edge.await;
        let tls = row.tls.then(|| tls_connector(authority));
        Self {
            row: *row,
            world,
            edge,
            tls,
            callers: Mutex::default(),
            calls: Arc::default(),
            _folder: folder,
        }
    }

    /// Measures this edge under the load of its persistent connections for this duration.
    pub(crate) async fn sample(&self, lasts: Duration) -> Sample {
        let load = Load::new(CONNECTIONS, lasts);
        load.run_with(&mut *self.callers.lock().await, async || self.ready().await).await
    }

    /// The URL of public metadata.
    pub(crate) fn metadata_url(&self) -> Url {
        self.edge.url.join("/.well-known/oauth-protected-resource/mcp").expect("a URL")
    }

    /// A connection after one successful call.
    pub(crate) async fn ready(&self) -> Caller {
        let mut caller = self.connect().await;
        load::Caller::call(&mut caller).await;
        caller
    }

    /// Opens a new connection.
    async fn connect(&self) -> Caller {
        let address = self.edge.hosted.running.address.tcp().expect("an address");
        let stream = TcpStream::connect(address).await.expect("a server");
        stream.set_nodelay(true).expect("a socket");
        let sender = match &self.tls {
            None => handshake_http(stream).await,
            Some(tls) => {
                let name = ServerName::try_from("127.0.0.1").expect("a name");
                handshake_http(tls.connect(name, stream).await.expect("a handshake")).await
            }
        };
        let token = format!("Bearer {}", self.world.0.token);
        Caller { sender, address, token, call: self.row.call, calls: Arc::clone(&self.calls) }
    }

    pub(crate) async fn stop(self) {
        self.edge.hosted.stop().await;
        self.world.stop().await;
    }
}

fn tls_connector(authority: &TestAuthority) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(authority.pem.as_bytes()).expect("a certificate");
    roots.add(root).expect("an authority");
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions of TLS")
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

async fn handshake_http(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> SendRequest<Full<Bytes>> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("a connection");
    tokio::spawn(connection);
    sender
}

/// A caller of one edge.
pub(crate) struct Caller {
    sender: SendRequest<Full<Bytes>>,
    address: SocketAddr,
    token: String,
    call: Call,
    calls: Arc<AtomicUsize>,
}

impl Caller {
    /// Calls the tool and returns the response.
    pub(crate) async fn call_tool(&mut self) -> (StatusCode, Bytes) {
        let (tool, arguments) = self.call.of(self.calls.fetch_add(1, Ordering::Relaxed));
        let params = json!({ "name": tool, "arguments": arguments });
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
        let request = Request::post("/mcp")
            .header("host", self.address.to_string())
            .header("content-type", "application/json")
            .header("accept", "application/json, text/event-stream")
            .header("authorization", &self.token)
            .header("mcp-protocol-version", "2025-11-25")
            .body(Full::new(body.to_string().into()))
            .expect("a request");
        self.sender.ready().await.expect("a connection");
        let response = self.sender.send_request(request).await.expect("a response");
        let status = response.status();
        (status, Body::new(response.into_body()).collect().await.expect("a body").to_bytes())
    }
}

impl load::Caller for Caller {
    /// Calls the tool and checks its result.
    async fn call(&mut self) {
        let (status, body) = self.call_tool().await;
        let body = String::from_utf8_lossy(&body);
        assert!(status == StatusCode::OK && body.contains("\"content\""), "{status} {body}");
    }
}
