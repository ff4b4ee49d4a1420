use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use url::Url;

pub use self::balanced::BalancedChannel;

mod balanced;
mod replicas;
#[cfg(test)]
mod tests;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);

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
    #[error("cannot use {url} as a gRPC address: it must be http://host:port and nothing more")]
    Form {
        /// The URL.
        url: Url,
    },
    /// There is no URL.
    #[error("a service needs at least one URL")]
    Empty,
}

/// A channel that connects when first used, stays warm, and connects again when it breaks.
///
/// # Errors
/// When the URL is not one that gRPC can use.
pub fn connect(url: &Url) -> Result<Channel, ChannelError> {
    let endpoint = Endpoint::from_shared(url.to_string())
        .map_err(|source| ChannelError::Url { url: url.clone(), source })?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true)
        .connect_lazy())
}
