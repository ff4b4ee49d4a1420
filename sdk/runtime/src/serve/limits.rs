use std::time::Duration;

use crate::HandshakeLimits;

/// The limits of an HTTP server, per client and in total.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "HTTP server")]
pub struct HttpLimits {
    /// How many connections may be open. Further ones wait until one closes.
    #[arg(long, default_value_t = 16_384)]
    pub connections_max: usize,

    /// How long a connection may be without a request, and how long the headers of one may take, in
    /// milliseconds.
    #[arg(long, default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub idle_timeout_ms: u64,

    /// How long the body of a request may take, in milliseconds.
    #[arg(long, default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub body_timeout_ms: u64,

    /// How long a client may take to receive a part of a response, in milliseconds. Its connection
    /// is closed then.
    #[arg(long, default_value_t = 120_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub send_timeout_ms: u64,

    /// The limits of TLS handshakes.
    #[command(flatten)]
    pub handshakes: HandshakeLimits,
}

impl Default for HttpLimits {
    fn default() -> Self {
        crate::parse_defaults(&[])
    }
}

impl HttpLimits {
    /// Handshakes use at most half of the connections: otherwise a new connection that could evict
    /// a handshake would not be accepted.
    pub(super) fn handshakes(&self) -> HandshakeLimits {
        let handshakes_max = self.handshakes.handshakes_max.min(self.connections_max.div_ceil(2));
        HandshakeLimits { handshakes_max, ..self.handshakes.clone() }
    }

    pub(super) fn idle_timeout(&self) -> Duration {
        Duration::from_millis(self.idle_timeout_ms)
    }

    pub(super) fn send_timeout(&self) -> Duration {
        Duration::from_millis(self.send_timeout_ms)
    }

    pub(super) fn body_timeout(&self) -> Duration {
        Duration::from_millis(self.body_timeout_ms)
    }
}
