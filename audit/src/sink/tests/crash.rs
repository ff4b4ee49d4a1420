//! Processes that are killed while they send their logs.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use super::*;

const FOLDER: &str = "AUDIT_SINK_TEST_FOLDER";
const RECEIVER: &str = "AUDIT_SINK_TEST_URL";

fn process(folder: &Path, url: &Url) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "sink::tests::crash::the_process_that_is_killed", "--ignored"])
        .env(FOLDER, folder)
        .env(RECEIVER, url.as_str())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "another test starts it as a process of its own"]
async fn the_process_that_is_killed() {
    let folder = PathBuf::from(std::env::var_os(FOLDER).expect("a folder"));
    let url: Url = std::env::var(RECEIVER).expect("a URL").parse().unwrap();
    let small = AuditConfig {
        audit_file_bytes_max: 32 << 10,
        ..sending(&folder, &url, AuditMode::Required)
    };
    let log = TestLog::with(&small);
    for number in 0_u64.. {
        log.write(&[&number.to_string()]).await;
    }
}

/// What was acknowledged just before the process was killed may be sent twice.
#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_misses_nothing_of_processes_that_are_killed_at_any_moment() {
    let folder = tempfile::tempdir().unwrap();
    let (siem, url) = Siem::start().await;
    for round in 0..8_u32 {
        let before = siem.texts().len();
        let mut child = process(folder.path(), &url);
        // Sometimes the receiver is down when the process is killed.
        siem.until("lines of this process", |received| received.lines.len() > before + 20).await;
        if round % 2 == 1 {
            siem.answer(Answer::Refuse(StatusCode::SERVICE_UNAVAILABLE));
        }
        tokio::time::sleep(Duration::from_millis(u64::from(round) * 13)).await;
        child.kill().unwrap();
        child.wait().unwrap();
        siem.answer(Answer::Accept);
    }
    let log = TestLog::with(&sending(folder.path(), &url, AuditMode::Required));
    log.write(&["the last one"]).await;
    siem.until("the last one", |received| {
        received.lines.iter().any(|(.., line)| line.contains("the last one"))
    })
    .await;
    assert_eq!(problems(folder.path()), [""; 0]);
    let expected = texts(folder.path());
    let received = siem.0.lock().unwrap().lines.clone();
    let mut next = 0;
    for (_, seq, line) in &received {
        assert!(*seq <= next, "line {next} is missing before {seq}");
        let at = usize::try_from(*seq).unwrap();
        assert_eq!(*line, expected[at], "line {seq} is another one");
        next = next.max(seq + 1);
    }
    assert!(next > 8 * 20);
}
