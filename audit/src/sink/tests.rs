use std::{fs, net::SocketAddr, sync::Mutex, time::Duration};

use axum::{Router, extract::State, http::StatusCode, routing::post};
use drawbridge_runtime::{Telemetry, TelemetryConfig};
use tokio::{net::TcpListener, time::timeout};

use super::*;
use crate::{
    AuditConfig, AuditLog, AuditMode,
    testing::{TestLog, config, line_files, problems},
};

mod collector;
mod crash;
mod metrics;
mod retention;

/// What a receiver does with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Accept,
    Refuse(StatusCode),
    /// Accepts batches of at most so many lines.
    AtMost(usize),
}

/// A receiver of JSON lines.
#[derive(Clone, Debug)]
struct Siem(Arc<Mutex<Received>>);

#[derive(Debug)]
struct Received {
    answer: Answer,
    /// The lines of accepted batches with their log and number.
    lines: Vec<(String, u64, String)>,
    refused: u64,
    authorization: Option<String>,
}

impl Siem {
    async fn start() -> (Self, Url) {
        let (siem, address) = Self::at(([127, 0, 0, 1], 0).into()).await;
        (siem, format!("http://{address}/audit?key=secret").parse().unwrap())
    }

    async fn at(address: SocketAddr) -> (Self, SocketAddr) {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let siem = Self(Arc::new(Mutex::new(Received {
            answer: Answer::Accept,
            lines: Vec::new(),
            refused: 0,
            authorization: None,
        })));
        let router = Router::new().route("/audit", post(receive)).with_state(siem.clone());
        let router = router.layer(axum::extract::DefaultBodyLimit::disable());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (siem, address)
    }

    fn answer(&self, answer: Answer) {
        self.0.lock().unwrap().answer = answer;
    }

    fn texts(&self) -> Vec<String> {
        self.0.lock().unwrap().lines.iter().map(|(.., line)| line.clone()).collect()
    }

