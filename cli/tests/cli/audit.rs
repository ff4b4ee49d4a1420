//! `drawbridge audit`, on logs that the real writer has written.

use std::{fs, path::Path, process::Command};

use drawbridge_audit::{
    AuditConfig, AuditLog, Event,
    event::{Admin, Call, Caller, Decision, Who},
};
use drawbridge_runtime::{ServiceBuilder, private_files};
use serde_json::Value;
use tempfile::TempDir;
use tokio::{runtime::Runtime, time::sleep};

use super::{
    Duration,
    commands::docs::{blocks, path_with_the_binary},
    drawbridge, text,
};

const KEY: &str = "a key of at least thirty-two bytes\n";
/// So many that a checkpoint follows.
const RECORDS: usize = 1_001;

/// A log of one service, which is being written.
struct Log {
    log: AuditLog,
    service: ServiceBuilder,
}

impl Log {
    fn open(folder: &Path, name: &'static str) -> Self {
        let config = AuditConfig {
            audit_log: Some(folder.join("logs")),
            audit_key_file: Some(folder.join("audit.key")),
            audit_replica: Some("a".to_owned()),
            ..AuditConfig::default()
        };
        let service = ServiceBuilder::new();
        let log = AuditLog::open(&config, &service, name).expect("a log");
        Self { log, service }
    }

    async fn checkpoint(&self) {
        for number in 0..RECORDS {
            let (action, value) = ("test".to_owned(), number.to_string());
            self.log.record(Event::Admin(Box::new(Admin { action, value, ..Admin::default() })));
        }
        while self.log.checkpoint().is_none() {
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Stops the service, and waits for its last checkpoint, which covers all lines.
    async fn stop(self) {
        let before = self.log.checkpoint();
        drop(self.service);
        while self.log.checkpoint() == before {
            sleep(Duration::from_millis(5)).await;
        }
    }
}

/// The logs of an edge and an auth that have recorded one another's checkpoints.
fn logs() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["audit.key", "pseudonym.key"] {
        private_files::replace(&folder.path().join(name), KEY.as_bytes()).expect("a key");
    }
    Runtime::new().expect("a runtime").block_on(async {
        let (auth, edge) = (Log::open(folder.path(), "auth"), Log::open(folder.path(), "edge"));
        let request_id = "request-1".to_owned();
        auth.log.record(Event::Decision(Box::new(Decision {
            request_id: request_id.clone(),
            who: Who { issuer: "i".to_owned(), subject: "alice".to_owned(), ..Who::default() },
            item: "invoices_get".to_owned(),
            argument_digest: Some(auth.log.digest(br#"{ "invoice_id": "4711" }"#)),
            outcome: "allow".to_owned(),
            ..Decision::default()
        })));
        let subject = "alice".to_owned();
        let caller = Caller { issuer: "i".to_owned(), subject, ..Caller::default() };
        edge.log.record(Event::Call(Box::new(Call {
            request_id,
            who: Some(caller),
            method: "tools/call".to_owned(),
            item: "invoices_get".to_owned(),
            ..Call::default()
        })));
        auth.checkpoint().await;
        edge.checkpoint().await;
        let send = |body: bytes::Bytes| {
            let message = serde_json::from_slice(&body).expect("a message");
            auth.log.receive(&message).expect("a checkpoint");
            let answer = serde_json::to_vec(&auth.log.offer()).expect("JSON");
            std::future::ready(vec![("auth".to_owned(), Ok(answer.into()))])
        };
        edge.log.exchange_once(send).await;
        auth.stop().await;
        edge.stop().await;
    });
    let received = folder.path().join("received.jsonl");
    fs::copy(lines_of(folder.path(), "auth"), received).expect("what a receiver has stored");
    folder
}

/// Runs `drawbridge audit` in the folder. Returns its exit code, standard output and error.
fn audit(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = drawbridge(folder);
    let output = command.arg("audit").args(arguments).current_dir(folder).output();
    let output = output.expect("the binary");
    (output.status.code(), text(&output.stdout).to_owned(), text(&output.stderr).to_owned())
}

/// The only file of lines of a service.
fn lines_of(folder: &Path, service: &str) -> std::path::PathBuf {
    let all = fs::read_dir(folder.join("logs")).expect("a folder").map(|it| it.expect("it").path());
    let mut logs = all.filter(|path| {
        path.is_dir()
            && path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(service))
    });
    let log = logs.next().expect("a log");
    let mut files = fs::read_dir(log).expect("a folder").map(|it| it.expect("it").path());
    let is_lines = |path: &std::path::PathBuf| path.extension().is_some_and(|it| it == "jsonl");
    files.find(is_lines).expect("a file")
}

#[test]
fn every_command_of_the_page_about_audit_runs() {
    let folder = logs();
    let mut run = 0;
    for block in blocks("docs/how-to/audit.md") {
        if block.info != "sh" {
            continue;
        }
        let mut bash = Command::new("bash");
        bash.args(["-euo", "pipefail", "-c", &block.text]).current_dir(folder.path());
        let output = bash.env("PATH", path_with_the_binary()).output().expect("bash");
        let place = format!("{}:{}", block.page, block.line);
        assert!(output.status.success(), "{place}:\n{}\n{}", block.text, text(&output.stderr));
        run += 1;
    }
    assert!(run >= 6, "{run}");
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).expect("a file");
    assert!(!read("pseudonymous.jsonl").contains("alice"));
    assert!(read("events.cef").contains("suid=alice"));
    let events = read("events.jsonl");
    let mut events = events.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    assert!(
        events.any(|event| event["class_uid"] == 6003 && event["actor"]["user"]["uid"] == "alice")
    );
}

#[test]
fn verify_says_who_vouches_and_names_the_changed_line() {
    let folder = logs();
    let (code, shown, _) = audit(folder.path(), &["verify", "logs"]);
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("vouched for by edge/a/") && shown.contains("vouched for by auth/a/"));
    let path = lines_of(folder.path(), "auth");
    let original = fs::read_to_string(&path).expect("lines");
    fs::write(&path, original.replacen("\"alice\"", "\"bob\"", 1)).expect("a file");
    let (code, shown, _) = audit(folder.path(), &["verify", "logs"]);
    assert_eq!(code, Some(1), "{shown}");
    let name = path.file_name().expect("a name").to_string_lossy().into_owned();
    assert!(shown.contains(&format!("{name}:2: the line was changed")), "{shown}");
    assert!(shown.contains("are not those that edge/a/"), "{shown}");
    let with = ["verify", "logs", "--received", "received.jsonl"];
    let (code, shown, _) = audit(folder.path(), &with);
    assert_eq!(code, Some(1), "{shown}");
    assert!(shown.contains("are not those that received.jsonl recorded"), "{shown}");
    let (code, json, _) = audit(folder.path(), &["verify", "logs", "--json"]);
    let reports: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!((code, reports[1]["problems"].as_array().map(Vec::len)), (Some(1), Some(0)));
    assert!(!reports[0]["problems"].as_array().expect("a list").is_empty());
    let (code, _, error) = audit(folder.path(), &["verify", "nothing"]);
    assert!(code == Some(2) && error.contains("cannot read nothing"), "{error}");
}

