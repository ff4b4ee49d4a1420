//! Lists and watches Services at Kubernetes' API server.

use std::{io, path::PathBuf, time::Duration};

use bytes::{Buf as _, BytesMut};
use drawbridge_runtime::{
    bounded::{self, BodyError},
    is_loopback,
    tls::PEM_BYTES_MAX,
};
use http::StatusCode;
use reqwest::{Certificate, RequestBuilder, Response, redirect::Policy};
use url::Url;

use super::{
    KubernetesError, KubernetesNamespace, LABEL,
    service::{Service, ServiceList, Status, Versioned, WatchEvent},
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A list that takes longer has failed.
const LIST_TIMEOUT: Duration = Duration::from_secs(20);
/// How long the API server serves one watch, in seconds.
const WATCH_SECONDS: u64 = 300;
/// Without a message for this long the connection is lost. The API server sends a bookmark each
/// minute.
const WATCH_SILENCE_MAX: Duration = Duration::from_secs(150);
const TOKEN_BYTES_MAX: u64 = 64 * 1024;
/// Services of one page.
const PAGE_SERVICES: &str = "250";
const PAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The largest message of a watch. An object in Kubernetes has at most 1.5 MiB.
const EVENT_BYTES_MAX: usize = 4 * 1024 * 1024;
const STATUS_BYTES_MAX: usize = 64 * 1024;
/// The longest part of a message of the API server in a log.
const MESSAGE_BYTES_MAX: usize = 512;
/// Labelled Services of one namespace of Kubernetes.
pub(super) const SERVICES_MAX: usize = 1000;

/// Where the API server is.
#[derive(Clone, Debug)]
pub(super) struct ApiServer {
    url: Url,
    credentials: PathBuf,
}

/// Why Services could not be listed, or a watch ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum WatchError {
    #[error("cannot read {}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("the request to the API server failed")]
    Http(#[source] reqwest::Error),
    #[error("the API server answered {status}: {message}")]
    Status { status: StatusCode, message: String },
    #[error("the response of the API server could not be read")]
    Body(#[from] BodyError),
    #[error("the response of the API server is not what Kubernetes sends")]
    Malformed(#[from] serde_json::Error),
    #[error("a message of the watch has more than {EVENT_BYTES_MAX} bytes")]
    EventTooLarge,
    #[error("the watch ended within a message")]
    Truncated,
    #[error("more than {SERVICES_MAX} Services have the label")]
    TooMany,
    /// The version to watch from is too old. A list begins again.
    #[error("the API server does not have the changes since the last list any more")]
    Expired,
    /// The API server ended the watch at once.
    #[error("the API server ended the watch early")]
    Ended,
}

impl WatchError {
    /// Whether something is wrong, rather than that a list is due.
    pub(super) fn is_failure(&self) -> bool {
        !matches!(self, Self::Expired | Self::Ended)
    }

    /// What anyone with access to the admin port may read.
    pub(super) fn brief(&self) -> String {
        match self {
            Self::Status { status, .. } => format!("the API server answered {status}"),
            Self::Http(_) => "the API server cannot be reached".to_owned(),
            error => error.to_string(),
        }
    }
}

impl ApiServer {
    pub(super) fn new(url: Url, credentials: PathBuf) -> Result<Self, KubernetesError> {
        if url.scheme() == "https" || is_loopback(&url) {
            Ok(Self { url, credentials })
        } else {
            Err(KubernetesError::Plaintext(url))
        }
    }

    /// Reads the authorities, and returns a client that trusts no others.
    pub(super) async fn connect(
        &self,
        namespace: &KubernetesNamespace,
    ) -> Result<Connection, WatchError> {
        let mut client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(WATCH_SILENCE_MAX)
            .tcp_keepalive(Duration::from_secs(15))
            // The token is for this server only.
            .redirect(Policy::none())
            .no_proxy();
        if self.url.scheme() == "https" {
            let authorities = self.read("ca.crt", PEM_BYTES_MAX).await?;
            let authorities = Certificate::from_pem_bundle(&authorities);
            client = client.tls_certs_only(authorities.map_err(WatchError::Http)?);
        }
        let http = client.build().map_err(WatchError::Http)?;
        let mut url = self.url.clone();
        url.set_path(&format!("/api/v1/namespaces/{}/services", namespace.as_str()));
        Ok(Connection { api: self.clone(), http, url })
    }

    async fn read(&self, name: &str, bytes_max: u64) -> Result<Vec<u8>, WatchError> {
        let path = self.credentials.join(name);
        let bytes = bounded::read_file_async(&path, bytes_max).await;
        bytes.map_err(|source| WatchError::File { path, source })
    }

    /// The token, which the kubelet replaces before it expires.
    async fn token(&self) -> Result<String, WatchError> {
        let token = self.read("token", TOKEN_BYTES_MAX).await?;
        Ok(String::from_utf8_lossy(&token).trim().to_owned())
    }
}

/// A client of one namespace's Services.
#[derive(Debug)]
pub(super) struct Connection {
    api: ApiServer,
    http: reqwest::Client,
    url: Url,
}

impl Connection {
    /// The labelled Services, and the version of the list.
    pub(super) async fn list(&self) -> Result<(String, Vec<Service>), WatchError> {
        let (mut services, mut next) = (Vec::new(), String::new());
        loop {
            let query = [("limit", PAGE_SERVICES), ("continue", &next)];
            let request = self.http.get(self.url.clone()).query(&query).timeout(LIST_TIMEOUT);
            let response = http::Response::from(self.send(request).await?);
            let body = bounded::read_body(response.into_body(), PAGE_BYTES_MAX).await?;
            let page: ServiceList = serde_json::from_slice(&body)?;
            services.extend(page.items.into_iter().flatten());
            if services.len() > SERVICES_MAX {
                return Err(WatchError::TooMany);
            }
            match page.metadata.next.filter(|next| !next.is_empty()) {
                Some(token) => next = token,
                None => return Ok((page.metadata.resource_version, services)),
            }
        }
    }

    /// Watches the labelled Services for changes after this version.
    pub(super) async fn watch(&self, version: &str) -> Result<EventStream, WatchError> {
        // Not all edges at once.
        let seconds = rand::random_range(WATCH_SECONDS / 2..=WATCH_SECONDS).to_string();
        let query = [
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", version),
            ("timeoutSeconds", &seconds),
        ];
        let response = self.send(self.http.get(self.url.clone()).query(&query)).await?;
        Ok(EventStream { response, buffer: BytesMut::new() })
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, WatchError> {
        let request =
            request.query(&[("labelSelector", LABEL)]).bearer_auth(self.api.token().await?);
        let response = request.send().await;
        let response = response.map_err(|error| WatchError::Http(error.without_url()))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = http::Response::from(response).into_body();
        let body = bounded::read_body(body, STATUS_BYTES_MAX).await.unwrap_or_default();
        let details: Status = serde_json::from_slice(&body).unwrap_or_default();
        Err(failure(status, details.message))
    }
}

fn failure(status: StatusCode, mut message: String) -> WatchError {
    if status == StatusCode::GONE {
        return WatchError::Expired;
    }
    message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
    WatchError::Status { status, message }
}

/// The messages of a watch, one in each line.
#[derive(Debug)]
pub(super) struct EventStream {
    response: Response,
    buffer: BytesMut,
}

/// A message of a watch.
#[derive(Debug)]
pub(super) enum Change {
    /// The Service is new or changed.
    Set(Service),
    /// It was deleted, or does not have the label any more.
    Deleted(Service),
    /// Nothing changed until this version.
    Bookmark,
}

impl EventStream {
    /// The next change, and the version after it. `None`: the API server ended the watch.
    pub(super) async fn next(&mut self) -> Result<Option<(Change, String)>, WatchError> {
        loop {
            let Some(line) = self.line().await? else { return Ok(None) };
            let event: WatchEvent = serde_json::from_slice(&line)?;
            let object = event.object.get();
            let change = match event.kind.as_str() {
                "ADDED" | "MODIFIED" => Change::Set(serde_json::from_str(object)?),
                "DELETED" => Change::Deleted(serde_json::from_str(object)?),
                "BOOKMARK" => Change::Bookmark,
                "ERROR" => {
                    let Status { code, message } = serde_json::from_str(object)?;
                    let status = StatusCode::from_u16(code);
                    return Err(failure(
                        status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
                        message,
                    ));
                }
                // A later version of Kubernetes may have more.
                _ => continue,
            };
            let version: Versioned = serde_json::from_str(object)?;
            return Ok(Some((change, version.metadata.resource_version)));
        }
    }

    async fn line(&mut self) -> Result<Option<BytesMut>, WatchError> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.buffer[searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(searched + at);
                self.buffer.advance(1);
                if line.iter().all(u8::is_ascii_whitespace) {
                    searched = 0;
                    continue;
                }
                return Ok(Some(line));
            }
            searched = self.buffer.len();
            if searched > EVENT_BYTES_MAX {
                return Err(WatchError::EventTooLarge);
            }
            let chunk = self.response.chunk().await;
            match chunk.map_err(|error| WatchError::Http(error.without_url()))? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(WatchError::Truncated),
            }
        }
    }
}
