//! Certificates and authorities that change while a mesh runs.

use std::{
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use drawbridge_mesh::{MeshAuthority, WORKLOAD};
use drawbridge_tests::{Client, Edge, TestMesh};
use drawbridge_transport::{MtlsConfig, Peers};
use http::StatusCode;
use tokio::time::sleep;

use super::{STEP_TIMEOUT, is_accepted, is_good, metrics, search};

/// Longer than two polls of the certificate files.
const TWO_POLLS: Duration = Duration::from_secs(5);

/// Calls without a pause until `stop` is set, and counts the calls.
async fn load(client: Client, stop: Arc<AtomicBool>, calls: Arc<AtomicU32>) {
    while !stop.load(Ordering::Relaxed) {
        let reply = search(&client).await;
        assert!(is_good(&reply), "{reply:?}");
        calls.fetch_add(1, Ordering::Relaxed);
    }
}

/// Starts an edge, which opens new connections, and checks that it works.
async fn new_edge(mesh: &TestMesh, alice: &Client) -> Edge {
    let edge = mesh.edge(&[("code", &mesh.mesh.state.services["code"])], |_| {}).await;
    let reply = search(&edge.client(alice)).await;
    assert!(is_good(&reply), "{reply:?}");
    edge
}

#[tokio::test]
async fn certificates_and_authorities_change_under_load_without_a_failed_call() {
    let (mesh, next) = (TestMesh::start().await, MeshAuthority::new().expect("an authority"));
    let authority = mesh.mesh.authority.as_ref().expect("an authority");
    let read = |path: PathBuf| fs::read_to_string(path).expect("a file");
    let bundle = authority.trust_bundle_file();
    let (old, new) = (read(bundle.clone()), read(next.trust_bundle_file()));
    let alice = mesh.client("alice").await;
    let (stop, calls) = (Arc::<AtomicBool>::default(), Arc::<AtomicU32>::default());
    let mut callers = Vec::new();
    for _ in 0..2 {
        let client = mesh.client_with(alice.token());
        callers.push(tokio::spawn(load(client, Arc::clone(&stop), Arc::clone(&calls))));
    }

    // First both authorities are trusted.
    fs::write(&bundle, format!("{old}{new}")).expect("a file");
    sleep(TWO_POLLS).await;
    let _first = new_edge(&mesh, &alice).await;
    // Then each service gets a certificate of the new authority.
    for name in ["edge", "auth", "code", "invoices", "tickets", WORKLOAD] {
        let (from, to) = (next.issue(name).expect("files"), authority.issue(name).expect("files"));
        let pairs = [
            (from.mtls_key_file, to.mtls_key_file),
            (from.mtls_certificate_file, to.mtls_certificate_file),
        ];
        for (from, to) in pairs {
            fs::copy(from.expect("a file"), to.expect("a file")).expect("a file");
        }
    }
    sleep(TWO_POLLS).await;
    let _second = new_edge(&mesh, &alice).await;
    // Then the old authority is no longer trusted.
    fs::write(&bundle, &new).expect("a file");
    sleep(TWO_POLLS).await;
    let _third = new_edge(&mesh, &alice).await;

    let old_only = MeshAuthority::new().expect("an authority");
    fs::write(old_only.trust_bundle_file(), &old).expect("a file");
    let config = MtlsConfig {
        mtls_trust_bundle_file: Some(old_only.trust_bundle_file()),
        ..authority.issue(WORKLOAD).expect("files")
    };
    let code = &mesh.mesh.state.services["code"];
    let channel = Peers::open(&config).expect("a certificate").connect(code, "code", None);
    assert!(
        !is_accepted(channel.expect("a channel")).await,
        "the service has a certificate of the new authority"
    );

    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.expect("no call fails");
    }
    let calls = calls.load(Ordering::Relaxed);
    assert!(calls > 20, "{calls} calls");
    println!("{calls} calls while certificates and their authority changed");
    assert!(mesh.log().contains("changed files are in effect"));
}

#[tokio::test]
async fn invalid_files_change_nothing_and_are_reported() {
    let mesh = TestMesh::start().await;
    let authority = mesh.mesh.authority.as_ref().expect("an authority");
    let alice = mesh.client("alice").await;
    fs::write(authority.trust_bundle_file(), "nonsense").expect("a file");
    for name in ["edge", "auth", "code"] {
        let admin = mesh.mesh.service(name).expect("a service").running.admin;
        let started = Instant::now();
        loop {
            let answer = reqwest::get(format!("http://{admin}/readyz")).await.expect("an answer");
            assert_eq!(answer.status(), StatusCode::OK, "{name} stays ready");
            if answer.text().await.expect("a text").contains("\"mtls\":") {
                break;
            }
            assert!(started.elapsed() < STEP_TIMEOUT, "{name} reports nothing");
            sleep(Duration::from_millis(200)).await;
        }
        let metrics = metrics(admin).await;
        assert!(metrics.contains("mtls_certificate_current 0"), "{name}: {metrics}");
        assert!(metrics.contains("mtls_certificate_reloads_failed_total 1"), "{name}: {metrics}");
    }
    assert!(is_good(&search(&alice).await));
}
