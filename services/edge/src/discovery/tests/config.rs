use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};

use drawbridge_runtime::{LogSink, TelemetryConfig};
use tempfile::TempDir;

use super::harness::{NO_POLL, PATIENCE, QUICK, TestEdge, TestService, contract};
use crate::config::Services;

/// A config file that a test edits.
struct ConfigFixture {
    folder: TempDir,
}

impl ConfigFixture {
    fn new(text: &str) -> Self {
        let fixture = Self { folder: tempfile::tempdir().unwrap() };
        fixture.write(text);
        fixture
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("edge.toml")
    }

    fn write(&self, text: &str) {
        std::fs::write(self.path(), text).unwrap();
    }
}

fn entry(namespace: &str, service: &TestService) -> String {
    format!("[[services]]\nnamespace = \"{namespace}\"\nurls = [\"http://{}\"]\n", service.address)
}

#[tokio::test]
async fn a_service_is_added_and_removed_by_editing_the_file() {
    let (code, other) =
        (TestService::start("code", &["Search"]).await, TestService::start("other", &["Do"]).await);
    let fixture = ConfigFixture::new(&entry("code", &code));
    let edge = TestEdge::start(Services::new(), Some(&fixture.path()), NO_POLL).await;
    edge.wait_tools(&["code_search"]).await;
    fixture.write(&(entry("code", &code) + &entry("other", &other)));
    edge.wait_tools(&["code_search", "other_do"]).await;
    fixture.write(&entry("other", &other));
    edge.wait_tools(&["other_do"]).await;
    // The service moves to another address.
    let moved = TestService::start("other", &["Undo"]).await;
    fixture.write(&entry("other", &moved));
    edge.wait_tools(&["other_undo"]).await;
    fixture.write("");
    edge.wait_tools(&[]).await;
}

#[test]
fn an_invalid_config_edit_changes_nothing() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let config = TelemetryConfig {
        log_sink: LogSink::Memory(Arc::clone(&log)),
        ..TelemetryConfig::default()
    };
    let runtime_guard = tokio::runtime::Runtime::new().unwrap();
    let _entered = runtime_guard.enter();
    let telemetry = drawbridge_runtime::Telemetry::new("edge", &config).unwrap();
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
    let scenario = async move {
        let (code, other) = (
            TestService::start("code", &["Search"]).await,
            TestService::start("other", &["Do"]).await,
        );
        let good = entry("code", &code);
        let fixture = ConfigFixture::new(&good);
        let edge = TestEdge::start(Services::new(), Some(&fixture.path()), NO_POLL).await;
        metric(1).await;
        edge.wait_tools(&["code_search"]).await;
        for (broken, noted) in [
            (
                format!("{}urls = 1\n", entry("other", &other)),
                "edge.toml is invalid: see the log for the mistake in line 4",
            ),
            (
                format!(
                    "{}[[services]]\nnamespace = \"more\"\nurls = [\"https://more\"]\n",
                    entry("other", &other)
                ),
                "the config file cannot be used: see the log",
            ),
        ] {
            fixture.write(&broken);
            metric(0).await;
            // The note in `/readyz`.
            let readiness = edge.builder.readiness();
            while !readiness.notes().get("config").is_some_and(|note| note.ends_with(noted)) {
                tokio::time::sleep(QUICK).await;
            }
            assert_eq!(edge.tools(), ["code_search"]);
            assert_eq!(edge.builder.readiness().reason(), None);
            fixture.write(&good);
            metric(1).await;
        }
        std::fs::remove_file(fixture.path()).unwrap();
        metric(0).await;
        assert_eq!(edge.tools(), ["code_search"]);
        fixture.write(&entry("other", &other));
        edge.wait_tools(&["other_do"]).await;
        metric(1).await;
    };
    let runtime = telemetry.runtime(1).unwrap();
    runtime.block_on(async {
        // On the runtime's own threads, whose log this is.
        tokio::time::timeout(PATIENCE, tokio::spawn(scenario)).await.unwrap().unwrap();
    });
    let log = log();
    assert!(log.contains("edge.toml:4:1: duplicate key"), "{log}");
    assert!(
        log.contains("cannot use https://more/: https between services needs a certificate"),
        "{log}"
    );
    assert!(log.contains("cannot read"), "{log}");
    runtime.shutdown_background();
}

#[tokio::test]
async fn a_contract_in_a_file_is_read_when_the_file_changes() {
    let fixture = ConfigFixture::new(
        "[[services]]\nnamespace = \"code\"\nurls = [\"http://127.0.0.1:1\"]\n\
         descriptor_set = \"code.binpb\"\n",
    );
    let file = fixture.folder.path().join("code.binpb");
    std::fs::write(&file, contract("code", &["Search"])).unwrap();
    let edge = TestEdge::start(Services::new(), Some(&fixture.path()), NO_POLL).await;
    edge.wait_tools(&["code_search"]).await;
    std::fs::write(&file, b"no descriptor set").unwrap();
    tokio::time::sleep(QUICK * 5).await;
    assert_eq!(edge.tools(), ["code_search"]);
    std::fs::write(&file, contract("code", &["Read"])).unwrap();
    edge.wait_tools(&["code_read"]).await;
}
