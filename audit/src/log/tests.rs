use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use super::*;
use crate::{
    prove::prove,
    read::{Item, records},
    testing::{TestLog, config, event, line_files, problems, verified, written},
};

/// What the process that a test starts does, and the folder of its log.
const ROLE: &str = "AUDIT_TEST_ROLE";
const FOLDER: &str = "AUDIT_TEST_FOLDER";
/// The signal of a file that would be too large (SIGXFSZ on Linux).
const FILE_TOO_LARGE: i32 = 25;

/// The events of all logs in a folder, in their order.
fn events(folder: &Path) -> Vec<Event> {
    let items = records(&[folder.to_owned()]).unwrap();
    items
        .map(|item| match item.unwrap() {
            Item::Record(record) => record.event,
            Item::Torn { place } => panic!("{place} is torn"),
        })
        .collect()
}

fn values(folder: &Path) -> Vec<String> {
    let value = |event| if let Event::Admin(admin) = event { Some(admin.value) } else { None };
    events(folder).into_iter().filter_map(value).collect()
}

#[tokio::test]
async fn a_restart_continues_the_log() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path(), "a", &["one", "two"]).await;
    written(folder.path(), "a", &["three"]).await;
    assert_eq!(values(folder.path()), ["one", "two", "three"]);
    let reports = verified(folder.path());
    assert_eq!(reports.len(), 1, "{reports:#?}");
    assert_eq!(reports[0].problems, [], "{reports:#?}");
    assert_eq!((reports[0].size, reports[0].signed), (9, 9));
    let starts = events(folder.path()).into_iter().filter_map(|event| match event {
        Event::Start(start) => Some(start.after_stop),
        _ => None,
    });
    assert_eq!(starts.collect::<Vec<_>>(), [false, true]);
}

/// A power loss may leave a part of a line, and zeros.
#[tokio::test]
async fn an_incomplete_last_line_is_moved_away_and_named() {
    for rest in [&b"{\"v\":1,\"log\""[..], b"\0\0\0\0", b"{\"v\":1}\n\0\0\n"] {
        let folder = tempfile::tempdir().unwrap();
        written(folder.path(), "a", &["one"]).await;
        let path = line_files(folder.path()).remove(0);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, [&whole[..], rest].concat()).unwrap();
        written(folder.path(), "a", &["two"]).await;
        assert_eq!(problems(folder.path()), [""; 0]);
        assert_eq!(values(folder.path()), ["one", "two"]);
        let torn = events(folder.path()).into_iter().find_map(|event| match event {
            Event::Start(start) => start.torn,
            _ => None,
        });
        let torn = torn.expect("a start that names it");
        assert_eq!(torn.bytes, rest.len() as u64);
        assert_eq!(fs::read(path.with_file_name(torn.file)).unwrap(), rest);
    }
}

#[tokio::test]
async fn a_log_that_was_changed_or_is_in_use_is_left_as_it_is_and_another_one_begins() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path(), "a", &["one", "two"]).await;
    let path = line_files(folder.path()).remove(0);
    let changed = fs::read_to_string(&path).unwrap().replace("\"one\"", "\"0ne\"");
    fs::write(&path, &changed).unwrap();
    let second = TestLog::open(folder.path(), "a");
    let third = TestLog::open(folder.path(), "a");
    second.write(&["three"]).await;
    third.write(&["four"]).await;
    second.stop().await;
    third.stop().await;
    assert_eq!(fs::read_to_string(&path).unwrap(), changed);
    let follows = events(folder.path()).into_iter().filter_map(|event| match event {
        Event::Start(start) => start.follows,
        _ => None,
    });
    let follows: Vec<_> = follows.collect();
    assert_eq!(follows.len(), 2, "{follows:?}");
    assert!(follows[0].contains("`prev` is not the hash of the line before"), "{follows:?}");
    assert!(follows[1].contains("another process writes it"), "{follows:?}");
    assert_eq!(verified(folder.path()).len(), 3);
}

