//! More than the edge can carry: what is left of its throughput.

use std::time::{Duration, Instant};

use http::StatusCode;
use url::Url;

use crate::{edges::Stand, load::Load};

/// Of the throughput at the peak.
const OFFERED: f64 = 3.0;
const OFFERING: u32 = 1024;
/// Calls at once at the peak.
const AT_PEAK: usize = 64;
const PEAK_SPAN: Duration = Duration::from_secs(3);
const SPAN: Duration = Duration::from_secs(10);
const METADATA_PAUSE: Duration = Duration::from_millis(50);

/// The JSON-RPC code of what may be tried again.
const REFUSED: &str = "-32053";

/// What came of it, a second.
pub(crate) struct Overloaded {
    pub(crate) peak: f64,
    pub(crate) offered: f64,
    pub(crate) answered: f64,
    pub(crate) refused: f64,
    /// Nanoseconds of every call that was answered.
    pub(crate) latencies: Vec<u64>,
    /// Nanoseconds of every answer to whoever asked for the metadata meanwhile, without a token.
    pub(crate) metadata: Vec<u64>,
}

fn says(answer: &[u8], text: &str) -> bool {
    answer.windows(text.len()).any(|window| window == text.as_bytes())
}

fn nanoseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// Asks for the metadata again and again, on a connection of its own each time.
async fn metadata(url: Url, ends: Instant) -> Vec<u64> {
    let mut latencies = Vec::new();
    while Instant::now() < ends {
        let began = Instant::now();
        let answer = reqwest::get(url.clone()).await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK);
        latencies.push(nanoseconds(began));
        tokio::time::sleep(METADATA_PAUSE).await;
    }
    latencies
}

/// Offers three times as much as the edge has just done, over many connections. One that has no answer yet offers nothing
/// new: more than [`OFFERING`] calls are never under way.
pub(crate) async fn run(stand: &Stand) -> Overloaded {
    let load = Load::new(AT_PEAK, PEAK_SPAN);
    let peak = load.run(async || stand.ready().await).await.rate;
    let offered = OFFERED * peak;
    let pause = Duration::from_secs_f64(f64::from(OFFERING) / offered);
    let mut callers = Vec::new();
    for _ in 0..OFFERING {
        callers.push(stand.ready().await);
    }
    let (started, lasts) = (Instant::now(), SPAN);
    let offering: Vec<_> = (0..OFFERING)
        .zip(callers)
        .map(|(number, mut caller)| {
            let mut due = started + pause * number / OFFERING;
            tokio::spawn(async move {
                let (mut sent, mut refused, mut latencies) = (0_u64, 0_u64, Vec::new());
                while started.elapsed() < lasts {
                    tokio::time::sleep_until(due.into()).await;
                    due = Instant::now().max(due + pause);
                    let began = Instant::now();
                    sent += 1;
                    match caller.answer().await {
                        (StatusCode::OK, answer) if !says(&answer, REFUSED) => {
                            assert!(
                                says(&answer, "\"content\""),
                                "{}",
                                String::from_utf8_lossy(&answer)
                            );
                            latencies.push(nanoseconds(began));
                        }
                        // At the door, or because it was not its turn in time.
                        (StatusCode::SERVICE_UNAVAILABLE | StatusCode::OK, answer) => {
                            assert!(says(&answer, REFUSED), "{}", String::from_utf8_lossy(&answer));
                            refused += 1;
                        }
                        (status, answer) => panic!("{status} {}", String::from_utf8_lossy(&answer)),
                    }
                }
                (sent, refused, latencies)
            })
        })
        .collect();
    let metadata = tokio::spawn(metadata(stand.metadata_url(), started + lasts));
    let (mut sent, mut refused, mut latencies) = (0, 0, Vec::new());
    for one in offering {
        let done = one.await.expect("a caller");
        sent += done.0;
        refused += done.1;
        latencies.extend(done.2);
    }
    let metadata = metadata.await.expect("somebody who asks for the metadata");
    let seconds = started.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "they are counts of calls")]
    let rate = |count: u64| count as f64 / seconds;
    let answered = rate(latencies.len() as u64);
    Overloaded { peak, offered: rate(sent), answered, refused: rate(refused), latencies, metadata }
}
