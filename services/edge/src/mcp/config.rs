//! The bounds of event streams.

/// The bounds of open streams and their buffers.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Event streams")]
pub struct StreamsConfig {
    /// The most streams that subscribed clients have open on this replica: GET and
    /// `subscriptions/listen`.
    #[arg(long, default_value_t = 10_000)]
    pub streams_max: usize,

    /// The most of them that one principal has open on this replica.
    #[arg(long, default_value_t = 64)]
    pub streams_per_principal_max: usize,

    /// The most resources that clients watch at once on this replica. Each watch is one call of its
    /// tool service.
    #[arg(long, default_value_t = 512)]
    pub watches_max: usize,

    /// The most of them that one principal watches on this replica.
    #[arg(long, default_value_t = 128)]
    pub watches_per_principal_max: usize,

    /// The most events of one stream that are buffered for a client that reads slowly or
    /// reconnects.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    pub stream_events_max: u32,

    /// The most bytes of events that are buffered for one stream. The last event is buffered
    /// whatever its size.
    #[arg(long, default_value_t = 1024 * 1024)]
    pub stream_bytes_max: usize,

    /// The most bytes of events that are buffered on this replica. Beyond that, nothing is retained
    /// for clients that reconnect.
    #[arg(long, default_value_t = 64 * 1024 * 1024)]
    pub streams_bytes_max: usize,

    /// After how long a call without a response opens an event stream, and how often that stream
    /// then sends a keep-alive comment, in milliseconds. Set it below the idle timeout of proxies.
    #[arg(long, default_value_t = 3_000)]
    pub stream_quiet_ms: u64,

    /// How often the stream of a subscribed client sends a keep-alive comment, in milliseconds.
    #[arg(long, default_value_t = 15_000, value_parser = clap::value_parser!(u64).range(100..))]
    pub stream_keep_alive_ms: u64,
}

impl Default for StreamsConfig {
    fn default() -> Self {
        drawbridge_runtime::parse_defaults(&[])
    }
}