/// As a mounted secret: its group may read it.
#[tokio::test]
async fn configured_keys_may_be_files_that_others_can_read_and_generated_ones_may_not() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let keys = ["audit.key", "signing.key"].map(|name| folder.path().join(name));
    let (_, signing) = SigningKey::generate("drawbridge-audit").unwrap();
    fs::write(&keys[0], "a key of at least thirty-two bytes").unwrap();
    fs::write(&keys[1], secrecy::ExposeSecret::expose_secret(&signing)).unwrap();
    let shared = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o440));
    keys.iter().try_for_each(|path| shared(path)).unwrap();
    let logs = folder.path().join("logs");
    let configured = AuditConfig {
        audit_key_file: Some(keys[0].clone()),
        audit_signing_key_file: Some(keys[1].clone()),
        ..config(&logs, "a", AuditMode::Required)
    };
    let log = TestLog::with(&configured);
    log.write(&["one"]).await;
    log.stop().await;
    assert_eq!(problems(&logs), [""; 0]);
    written(&logs, "b", &["two"]).await;
    shared(&logs.join("test.b.key")).unwrap();
    let service = ServiceBuilder::new();
    let refused = AuditLog::open(&config(&logs, "b", AuditMode::Best), &service, "test");
    assert!(format!("{:?}", refused.unwrap_err()).contains("can be read by others"));
}

#[test]
fn services_that_start_at_once_share_one_digest_key() {
    let folder = tempfile::tempdir().unwrap();
    let open = |replica: usize| {
        let folder = folder.path().to_owned();
        move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let _entered = runtime.enter();
            TestLog::open(&folder, &replica.to_string()).log.digest(b"{}")
        }
    };
    let digests: Vec<_> = (0..8).map(|replica| std::thread::spawn(open(replica))).collect();
    let digests: Vec<_> = digests.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
}

#[tokio::test]
async fn a_new_signing_key_begins_another_log() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path(), "a", &["one"]).await;
    fs::remove_file(folder.path().join("test.a.key")).unwrap();
    written(folder.path(), "a", &["two"]).await;
    let reports = verified(folder.path());
    assert_eq!(reports.len(), 2, "{reports:#?}");
    assert!(reports.iter().all(|report| report.problems.is_empty()), "{reports:#?}");
}

#[tokio::test]
async fn files_of_a_log_are_deleted_by_age_and_what_remains_is_verified_and_proven() {
    let folder = tempfile::tempdir().unwrap();
    let small = AuditConfig {
        audit_file_bytes_max: 4 << 10,
        audit_days: 7,
        ..config(folder.path(), "a", AuditMode::Required)
    };
    let log = TestLog::with(&small);
    for number in 0..100 {
        log.write(&[&format!("value {number}")]).await;
    }
    log.stop().await;
    let files = line_files(folder.path());
    assert!(files.len() > 5, "{files:?}");
    assert_eq!(problems(folder.path()), [""; 0]);
    for file in &files[..4] {
        let name = file.file_name().unwrap().to_str().unwrap();
        let (_, rest) = name.split_once('.').unwrap();
        fs::rename(file, file.with_file_name(format!("2026-01-01.{rest}"))).unwrap();
    }
    assert_eq!(problems(folder.path()), [""; 0], "the name of a file does not matter");
    let log = TestLog::with(&small);
    log.write(&["the last one"]).await;
    log.stop().await;
    let (remaining, reports) = (line_files(folder.path()), verified(folder.path()));
    assert_eq!(remaining[0], files[4]);
    assert_eq!(reports[0].problems, [], "{reports:#?}");
    assert!(reports[0].first > 0 && reports[0].signed == reports[0].size, "{reports:#?}");
    for value in ["value 80", "value 99", "the last one"] {
        let bundle = prove(&[folder.path().to_owned()], value).unwrap();
        assert_eq!(bundle.lines.len(), 1, "{value}");
        let (record, checkpoint) = bundle.lines[0].verify(&[]).unwrap();
        assert_eq!(record.event.request_id(), Some(value));
        assert!(checkpoint.size > record.seq);
    }
    let ends = remaining[0].with_file_name("checkpoints.jsonl");
    let stored = fs::read(&ends).unwrap();
    fs::write(&ends, "").unwrap();
    assert!(problems(folder.path()).join("\n").contains("the service did not delete them"));
    fs::write(&ends, stored).unwrap();
    let first = &remaining[0];
    let changed = fs::read_to_string(first).unwrap().replacen("value", "Value", 1);
    fs::write(first, changed).unwrap();
    assert!(problems(folder.path())[0].contains(&first.display().to_string()));
}

