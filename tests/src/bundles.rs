//! Servers of policy bundles: an OCI registry, and an HTTP server of files.

use std::{
    collections::HashMap,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use axum::{
    Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio_util::task::AbortOnDropHandle;

use crate::tools::{program, tools};

/// A real OCI registry in memory (go-containerregistry's).
#[derive(Debug)]
pub struct OciRegistry {
    process: Child,
    /// Where it serves, as `127.0.0.1:port`.
    pub address: String,
}

impl OciRegistry {
    /// Starts a registry. With a user, as `name:password`, each request needs a token that its own
    /// token server issues.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(user: Option<&str>) -> Self {
        let mut command = Command::new(program(tools().join("registry/registry")));
        command.args(user.map(|user| format!("-user={user}"))).stdout(Stdio::piped());
        let mut process = command.spawn().expect("the registry");
        let mut address = String::new();
        let output = process.stdout.take().expect("its output");
        BufReader::new(output).read_line(&mut address).expect("its address");
        Self { process, address: address.trim().to_owned() }
    }
}

impl Drop for OciRegistry {
    fn drop(&mut self) {
        // The error of an exited process is ignored.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// An HTTP server of files that accepts PUT, with ETags.
#[derive(Debug)]
pub struct FileServer {
    /// Where it serves.
    pub address: SocketAddr,
    files: Files,
    serving: Option<AbortOnDropHandle<()>>,
}

#[derive(Clone, Debug, Default)]
struct Files {
    files: Arc<Mutex<HashMap<String, Bytes>>>,
    not_modified: Arc<AtomicUsize>,
}

impl FileServer {
    /// Starts a server without files.
    ///
    /// # Panics
    /// When there is no free port.
    pub async fn start() -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Self { address, files: Files::default(), serving: None };
        server.restart().await;
        server
    }

    /// Starts it again on the same port, with the same files.
    ///
    /// # Panics
    /// When the port is taken.
    pub async fn restart(&mut self) {
        let listener = tokio::net::TcpListener::bind(self.address).await.expect("a port");
        self.address = listener.local_addr().expect("an address");
        let routes = Router::new().route("/{name}", get(read).put(write));
        let routes = routes.with_state(self.files.clone());
        let serving = async move { axum::serve(listener, routes).await.expect("a server") };
        self.serving = Some(AbortOnDropHandle::new(tokio::spawn(serving)));
    }

    /// Stops it.
    pub fn stop(&mut self) {
        self.serving = None;
    }

    /// The URL of a file.
    pub fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.address)
    }

    /// Changes the content of a file.
    pub fn edit(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut files = self.files.files.lock().unwrap_or_else(PoisonError::into_inner);
        let file = files.entry(name.to_owned()).or_default();
        let mut content = file.to_vec();
        change(&mut content);
        *file = content.into();
    }

    /// How many requests were answered by `304 Not Modified`.
    pub fn not_modified(&self) -> usize {
        self.files.not_modified.load(Ordering::Relaxed)
    }
}

async fn read(
    State(server): State<Files>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Response {
    let files = server.files.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(file) = files.get(&name) else { return StatusCode::NOT_FOUND.into_response() };
    let etag = format!("\"{:x?}\"", &Sha256::digest(file)[..8]);
    if headers.get(header::IF_NONE_MATCH).is_some_and(|known| *known == *etag) {
        server.not_modified.fetch_add(1, Ordering::Relaxed);
        return StatusCode::NOT_MODIFIED.into_response();
    }
    ([(header::ETAG, etag)], file.clone()).into_response()
}

async fn write(
    State(server): State<Files>,
    Path(name): Path<String>,
    content: Bytes,
) -> StatusCode {
    server.files.lock().unwrap_or_else(PoisonError::into_inner).insert(name, content);
    StatusCode::CREATED
}
