//! The edge's goodput under overload.

use std::time::{Duration, Instant};

use http::StatusCode;
use url::Url;

use crate::{edges::MeasuredEdge, load::Load};

/// The offered load, as a multiple of the peak throughput.
const OFFERED: f64 = 3.0;
const CALLERS: u32 = 1024;
/// Concurrent calls at the peak.
const AT_PEAK: usize = 64;
const PEAK_SPAN: Duration = Duration::from_secs(3);
const SPAN: Duration = Duration::from_secs(10);
const METADATA_PAUSE: Duration = Duration::from_millis(50);

/// The JSON-RPC code of retryable rejections.
const RETRYABLE: &str = "-32053";

/// The results, per second.
pub(crate) struct Overloaded {
    pub(crate) peak: f64,
    pub(crate) offered: f64,
    pub(crate) answered: f64,
    pub(crate) rejected: f64,
    /// The latency of every answered call, in nanoseconds.
    pub(crate) latencies: Vec<u64>,
    /// The latency of every metadata request during the overload, in nanoseconds. These need no
    /// token.
    pub(crate) metadata: Vec<u64>,
}

fn contains(body: &[u8], text: &str) -> bool {
    body.windows(text.len()).any(|window| window == text.as_bytes())
}

fn nanoseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Requests the metadata repeatedly, each time on a new connection.
async fn metadata(url: Url, ends: Instant) -> Vec<u64> {
    let mut latencies = Vec::new();
    while Instant::now() < ends {
        let started = Instant::now();
        let response = reqwest::get(url.clone()).await.expect("a response");
        assert_eq!(response.status(), StatusCode::OK);
        latencies.push(nanoseconds(started));
        tokio::time::sleep(METADATA_PAUSE).await;
    }
    latencies
}

/// Offers three times the measured peak load, over many connections. A connection with a call in
/// flight offers no new one, so at most [`CALLERS`] calls are in flight.
pub(crate) async fn run(edge: &MeasuredEdge) -> Overloaded {
    let load = Load::new(AT_PEAK, PEAK_SPAN);
    let peak = load.run(async || edge.ready().await).await.rate;
    let offered = OFFERED * peak;
    let pause = Duration::from_secs_f64(f64::from(CALLERS) / offered);
    let mut callers = Vec::new();
    for _ in 0..CALLERS {
        callers.push(edge.ready().await);
    }
    let (started, lasts) = (Instant::now(), SPAN);
    let tasks: Vec<_> = (0..CALLERS)
        .zip(callers)
        .map(|(number, mut caller)| {
            let mut due = started + pause * number / CALLERS;
            tokio::spawn(async move {
                let (mut sent, mut rejected, mut latencies) = (0_u64, 0_u64, Vec::new());
                while started.elapsed() < lasts {
                    tokio::time::sleep_until(due.into()).await;
                    due = Instant::now().max(due + pause);
                    let called = Instant::now();
                    sent += 1;
                    match caller.call_tool().await {
                        (StatusCode::OK, body) if !contains(&body, RETRYABLE) => {
                            assert!(
                                contains(&body, "\"content\""),
                                "{}",
                                String::from_utf8_lossy(&body)
                            );
                            latencies.push(nanoseconds(called));
                        }
                        // Rejected at the request queue, or after its timeout in the call queue.
                        (StatusCode::SERVICE_UNAVAILABLE | StatusCode::OK, body) => {
                            assert!(
                                contains(&body, RETRYABLE),
                                "{}",
                                String::from_utf8_lossy(&body)
                            );
                            rejected += 1;
                        }
                        (status, body) => panic!("{status} {}", String::from_utf8_lossy(&body)),
                    }
                }
                (sent, rejected, latencies)
            })
        })
        .collect();
    let metadata = tokio::spawn(metadata(edge.metadata_url(), started + lasts));
    let (mut sent, mut rejected, mut latencies) = (0, 0, Vec::new());
    for task in tasks {
        let done = task.await.expect("a caller");
        sent += done.0;
        rejected += done.1;
        latencies.extend(done.2);
    }
    let metadata = metadata.await.expect("latencies");
    let seconds = started.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "they are counts of calls")]
    let rate = |count: u64| count as f64 / seconds;
    let answered = rate(latencies.len() as u64);
    Overloaded {
        peak,
        offered: rate(sent),
        answered,
        rejected: rate(rejected),
        latencies,
        metadata,
    }
}
