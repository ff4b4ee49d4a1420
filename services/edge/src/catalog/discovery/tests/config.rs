use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use drawbridge_sdk::{LogSink, TelemetryConfig};
use tempfile::TempDir;

use super::harness::{Found, NEVER, Offers, PATIENCE, QUICK, contract};
use crate::config::Services;

/// A config file that tests edit.
struct Edited {
    folder: TempDir,
}

impl Edited {
    fn new(text: &str) -> Self {
        let edited = Self { folder: tempfile::tempdir().unwrap() };
        edited.write(text);
        edited
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("edge.toml")
    }

    fn write(&self, text: &str) {
        std::fs::write(self.path(), text).unwrap();
    }
}

fn entry(namespace: &str, offers: &Offers) -> String {
    format!("[[services]]\nnamespace = \"{namespace}\"\nurls = [\"http://{}\"]\n", offers.address)
}

#[tokio::test]
async fn a_service_is_added_and_removed_by_editing_the_file() {
    let (code, other) =
        (Offers::start("code", &["Search"]).await, Offers::start("other", &["Do"]).await);
    let edited = Edited::new(&entry("code", &code));
    let found = Found::start(Services::new(), Some(&edited.path()), NEVER).await;
    found.offers(&["code_search"]).await;
    edited.write(&(entry("code", &code) + &entry("other", &other)));
    found.offers(&["code_search", "other_do"]).await;
    edited.write(&entry("other", &other));
    found.offers(&["other_do"]).await;
    // It is elsewhere now.
    let moved = Offers::start("other", &["Undo"]).await;
    edited.write(&entry("other", &moved));
    found.offers(&["other_undo"]).await;
    edited.write("");
    found.offers(&[]).await;
}

#[test]
fn a_broken_edit_of_the_config_changes_nothing() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let config = TelemetryConfig {
        log_sink: LogSink::Memory(Arc::clone(&log)),
        ..TelemetryConfig::default()
    };
    let entered = tokio::runtime::Runtime::new().unwrap();
    let _entered = entered.enter();
    let telemetry = drawbridge_sdk::Telemetry::new("edge", &config).unwrap();
    let metrics = telemetry.metrics();
    let metric = move |value: u8| {
        let (metrics, line) = (metrics.clone(), format!("edge_config_current {value}\n"));
        async move {
            while !metrics.render().contains(&line) {
                tokio::time::sleep(QUICK).await;
            }
        }
    };
    let log = move || String::from_utf8(log.lock().unwrap().clone()).unwrap();
    let testing = async move {
        let (code, other) =
            (Offers::start("code", &["Search"]).await, Offers::start("other", &["Do"]).await);
        let good = entry("code", &code);
        let edited = Edited::new(&good);
        let found = Found::start(Services::new(), Some(&edited.path()), NEVER).await;
        metric(1).await;
        found.offers(&["code_search"]).await;
        for broken in [
            format!("{}urls = 1\n", entry("other", &other)),
            format!(
                "{}[[services]]\nnamespace = \"more\"\nurls = [\"https://more\"]\n",
                entry("other", &other)
            ),
        ] {
            edited.write(&broken);
            metric(0).await;
            assert_eq!(found.tools(), ["code_search"]);
            assert_eq!(found.starting.readiness().reason(), None);
            edited.write(&good);
            metric(1).await;
        }
        std::fs::remove_file(edited.path()).unwrap();
        metric(0).await;
        assert_eq!(found.tools(), ["code_search"]);
        edited.write(&entry("other", &other));
        found.offers(&["other_do"]).await;
        metric(1).await;
    };
    let runtime = telemetry.runtime(1).unwrap();
    runtime.block_on(async {
        // On the runtime's own threads, which write this log.
        tokio::time::timeout(PATIENCE, tokio::spawn(testing)).await.unwrap().unwrap();
    });
    let log = log();
    assert!(log.contains("edge.toml: TOML parse error at line 4, column 1"), "{log}");
    assert!(
        log.contains("cannot use https://more/: https between services needs a certificate"),
        "{log}"
    );
    assert!(log.contains("cannot read"), "{log}");
    runtime.shutdown_background();
}

#[tokio::test]
async fn a_contract_in_a_file_is_read_when_the_file_changes() {
    let edited = Edited::new(
        "[[services]]\nnamespace = \"code\"\nurls = [\"http://127.0.0.1:1\"]\ndescriptor_set = \"code.binpb\"\n",
    );
    let file = edited.folder.path().join("code.binpb");
    std::fs::write(&file, contract("code", &["Search"])).unwrap();
    let found = Found::start(Services::new(), Some(&edited.path()), NEVER).await;
    found.offers(&["code_search"]).await;
    std::fs::write(&file, b"no descriptor set").unwrap();
    tokio::time::sleep(QUICK * 5).await;
    assert_eq!(found.tools(), ["code_search"]);
    std::fs::write(&file, contract("code", &["Read"])).unwrap();
    found.offers(&["code_read"]).await;
}
