use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use url::Url;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(20);

/// A service's address cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {url} as a gRPC address")]
pub struct ChannelError {
    url: Url,
    source: tonic::transport::Error,
}

/// A channel that connects when first used, stays warm, and connects again when it breaks.
///
/// # Errors
/// When the URL is not one that gRPC can use.
pub fn connect(url: &Url) -> Result<Channel, ChannelError> {
    let endpoint =
        Endpoint::from_shared(url.to_string()).map_err(|source| ChannelError { url: url.clone(), source })?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true)
        .connect_lazy())
}