#[tokio::test]
async fn old_files_of_logs_that_no_process_writes_any_more_are_deleted_too() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path(), "a", &["one"]).await;
    written(folder.path(), "b", &["two"]).await;
    let [old, new] = &line_files(folder.path())[..] else { panic!("two files") };
    let renamed = old.with_file_name("2026-01-01.000000000000.jsonl");
    fs::rename(old, &renamed).unwrap();
    written(folder.path(), "c", &["three"]).await;
    assert!(!renamed.exists() && renamed.with_file_name("checkpoint").exists());
    assert!(new.exists());
    assert_eq!(problems(folder.path()), [""; 0]);
}

#[tokio::test]
async fn a_proof_holds_without_the_log_and_not_for_another_line() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (TestLog::open(folder.path(), "a"), TestLog::open(folder.path(), "b"));
    a.write(&["one", "two", "three"]).await;
    a.log.checkpoint_now().await;
    crate::testing::exchange(&a, &b).await;
    b.log.checkpoint_now().await;
    a.stop().await;
    b.stop().await;
    let bundle = prove(&[folder.path().to_owned()], "two").unwrap();
    assert_eq!((bundle.lines.len(), bundle.anchors.len()), (1, 1), "{bundle:#?}");
    let proof = &bundle.lines[0];
    proof.verify(&[]).unwrap();
    let (anchor, _) = bundle.anchors[0].verify(&[]).unwrap();
    let Event::Anchor(anchor) = anchor.event else { panic!("{anchor:?}") };
    assert_eq!(anchor.note, proof.checkpoint, "the other replica recorded this checkpoint");
    let mut changed = proof.clone();
    changed.line = changed.line.replace("\"two\"", "\"2wo\"");
    assert!(changed.verify(&[]).unwrap_err().to_string().contains("not in the log"));
    let mut moved = proof.clone();
    moved.seq += 1;
    moved.verify(&[]).unwrap_err();
    let other = crate::note::SigningKey::generate("x").unwrap().0.public().clone();
    assert!(proof.verify(&[other]).unwrap_err().to_string().contains("another key"));
}

#[tokio::test]
async fn a_log_that_is_off_records_nothing_and_never_refuses() {
    let log = AuditLog::off().unwrap();
    log.record(event("one"));
    log.commit(event("two")).await.unwrap();
    log.check().unwrap();
    assert!(!log.is_on() && log.checkpoint().is_none());
    assert!(log.digest(b"{}").starts_with("hmac-sha256:"));
}

#[tokio::test]
async fn arguments_that_are_too_large_are_omitted() {
    let folder = tempfile::tempdir().unwrap();
    let log = TestLog::open(folder.path(), "a");
    let large = serde_json::json!("x".repeat(EVENT_BYTES_MAX));
    let decision = crate::event::Decision { arguments: Some(large), ..Default::default() };
    log.log.commit(Event::Decision(Box::new(decision))).await.unwrap();
    let refused = log.log.commit(event(&"x".repeat(EVENT_BYTES_MAX))).await.unwrap_err();
    assert!(refused.to_string().contains("too large"), "{refused}");
    log.stop().await;
    let all = events(folder.path());
    assert!(
        matches!(&all[1], Event::Decision(it) if it.arguments_redacted && it.arguments.is_none())
    );
    assert!(matches!(&all[2], Event::Gap(gap) if gap.lost == 1), "{all:?}");
}

/// Starts this test binary as another process.
fn process(role: &str, folder: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "log::tests::the_process_that_other_tests_start", "--ignored"])
        .env(ROLE, role)
        .env(FOLDER, folder)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "other tests start it as a process of its own"]
