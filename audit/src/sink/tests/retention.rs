//! Files that are deleted by age while a receiver lacks their lines.

use super::*;

/// Writes several files whose days are long ago, while the receiver refuses all.
async fn old_files(config: &AuditConfig, folder: &Path, siem: &Siem) -> usize {
    siem.answer(Answer::Refuse(StatusCode::SERVICE_UNAVAILABLE));
    let log = TestLog::with(config);
    for number in 0..100 {
        log.log.commit(crate::testing::event(&number.to_string())).await.unwrap();
    }
    log.log.stop().await;
    drop(log.service);
    let files = line_files(folder);
    // The service has ended when nothing is sent any more.
    until_unlocked(files[0].parent().unwrap()).await;
    for file in &files[..files.len() - 1] {
        let name = file.file_name().unwrap().to_str().unwrap();
        let (_, rest) = name.split_once('.').unwrap();
        fs::rename(file, file.with_file_name(format!("2026-01-01.{rest}"))).unwrap();
    }
    files.len()
}

fn small(folder: &Path, url: &Url, mode: AuditMode) -> AuditConfig {
    let config = sending(folder, url, mode);
    AuditConfig { audit_file_bytes_max: 4 << 10, audit_days: 7, ..config }
}

#[tokio::test]
async fn with_required_old_files_are_deleted_only_once_the_receiver_has_their_lines() {
    let folder = tempfile::tempdir().unwrap();
    let (siem, url) = Siem::start().await;
    let config = small(folder.path(), &url, AuditMode::Required);
    let files = old_files(&config, folder.path(), &siem).await;
    let log = TestLog::with(&config);
    assert_eq!(line_files(folder.path()).len(), files, "they are retained");
    siem.answer(Answer::Accept);
    siem.until_complete(folder.path()).await;
    log.log.stop().await;
    drop(log.service);
    let log = TestLog::with(&config);
    log.stop().await;
    assert!(line_files(folder.path()).len() < files, "they are deleted");
    assert_eq!(problems(folder.path()), [""; 0]);
}

#[test]
fn with_best_lines_that_were_deleted_before_they_were_sent_are_counted() {
    let metrics = with_metrics(async {
        let folder = tempfile::tempdir().unwrap();
        let (siem, url) = Siem::start().await;
        let config = small(folder.path(), &url, AuditMode::Best);
        let files = old_files(&config, folder.path(), &siem).await;
        let log = TestLog::with(&config);
        assert!(line_files(folder.path()).len() < files, "they are deleted");
        siem.answer(Answer::Accept);
        siem.until_complete(folder.path()).await;
        log.stop().await;
    });
    let dropped = r#"audit_sink_records_dropped_total{sink="http",reason="deleted"}"#;
    let line = metrics.lines().find(|line| line.starts_with(dropped)).unwrap();
    assert!(line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap() > 10, "{line}");
}