    /// Waits until what was received is as wanted.
    async fn until(&self, what: &str, wanted: impl Fn(&Received) -> bool) {
        let waiting = async {
            while !wanted(&self.0.lock().unwrap()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let waited = timeout(Duration::from_secs(60), waiting).await;
        assert!(waited.is_ok(), "{what}: {:#?}", self.0.lock().unwrap());
    }

    /// Waits until it has these lines, and nothing twice.
    async fn until_complete(&self, folder: &Path) {
        let expected = texts(folder);
        self.until("all lines", |received| received.lines.len() >= expected.len()).await;
        let mut received = self.0.lock().unwrap().lines.clone();
        // Logs are in their order, each by itself.
        received.sort_by(|(one, ..), (other, ..)| one.cmp(other));
        let received: Vec<_> = received.into_iter().map(|(.., line)| line).collect();
        assert_eq!(received, expected);
    }
}

async fn receive(
    State(siem): State<Siem>,
    headers: axum::http::HeaderMap,
    body: String,
) -> StatusCode {
    let text = |name: &str| headers[name].to_str().unwrap().to_owned();
    let (log, first) = (text("drawbridge-audit-log"), text("drawbridge-audit-first"));
    let (first, next): (u64, u64) =
        (first.parse().unwrap(), text("drawbridge-audit-next").parse().unwrap());
    assert_eq!(text("content-type"), "application/x-ndjson");
    assert!(body.ends_with('\n') && body.lines().count() as u64 == next - first);
    let mut received = siem.0.lock().unwrap();
    received.authorization = headers.contains_key("authorization").then(|| text("authorization"));
    let status = match received.answer {
        Answer::Accept => StatusCode::OK,
        Answer::Refuse(status) => status,
        Answer::AtMost(lines) if body.lines().count() <= lines => StatusCode::OK,
        Answer::AtMost(_) => StatusCode::PAYLOAD_TOO_LARGE,
    };
    if status == StatusCode::OK {
        let lines = (first..).zip(body.lines());
        received.lines.extend(lines.map(|(seq, line)| (log.clone(), seq, line.to_owned())));
    } else {
        received.refused += 1;
    }
    status
}

/// All lines of the logs in a folder, as they are in the files.
fn texts(folder: &Path) -> Vec<String> {
    let files = line_files(folder).into_iter();
    files
        .flat_map(|file| {
            fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
        })
        .collect()
}

/// Waits until no process sends the log in this folder.
async fn until_unlocked(log: &Path) {
    while orphans::try_lock(log, "http").unwrap().is_none() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn sending(folder: &Path, url: &Url, mode: AuditMode) -> AuditConfig {
    let mut config = config(folder, "a", mode);
    config.sinks.audit_http_url = Some(url.clone());
    config
}

#[tokio::test]
async fn a_receiver_gets_every_line_once_in_order_and_byte_by_byte() {
    let folder = tempfile::tempdir().unwrap();
    let (siem, url) = Siem::start().await;
    let small = AuditConfig {
        audit_file_bytes_max: 4 << 10,
        ..sending(folder.path(), &url, AuditMode::Required)
    };
    let log = TestLog::with(&small);
    for number in 0..100 {
        log.write(&[&format!("value {number}")]).await;
    }
    drop(log.service);
    siem.until("the last checkpoint", |received| {
        received.lines.last().is_some_and(|(.., line)| line.contains(r#""event":"checkpoint""#))
            && received.lines.iter().any(|(.., line)| line.contains(r#""event":"stop""#))
    })
    .await;
    siem.until_complete(folder.path()).await;
    assert!(line_files(folder.path()).len() > 3);
    let received = siem.0.lock().unwrap();
    let expected = (0..).map(|seq| (received.lines[0].0.clone(), seq));
    let lines = received.lines.iter().map(|(log, seq, _)| (log.clone(), *seq));
    assert!(lines.eq(expected.take(received.lines.len())));
    assert!(received.lines[0].0.starts_with("test/a/2"), "{}", received.lines[0].0);
}

#[tokio::test]
async fn what_a_receiver_received_can_be_verified() {
    let folder = tempfile::tempdir().unwrap();
    let (siem, url) = Siem::start().await;
    let log = TestLog::with(&sending(folder.path(), &url, AuditMode::Required));
    log.write(&["one", "two"]).await;
    log.stop().await;
    siem.until_complete(folder.path()).await;
    let copy = tempfile::tempdir().unwrap();
    fs::write(copy.path().join("received.jsonl"), siem.texts().join("\n") + "\n").unwrap();
    assert_eq!(problems(copy.path()), [""; 0]);
}

#[tokio::test]
async fn lines_wait_in_their_files_while_the_receiver_is_down_and_the_service_is_degraded() {
    let folder = tempfile::tempdir().unwrap();
    let (siem, url) = Siem::start().await;
    siem.answer(Answer::Refuse(StatusCode::SERVICE_UNAVAILABLE));
    let log = TestLog::with(&sending(folder.path(), &url, AuditMode::Required));
    let readiness = log.service.readiness();
    readiness.set_ready();
    log.write(&["one", "two"]).await;
    siem.until("some attempts", |received| received.refused >= 3).await;
    while !readiness.notes().contains_key("audit_http") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let note = readiness.notes()["audit_http"].clone();
    assert!(note.contains("503") && !note.contains("secret"), "{note}");
    assert!(!note.contains("/audit"), "the path may be secret: {note}");
    assert_eq!(readiness.reason(), None, "calls are still answered");
    assert_eq!(siem.texts(), [""; 0]);
    siem.answer(Answer::Accept);
    siem.until_complete(folder.path()).await;
    while readiness.notes().contains_key("audit_http") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    log.stop().await;
}

#[tokio::test]
async fn after_a_restart_a_receiver_gets_what_it_has_not_acknowledged_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let (siem, url) = Siem::start().await;
    let config = sending(folder.path(), &url, AuditMode::Required);
    let log = TestLog::with(&config);
    log.write(&["one"]).await;
    siem.until_complete(folder.path()).await;
    siem.answer(Answer::Refuse(StatusCode::BAD_GATEWAY));
    log.write(&["two", "three"]).await;
    log.log.stop().await;
    drop(log.service);
    siem.answer(Answer::Accept);
    let log = TestLog::with(&config);
    log.write(&["four"]).await;
    siem.until_complete(folder.path()).await;
    log.stop().await;
}

/// As one that was changed, or whose signing key was.
#[tokio::test]
async fn what_an_earlier_log_of_the_replica_has_left_is_sent_before_the_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let (siem, url) = Siem::start().await;
    siem.answer(Answer::Refuse(StatusCode::BAD_GATEWAY));
    let config = sending(folder.path(), &url, AuditMode::Best);
    let log = TestLog::with(&config);
    log.log.record(crate::testing::event("one"));
    log.log.stop().await;
    drop(log.service);
    fs::remove_file(folder.path().join("test.a.key")).unwrap();
    siem.answer(Answer::Accept);
    let log = TestLog::with(&config);
    log.log.record(crate::testing::event("two"));
    siem.until("both logs", |received| {
        received.lines.iter().any(|(.., line)| line.contains(r#""two""#))
    })
    .await;
    log.stop().await;
    siem.until_complete(folder.path()).await;
    let logs: std::collections::BTreeSet<_> =
        siem.0.lock().unwrap().lines.iter().map(|(log, ..)| log.clone()).collect();
    assert_eq!(logs.len(), 2);
}

/// As in Kubernetes, where the next pod is another replica.
#[tokio::test]
async fn what_a_replica_that_runs_no_more_has_left_is_sent_by_another_one() {
    let folder = tempfile::tempdir().unwrap();
    let (siem, url) = Siem::start().await;
    siem.answer(Answer::Refuse(StatusCode::BAD_GATEWAY));
    let of = |replica: &str| AuditConfig {
        audit_replica: Some(replica.to_owned()),
        ..sending(folder.path(), &url, AuditMode::Required)
    };
    let (gone, running) = (TestLog::with(&of("gone")), TestLog::with(&of("running")));
    gone.write(&["left"]).await;
    running.write(&["running"]).await;
    gone.log.stop().await;
    drop(gone);
    let left =
        line_files(folder.path()).into_iter().find(|it| it.to_string_lossy().contains("gone"));
    let left = left.unwrap().parent().unwrap().to_owned();
    until_unlocked(&left).await;
    siem.answer(Answer::Accept);
    let next = TestLog::with(&of("next"));
    next.write(&["next"]).await;
    let has = |received: &Received, replica: &str, text: &str| {
        received.lines.iter().any(|(log, _, line)| {
            log.starts_with(&format!("test/{replica}/")) && line.contains(text)
        })
    };
    siem.until("the logs of all replicas", |received| {
        has(received, "gone", r#""event":"stop""#)
            && has(received, "running", r#""running""#)
            && has(received, "next", r#""next""#)
    })
    .await;
    running.log.stop().await;
    next.log.stop().await;
    siem.until_complete(folder.path()).await;
}

#[tokio::test]
async fn batches_that_are_too_large_for_the_receiver_are_sent_in_smaller_ones() {
    let folder = tempfile::tempdir().unwrap();
    let (siem, url) = Siem::start().await;
    siem.answer(Answer::Refuse(StatusCode::SERVICE_UNAVAILABLE));
    let config = sending(folder.path(), &url, AuditMode::Required);
    let log = TestLog::with(&config);
    for number in 0..40 {
        log.write(&[&number.to_string()]).await;
    }
    log.log.stop().await;
    drop(log.service);
    siem.answer(Answer::AtMost(5));
    let log = TestLog::with(&config);
    siem.until_complete(folder.path()).await;
    log.stop().await;
}

#[tokio::test]
async fn a_token_is_read_for_each_batch_and_shown_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let (siem, url) = Siem::start().await;
    let token = folder.path().join("token");
    fs::write(&token, "first\n").unwrap();
    let mut config = sending(&folder.path().join("logs"), &url, AuditMode::Required);
    config.sinks.audit_http_token_file = Some(token.clone());
    let log = TestLog::with(&config);
    let is_sent = |token: &'static str| {
        move |received: &Received| {
            received.authorization.as_deref() == Some(&*format!("Bearer {token}"))
        }
    };
    siem.until("the first token", is_sent("first")).await;
    fs::write(&token, "second\n").unwrap();
    log.write(&["one"]).await;
    siem.until("the second token", is_sent("second")).await;
    log.stop().await;
    let position = fs::read_to_string(
        line_files(&folder.path().join("logs"))[0].with_file_name("sink.http.json"),
    );
    let position = position.unwrap();
    assert!(!position.contains("secret") && !position.contains("second"), "{position}");
}

#[tokio::test]
async fn a_sink_in_plaintext_to_another_host_or_without_files_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |change: &dyn Fn(&mut AuditConfig)| {
        let mut config = config(folder.path(), "a", AuditMode::Best);
        change(&mut config);
        let service = ServiceBuilder::new();
        AuditLog::open(&config, &service, "test").err().map(|error| error.to_string())
    };
    let plain: Url = "http://user:secret@siem.example/audit?key=secret".parse().unwrap();
    let error = refused(&|config| config.sinks.audit_http_url = Some(plain.clone())).unwrap();
    assert!(error.contains("http://siem.example would get it in plaintext"), "{error}");
    let error = refused(&|config| {
        config.sinks.audit_otlp = true;
        config.sinks.audit_otlp_endpoint = Some("http://collector.example:4317".parse().unwrap());
    });
    assert!(error.unwrap().contains("plaintext"));
    let error = refused(&|config| {
        config.audit_log = Some("-".into());
        config.sinks.audit_http_url = Some("https://siem.example/".parse().unwrap());
    });
    assert!(error.unwrap().contains("--audit-log must be a folder"));
    let allowed = refused(&|config| {
        config.sinks.audit_http_url = Some(plain.clone());
        config.sinks.audit_sink_plaintext = true;
    });
    assert_eq!(allowed, None);
}

/// Runs a test with metrics of its own. Returns them.
fn with_metrics<F>(test: F) -> String
where
    F: Future<Output = ()> + Send + 'static,
{
    let own = tokio::runtime::Runtime::new().unwrap();
    let telemetry = {
        let _entered = own.enter();
        Telemetry::new("test", &TelemetryConfig::default()).unwrap()
    };
    let runtime = telemetry.runtime(2).unwrap();
    runtime.block_on(async { tokio::spawn(test).await.unwrap() });
    telemetry.metrics().render()
}