async fn the_process_that_other_tests_start() {
    let folder = PathBuf::from(std::env::var_os(FOLDER).expect("a folder"));
    match std::env::var(ROLE).expect("a role").as_str() {
        "write" => write_for_ever(&folder).await,
        "full-required" => fill(&folder, AuditMode::Required).await,
        "full-best" => fill(&folder, AuditMode::Best).await,
        role => panic!("{role}"),
    }
}

async fn write_for_ever(folder: &Path) {
    let small =
        AuditConfig { audit_file_bytes_max: 32 << 10, ..config(folder, "a", AuditMode::Required) };
    let log = TestLog::with(&small);
    for number in 0.. {
        let text = number.to_string();
        let others = [event(&text), event(&text)];
        for event in others {
            log.log.record(event);
        }
        log.write(&[&text]).await;
        // What is in this file was committed.
        fs::write(folder.join("committed"), &text).unwrap();
    }
}

#[test]
fn a_log_whose_process_is_killed_at_any_moment_verifies_and_has_all_that_was_committed() {
    let folder = tempfile::tempdir().unwrap();
    let committed = || fs::read_to_string(folder.path().join("committed")).unwrap_or_default();
    for round in 0..12_u64 {
        let before = committed();
        let mut child = process("write", folder.path());
        while committed() == before || committed().is_empty() {
            assert!(child.try_wait().unwrap().is_none(), "{round}: the process has ended");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(round * 7));
        child.kill().unwrap();
        child.wait().unwrap();
        let last = committed();
        assert_eq!(problems(folder.path()), [""; 0], "{round}");
        let all = values(folder.path());
        assert!(last.is_empty() || all.contains(&last), "{round}: {last} is missing");
    }
    let starts = events(folder.path()).iter().filter(|it| matches!(it, Event::Start(_))).count();
    assert_eq!((starts, verified(folder.path()).len()), (12, 1));
}

/// Limits the size of files, as a full disk does, and lifts the limit again.
async fn fill(folder: &Path, mode: AuditMode) {
    let _handled = signal(SignalKind::from_raw(FILE_TOO_LARGE)).unwrap();
    let log = TestLog::with(&config(folder, "a", mode));
    log.log.commit(event("before")).await.unwrap();
    let all = getrlimit(Resource::Fsize);
    setrlimit(Resource::Fsize, Rlimit { current: Some(4 << 10), maximum: all.maximum }).unwrap();
    let readiness = log.service.readiness();
    readiness.set_ready();
    let mut refused = 0;
    while !readiness.notes().contains_key("audit") && readiness.reason().is_none() {
        refused += u32::from(log.log.commit(event("while it is full")).await.is_err());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let is_required = mode == AuditMode::Required;
    assert_eq!(refused > 0, is_required);
    assert_eq!(log.log.check().is_err(), is_required);
    assert_eq!(readiness.reason().is_some(), is_required);
    let lost = || lock(&log.log.shared().lost).count;
    let before = lost();
    for _ in 0..5 {
        assert_eq!(log.log.commit(event("lost")).await.is_err(), is_required);
    }
    while lost() < before + 5 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    setrlimit(Resource::Fsize, all).unwrap();
    // The writer tries again by itself.
    while readiness.notes().contains_key("audit") || readiness.reason().is_some() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    log.log.check().unwrap();
    log.log.commit(event("after")).await.unwrap();
    log.stop().await;
}

#[test]
fn a_full_disk_refuses_with_required_goes_on_with_best_and_leaves_a_gap_in_both() {
    for role in ["full-required", "full-best"] {
        let folder = tempfile::tempdir().unwrap();
        assert!(process(role, folder.path()).wait().unwrap().success(), "{role}");
        assert_eq!(problems(folder.path()), [""; 0], "{role}");
        let all = values(folder.path());
        assert_eq!((all[0].as_str(), all[all.len() - 1].as_str()), ("before", "after"));
        assert!(!all.contains(&"lost".to_owned()), "{role}: {all:?}");
        let report = verified(folder.path()).remove(0);
        assert!(report.lost >= 5, "{role}: {report:#?}");
    }
}