#[test]
fn query_finds_records_by_what_they_are_about() {
    let folder = logs();
    let found = |arguments: &[&str]| {
        let (code, shown, error) =
            audit(folder.path(), &[&["query", "logs", "--json"], arguments].concat());
        assert_eq!(code, Some(i32::from(shown.is_empty())), "{error}");
        let events = shown.lines().map(|line| {
            let record: Value = serde_json::from_str(line).expect("JSON");
            record["event"].as_str().expect("an event").to_owned()
        });
        events.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(found(&["--principal", "alice"]), "decision call");
    assert_eq!(found(&["--principal", "i#alice", "--event", "call"]), "call");
    assert_eq!(found(&["--request-id", "request-1", "--outcome", "allow"]), "decision");
    assert_eq!(found(&["--item", "invoices_get", "--since", "1h"]), "decision call");
    assert_eq!(found(&["--item", "invoices_get", "--until", "1h"]), "");
    assert_eq!(found(&["--principal", "bob"]), "");
    let (code, _, error) = audit(folder.path(), &["query", "logs", "--since", "yesterday"]);
    assert!(code == Some(2) && error.contains("a duration such as 2h"), "{error}");
}

#[test]
fn a_proof_of_a_changed_line_does_not_hold() {
    let folder = logs();
    let (code, proof, _) = audit(folder.path(), &["prove", "request-1", "logs"]);
    assert_eq!(code, Some(0));
    let file = folder.path().join("proof.json");
    fs::write(&file, &proof).expect("a file");
    let (code, shown, error) = audit(folder.path(), &["check-proof", "proof.json"]);
    assert_eq!(code, Some(0), "{error}");
    assert!(shown.contains("its log was recorded by edge/a/"), "{shown}");
    fs::write(&file, proof.replace("\\\"alice\\\"", "\\\"bob\\\"")).expect("a file");
    let (code, _, error) = audit(folder.path(), &["check-proof", "proof.json"]);
    assert!(code == Some(1) && error.contains("is not in the log"), "{error}");
    let (code, _, error) = audit(folder.path(), &["prove", "request-2", "logs"]);
    assert!(code == Some(1) && error.contains("no line about the request"), "{error}");
}
