use std::{
    io, mem,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::Uri;
use hyper_util::rt::TokioIo;
use metrics::counter;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;
use url::Url;

pub use self::balanced::BalancedChannel;
use self::replicas::Origin;
use crate::{
    mtls::{Dial, MtlsError, Peers, handshake_failure},
    socket::SocketPathError,
};

mod balanced;
mod replicas;
mod status_headers;
#[cfg(test)]
mod tests;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// The most headers that an answer may have, and the most trailers, in bytes: a status with its message, percent-encoded,
/// and its details. It is announced to servers, some of which send nothing larger.
const ANSWER_HEADERS_BYTES_MAX: u32 = 1024 * 1024;

/// A service's address cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The URL is none that gRPC can use.
    #[error("cannot use {url} as a gRPC address")]
    Url {
        /// The URL.
        url: Url,
        /// What is wrong with it.
        source: tonic::transport::Error,
    },
    /// The URL says more or less than where a gRPC server is.
    #[error(
        "cannot use {url} as a gRPC address: it must be https://host:port, http://host:port or unix:/path and nothing more"
    )]
    Form {
        /// The URL.
        url: Url,
    },
    /// The URL names no socket.
    #[error("cannot use it as a gRPC address")]
    Socket(#[from] SocketPathError),
    /// TLS needs a certificate of one's own.
    #[error(
        "cannot use {url}: https between services needs a certificate (--mtls-certificate-file)"
    )]
    NoCertificate {
        /// The URL.
        url: Url,
    },
    /// What services tell one another does not leave this machine in plaintext.
    #[error("{url} is plaintext beyond loopback: use https, or allow it (--allow-plaintext)")]
    Plaintext {
        /// The URL.
        url: Url,
    },
    /// TLS cannot be set up.
    #[error("cannot speak TLS to other services")]
    Mtls(#[from] MtlsError),
    /// There is no URL.
    #[error("a service needs at least one URL")]
    Empty,
}

/// A channel in plaintext to a service on this machine, by loopback. It connects when first used, stays warm, and connects
/// again when it breaks.
///
/// # Errors
/// When the URL is not one that gRPC can use, or leads beyond loopback.
pub fn connect(url: &Url) -> Result<Channel, ChannelError> {
    Peers::default().connect(url, "", None)
}

/// A channel to whoever `dial` accepts at this URL.
pub(crate) fn connect_by(url: &Url, dial: Dial) -> Result<Channel, ChannelError> {
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
        .http2_max_header_list_size(ANSWER_HEADERS_BYTES_MAX)
        .tcp_nodelay(true);
    if matches!(dial, Dial::Plaintext) && url.scheme() != "unix" {
        return Ok(endpoint.connect_lazy());
    }
    let (origin, handshakes) = (Arc::new(Origin::new(url)?), Arc::new(Handshakes::default()));
    Ok(endpoint.connect_with_connector_lazy(service_fn(move |_: Uri| {
        let (origin, dial, handshakes) =
            (Arc::clone(&origin), dial.clone(), Arc::clone(&handshakes));
        async move {
            let connected = origin.connect(&dial).await;
            handshakes.tell(&origin.host, connected.as_ref().err());
            Ok::<_, io::Error>(TokioIo::new(connected?))
        }
    })))
}

/// Tells the operator, once, that a server is not who it should be.
#[derive(Debug, Default)]
struct Handshakes {
    told: Mutex<Option<&'static str>>,
}

impl Handshakes {
    fn tell(&self, host: &str, failed: Option<&io::Error>) {
        let failed = failed.and_then(|error| Some((handshake_failure(error)?, error)));
        let reason = failed.map(|(reason, _)| reason);
        let before =
            mem::replace(&mut *self.told.lock().unwrap_or_else(PoisonError::into_inner), reason);
        if let Some((reason, error)) = failed {
            counter!("grpc_client_handshakes_failed_total", "reason" => reason).increment(1);
            if before != Some(reason) {
                tracing::warn!(host, reason, %error, "a service is not believed");
            }
        }
    }
}
