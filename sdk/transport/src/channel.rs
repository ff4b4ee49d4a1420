use std::{
    io, mem,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::Uri;
use hyper_util::rt::TokioIo;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;
use url::Url;

use self::replicas::Origin;
pub use self::{
    balanced::BalancedChannel,
    documents::{ReplicaDocument, ReplicaDocuments},
    replica::{Replica, ReplicaChannel, ReplicaFollower},
    replicas::ReplicaCounts,
};
use crate::{
    metrics::CLIENT_HANDSHAKES_FAILED,
    mtls::{Connector, MtlsError, Peers, handshake_failure},
};
use drawbridge_runtime::socket::SocketPathError;

mod balanced;
mod documents;
mod peers;
mod replica;
mod replicas;
mod send;
mod status_headers;
#[cfg(test)]
mod tests;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// The largest headers, and the largest trailers, of a response, in bytes: a status with its
/// message, percent-encoded, and its details. The limit is announced to servers, some of which send
/// nothing larger.
const RESPONSE_HEADERS_BYTES_MAX: u32 = 1024 * 1024;

/// A service's address cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// gRPC cannot use the URL.
    #[error("cannot use {url} as a gRPC address")]
    Url {
        /// The URL.
        url: Url,
        /// What is wrong with it.
        source: tonic::transport::Error,
    },
    /// The URL is not just the address of a gRPC server.
    #[error(
        "invalid gRPC address {url} (expected https://host:port, http://host:port or unix:/path)"
    )]
    Form {
        /// The URL.
        url: Url,
    },
    /// The URL does not name a valid socket.
    #[error("invalid gRPC address")]
    Socket(#[from] SocketPathError),
    /// TLS requires a certificate for this service.
    #[error(
        "cannot use {url}: https between services needs a certificate (--mtls-certificate-file)"
    )]
    NoCertificate {
        /// The URL.
        url: Url,
    },
    /// Services do not use plaintext beyond this machine.
    #[error("{url} is plaintext beyond loopback: use https, or allow it (--allow-plaintext)")]
    Plaintext {
        /// The URL.
        url: Url,
    },
    /// TLS cannot be set up.
    #[error("cannot set up TLS to other services")]
    Mtls(#[from] MtlsError),
    /// There is no URL.
    #[error("a service needs at least one URL")]
    Empty,
}

/// A plaintext channel to a service on this machine, over loopback. It connects on first use, stays
/// connected, and reconnects when the connection breaks.
///
/// # Errors
/// When gRPC cannot use the URL, or it leads beyond loopback.
pub fn connect(url: &Url) -> Result<Channel, ChannelError> {
    Peers::default().connect(url, "", None)
}

/// A channel to the peer that `connector` accepts at this URL.
pub(crate) fn connect_with(url: &Url, connector: Connector) -> Result<Channel, ChannelError> {
    let wrong = |source| ChannelError::Url { url: url.clone(), source };
    let endpoint = if url.scheme() == "unix" {
        Endpoint::from(Origin::new(url)?.uri)
    } else {
        Endpoint::from_shared(url.to_string()).map_err(wrong)?
    };
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_while_idle(true)
        .http2_max_header_list_size(RESPONSE_HEADERS_BYTES_MAX)
        .tcp_nodelay(true);
    if matches!(connector, Connector::Plaintext) && url.scheme() != "unix" {
        return Ok(endpoint.connect_lazy());
    }
    let (origin, reporter) = (Arc::new(Origin::new(url)?), Arc::new(HandshakeReporter::default()));
    Ok(endpoint.connect_with_connector_lazy(service_fn(move |_: Uri| {
        let (origin, connector, reporter) =
            (Arc::clone(&origin), connector.clone(), Arc::clone(&reporter));
        async move {
            let connected = origin.connect(&connector).await;
            reporter.report(&origin.host, connected.as_ref().err());
            Ok::<_, io::Error>(TokioIo::new(connected?))
        }
    })))
}

/// Reports failed handshakes. A warning is logged only when the reason changes.
#[derive(Debug, Default)]
struct HandshakeReporter {
    last_reason: Mutex<Option<&'static str>>,
}

impl HandshakeReporter {
    fn report(&self, host: &str, failed: Option<&io::Error>) {
        let failed = failed.and_then(|error| Some((handshake_failure(error)?, error)));
        let reason = failed.map(|(reason, _)| reason);
        let before = mem::replace(
            &mut *self.last_reason.lock().unwrap_or_else(PoisonError::into_inner),
            reason,
        );
        if let Some((reason, error)) = failed {
            CLIENT_HANDSHAKES_FAILED.with([reason.into()]).increment(1);
            if before != Some(reason) {
                tracing::warn!(host, reason, %error, "a service failed authentication");
            }
        }
    }
}
