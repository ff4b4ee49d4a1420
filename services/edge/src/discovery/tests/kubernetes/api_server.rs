use std::{
    collections::BTreeMap,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{RawQuery, State},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header::AUTHORIZATION};
use serde_json::{Value, json};
use tokio::{runtime::Runtime, sync::watch};
use url::Url;

use crate::discovery::tests::harness::{FREE_PORT, PATIENCE, TestService};

/// How the server differs from one that works.
#[derive(Clone, Debug)]
pub(super) struct Behaviour {
    pub(super) token: &'static str,
    pub(super) is_forbidden: bool,
    pub(super) page_services: usize,
    /// Whether a version that has expired is reported by a message, rather than by the status.
    pub(super) is_expiry_in_stream: bool,
    /// Whether a watch ends within its next message.
    pub(super) are_messages_cut: bool,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            token: "first",
            is_forbidden: false,
            page_services: 100,
            is_expiry_in_stream: true,
            are_messages_cut: false,
        }
    }
}

#[derive(Debug, Default)]
struct Stored {
    services: BTreeMap<String, Value>,
    created: usize,
    version: usize,
    /// The messages of watches, by their version.
    history: Vec<(usize, String)>,
    /// Watches cannot begin before this version.
    oldest: usize,
    /// The version up to which the watches of each generation were served, before they ended.
    ends: Vec<usize>,
    requests: Vec<String>,
    behaviour: Behaviour,
}

/// Serves the Services of the namespace `tools`.
pub(super) struct TestApiServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

struct Shared {
    stored: Mutex<Stored>,
    changed: watch::Sender<()>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Stored> {
        self.stored.lock().unwrap()
    }

    fn change(&self, change: impl FnOnce(&mut Stored)) {
        change(&mut self.lock());
        self.changed.send_replace(());
    }
}

impl Stored {
    fn record(&mut self, kind: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let message = json!({ "type": kind, "object": object });
        self.history.push((self.version, format!("{message}\n")));
        object
    }
}

impl TestApiServer {
    pub(super) async fn start() -> Self {
        let shared = Shared { stored: Mutex::default(), changed: watch::channel(()).0 };
        let mut server = Self { address: FREE_PORT, shared: Arc::new(shared), runtime: None };
        server.restart().await;
        server
    }

    pub(super) fn url(&self) -> Url {
        format!("http://{}", self.address).parse().unwrap()
    }

    /// Serves again, at the same address.
    pub(super) async fn restart(&mut self) {
        // Its own runtime, so that its end closes all its connections.
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let (runtime, address) = (runtime.unwrap(), self.address);
        let listener = runtime.spawn(async move { tokio::net::TcpListener::bind(address).await });
        let listener = listener.await.unwrap().unwrap();
        self.address = listener.local_addr().unwrap();
        let routes = Router::new()
            .route("/api/v1/namespaces/tools/services", get(serve))
            .with_state(Arc::clone(&self.shared));
        runtime.spawn(async move { axum::serve(listener, routes).await });
        self.runtime = Some(runtime);
    }

    /// Stops, and closes all connections.
    pub(super) fn stop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        // On another thread: a runtime must not block in another one.
        std::thread::spawn(move || runtime.shutdown_timeout(PATIENCE)).join().unwrap();
    }

    pub(super) fn behave(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.shared.lock().behaviour);
    }

    /// Creates or changes a Service with this label, at the address of a service.
    pub(super) fn set(&self, name: &str, label: &str, service: &TestService) {
        self.shared.change(|stored| {
            let (kind, created) = match stored.services.get(name) {
                Some(before) => ("MODIFIED", before["metadata"]["creationTimestamp"].clone()),
                None => {
                    stored.created += 1;
                    ("ADDED", json!(format!("2026-11-30T10:00:{:02}Z", stored.created)))
                }
            };
            let object = json!({
                "kind": "Service",
                "metadata": {
                    "name": name,
                    "namespace": "tools",
                    "creationTimestamp": created,
                    "labels": { "drawbridge.dev/namespace": label, "app": name },
                    "managedFields": [{ "manager": "kubectl" }],
                },
                "spec": {
                    "type": "ClusterIP",
                    "clusterIP": "None",
                    "ports": [{ "name": "grpc", "port": service.address.port(), "targetPort": "grpc" }],
                },
                "status": { "loadBalancer": {} },
            });
            let object = stored.record(kind, object);
            stored.services.insert(name.to_owned(), object);
        });
    }

    /// Deletes a Service, or its label.
    pub(super) fn delete(&self, name: &str) {
        self.shared.change(|stored| {
            let object = stored.services.remove(name).unwrap();
            stored.record("DELETED", object);
        });
    }

    /// Sends a bookmark, and returns its version.
    pub(super) fn bookmark(&self) -> usize {
        self.shared.change(|stored| {
            stored.record("BOOKMARK", json!({ "kind": "Service", "metadata": {} }));
        });
        self.shared.lock().version
    }

    /// Ends the watches that run once they have served every change before, as the server does
    /// after `timeoutSeconds`.
    pub(super) fn end_watches(&self) {
        self.shared.change(|stored| stored.ends.push(stored.version));
    }

    /// Ends the watches and makes changes that later ones cannot begin before.
    pub(super) fn compact_with(&self, changes: impl FnOnce()) {
        self.end_watches();
        changes();
        self.shared.change(|stored| stored.oldest = stored.version);
    }

    /// The queries of all requests.
    pub(super) fn requests(&self) -> Vec<String> {
        self.shared.lock().requests.clone()
    }

    /// How often Services were listed.
    pub(super) fn lists(&self) -> usize {
        self.requests().iter().filter(|query| !query.contains("watch=true")).count()
    }
}

