//! What clients may take of the edge's streams.

/// How many streams are open, and what their buffers hold.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Event streams")]
pub struct StreamsConfig {
    /// How many streams of clients that listen this replica has open: GET and `subscriptions/listen`.
    #[arg(long, default_value_t = 10_000)]
    pub streams_max: usize,

    /// How many of them one principal may have open on this replica.
    #[arg(long, default_value_t = 64)]
    pub streams_per_principal_max: usize,

    /// How many resources clients watch at once on this replica. Each is a call of its tool service.
    #[arg(long, default_value_t = 512)]
    pub watches_max: usize,

    /// How many of them one principal may watch on this replica.
    #[arg(long, default_value_t = 128)]
    pub watches_per_principal_max: usize,

    /// How many events of one stream are held for a client that reads slowly, or comes back after its connection
    /// broke.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    pub stream_events_max: u32,

    /// How many bytes of one stream's events are held so. The last event is held whatever its size.
    #[arg(long, default_value_t = 1024 * 1024)]
    pub stream_bytes_max: usize,

    /// How many bytes of events are held on this replica. Beyond that nothing is held for clients that come back.
    #[arg(long, default_value_t = 64 * 1024 * 1024)]
    pub streams_bytes_max: usize,

    /// After how long a call without an answer is answered with an event stream, and how often that stream then shows
    /// that it is open, in milliseconds. Less than the time after which proxies close idle connections.
    #[arg(long, default_value_t = 3_000)]
    pub stream_quiet_ms: u64,

    /// How often a stream on which a client only listens shows that it is open, in milliseconds.
    #[arg(long, default_value_t = 15_000, value_parser = clap::value_parser!(u64).range(100..))]
    pub stream_keep_alive_ms: u64,
}

impl Default for StreamsConfig {
    fn default() -> Self {
        Self {
            streams_max: 10_000,
            streams_per_principal_max: 64,
            watches_max: 512,
            watches_per_principal_max: 128,
            stream_events_max: 256,
            stream_bytes_max: 1024 * 1024,
            streams_bytes_max: 64 * 1024 * 1024,
            stream_quiet_ms: 3_000,
            stream_keep_alive_ms: 15_000,
        }
    }
}
