//! What metrics say of sinks.

use super::*;

#[test]
fn metrics_say_how_much_was_sent_and_how_far_the_receiver_lags() {
    let metrics = with_metrics(async {
        let folder = tempfile::tempdir().unwrap();
        let (siem, url) = Siem::start().await;
        let log = TestLog::with(&sending(folder.path(), &url, AuditMode::Required));
        log.write(&["one"]).await;
        siem.until_complete(folder.path()).await;
        siem.answer(Answer::Refuse(StatusCode::FORBIDDEN));
        log.write(&["two", "three"]).await;
        // The third attempt begins more than half a second after the first one.
        siem.until("attempts", |received| received.refused >= 3).await;
    });
    let value = |name: &str| {
        let line = metrics.lines().find(|line| line.starts_with(name));
        let line = line.unwrap_or_else(|| panic!("{name} is missing in {metrics}"));
        line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap()
    };
    assert!(value(r#"audit_sink_records_sent_total{sink="http"}"#) >= 2.0, "{metrics}");
    assert!(value(r#"audit_sink_attempts_failed_total{sink="http"}"#) >= 2.0, "{metrics}");
    assert!(value(r#"audit_sink_lag_records{sink="http"}"#) >= 1.0, "{metrics}");
    assert!(value(r#"audit_sink_lag_seconds{sink="http"}"#) > 0.0, "{metrics}");
    let dropped = r#"audit_sink_records_dropped_total{sink="http",reason="deleted"}"#;
    assert_eq!(value(dropped).to_bits(), 0.0_f64.to_bits());
}