impl Drop for TestApiServer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn status(code: StatusCode, message: &str) -> Response {
    let body = json!({ "kind": "Status", "code": code.as_u16(), "message": message });
    (code, body.to_string()).into_response()
}

async fn serve(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    let query = query.unwrap_or_default();
    let mut stored = shared.lock();
    stored.requests.push(query.clone());
    let behaviour = stored.behaviour.clone();
    let token = headers.get(AUTHORIZATION).and_then(|token| token.to_str().ok());
    if token != Some(&format!("Bearer {}", behaviour.token)) {
        return status(StatusCode::UNAUTHORIZED, "Unauthorized");
    }
    if behaviour.is_forbidden {
        return status(StatusCode::FORBIDDEN, "services is forbidden: User \"edge\" cannot list");
    }
    let parameters: BTreeMap<_, _> = url::form_urlencoded::parse(query.as_bytes()).collect();
    if !parameters.contains_key("watch") {
        let start = parameters.get("continue").and_then(|at| at.parse().ok()).unwrap_or(0);
        let size = behaviour.page_services;
        let items: Vec<_> = stored.services.values().skip(start).take(size).collect();
        let end = start + items.len();
        let next = if end < stored.services.len() { end.to_string() } else { String::new() };
        let metadata = json!({ "resourceVersion": stored.version.to_string(), "continue": next });
        let list = json!({ "kind": "ServiceList", "metadata": metadata, "items": items });
        return list.to_string().into_response();
    }
    let version: usize = parameters["resourceVersion"].parse().unwrap();
    if version < stored.oldest {
        let message = "too old resource version";
        if !behaviour.is_expiry_in_stream {
            return status(StatusCode::GONE, message);
        }
        let object =
            json!({ "kind": "Status", "code": 410, "reason": "Expired", "message": message });
        return format!("{}\n", json!({ "type": "ERROR", "object": object })).into_response();
    }
    let generation = stored.ends.len();
    drop(stored);
    Body::from_stream(messages(shared, version, generation)).into_response()
}

/// The messages after a version.
fn messages(
    shared: Arc<Shared>,
    version: usize,
    generation: usize,
) -> impl futures::Stream<Item = Result<Bytes, Infallible>> + Send {
    let changed = shared.changed.subscribe();
    let start = (shared, changed, version, false);
    futures::stream::unfold(start, move |(shared, mut changed, version, is_cut)| async move {
        if is_cut {
            // The first half leaves before the connection ends.
            tokio::time::sleep(Duration::from_millis(50)).await;
            return None;
        }
        loop {
            {
                let mut stored = shared.lock();
                let end = stored.ends.get(generation).copied();
                let is_due = |at: usize| at > version && end.is_none_or(|end| at <= end);
                let next = stored.history.iter().find(|(at, _)| is_due(*at)).cloned();
                if let Some((at, message)) = next {
                    let is_cut = std::mem::take(&mut stored.behaviour.are_messages_cut);
                    let length = if is_cut { message.len() / 2 } else { message.len() };
                    let message = Bytes::from(message).slice(..length);
                    drop(stored);
                    return Some((Ok(message), (shared, changed, at, is_cut)));
                }
                if end.is_some() {
                    return None;
                }
            }
            changed.changed().await.ok()?;
        }
    })
}
