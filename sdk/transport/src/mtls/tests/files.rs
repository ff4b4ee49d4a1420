//! Files that change while a service runs.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use drawbridge_runtime::{OperatorAct, OperatorActKind};

use super::*;

/// Waits until a condition is true.
async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(TIMEOUT, waiting).await.unwrap_or_else(|_| panic!("{what}"));
}

/// Whether a client of this authority gets a response on a new connection.
async fn call_succeeds(authority: &Authority, trusted: &[&Authority], server: &Server) -> bool {
    let client = Files::new(&authority.sign("edge"), trusted).peers();
    health(&client, &server.url()).await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_and_authorities_change_under_load_without_a_failed_call() {
    let (old, new) = (Authority::new(), Authority::new());
    let tools = Files::new(&old.sign("tools"), &[&old]);
    let edge = Files::new(&old.sign("edge"), &[&old]);
    let server = Server::with(&tools, &["edge"]);
    let client = Peers::start(&server.builder, &edge.config()).unwrap();
    let acts: Arc<Mutex<Vec<OperatorAct>>> = Arc::default();
    let observed = Arc::clone(&acts);
    server.builder.acts().observe(move |act| observed.lock().unwrap().push(act.clone()));
    let (done, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let balanced = client.balanced(&[server.url()], "tools", None).unwrap();
    let channel = client.connect(&server.url(), "tools", None).unwrap();
    let mut callers = Vec::new();
    for _ in 0..3 {
        let (done, calls) = (Arc::clone(&done), Arc::clone(&calls));
        let (balanced, channel) = (balanced.clone(), channel.clone());
        let (client, url) = (client.clone(), server.url());
        callers.push(tokio::spawn(async move {
            while !done.load(Ordering::Relaxed) {
                HealthClient::new(balanced.clone())
                    .check(HealthCheckRequest::default())
                    .await
                    .unwrap();
                check_health(channel.clone()).await.unwrap();
                // A new connection, with the current files.
                health(&client, &url).await.unwrap();
                calls.fetch_add(3, Ordering::Relaxed);
            }
        }));
    }

    // First both authorities are trusted, then the certificates are the new one's, then the old one
    // is no longer trusted.
    for files in [&tools, &edge] {
        files.trust(&[&old, &new]);
    }
    until("the server trusts the new authority", async || {
        call_succeeds(&new, &[&old], &server).await
    })
    .await;
    edge.write_pair(&new.sign("edge"));
    tools.write_pair(&new.sign("tools"));
    until("the server presents the new certificate", async || {
        call_succeeds(&new, &[&new], &server).await
    })
    .await;
    // The client polls as often.
    tokio::time::sleep(Duration::from_secs(4)).await;
    for files in [&tools, &edge] {
        files.trust(&[&new]);
    }
    until("the old authority is not trusted", async || {
        !call_succeeds(&old, &[&new], &server).await
    })
    .await;
    assert!(call_succeeds(&new, &[&new], &server).await);
    let acts: Vec<_> = acts.lock().unwrap().clone();
    // Files that are being written may be invalid for a moment.
    let renewals: Vec<_> = acts.iter().filter(|act| act.problem.is_none()).collect();
    let is_renewal = |act: &&OperatorAct| {
        act.kind == OperatorActKind::Mtls
            && act.value.starts_with("certificate sha256:")
            && act.value.contains("trust bundle sha256:")
    };
    assert!(renewals.len() >= 4 && renewals.iter().all(is_renewal), "{acts:#?}");

    done.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.expect("no call fails");
    }
    let calls = calls.load(Ordering::Relaxed);
    assert!(calls > 100, "{calls} calls");
}

#[tokio::test]
async fn invalid_files_change_nothing_and_are_reported() {
    let (authority, other_authority) = (Authority::new(), Authority::new());
    let good = authority.sign("tools");
    let tools = Files::new(&good, &[&authority]);
    let server = Server::with(&tools, &["edge"]);
    let readiness = server.builder.readiness();
    let expired = authority
        .sign_with("tools", |params| params.not_after = (SystemTime::now() - HOUR / 2).into());
    let unnamed = authority.sign_with("tools", |params| params.subject_alt_names.clear());
    let breaks: [(&str, &dyn Fn()); 6] = [
        ("is not valid PEM", &|| {
            fs::write(tools.path("ca.crt"), "-----BEGIN CERTIFICATE-----\nMII").unwrap();
        }),
        ("contains no authority", &|| fs::write(tools.path("ca.crt"), "").unwrap()),
        ("the certificate and the key do not match", &|| {
            fs::write(tools.path("tls.key"), &other_authority.sign("x").key).unwrap();
        }),
        ("has expired", &|| tools.write_pair(&expired)),
        ("must have exactly one URI as a name, but has 0", &|| tools.write_pair(&unnamed)),
        ("the certificate belongs to spiffe://acme.example/other", &|| {
            tools.write_pair(&authority.sign("other"));
        }),
    ];
    for (reason, break_it) in breaks {
        break_it();
        until(reason, async || {
            readiness.notes().get("mtls").is_some_and(|note| note.contains(reason))
        })
        .await;
        assert!(call_succeeds(&authority, &[&authority], &server).await, "{reason}");
        tools.trust(&[&authority]);
        tools.write_pair(&good);
        until("the note is cleared", async || !readiness.notes().contains_key("mtls")).await;
    }
    fs::remove_file(tools.path("tls.crt")).unwrap();
    until("a file is missing", async || readiness.notes().contains_key("mtls")).await;
    assert!(call_succeeds(&authority, &[&authority], &server).await);
}

#[test]
fn invalid_files_are_rejected_at_startup() {
    let authority = Authority::new();
    let refused = |change: &dyn Fn(&Files)| {
        let files = Files::new(&authority.sign("tools"), &[&authority]);
        change(&files);
        drawbridge_runtime::error_chain(&Peers::open(&files.config()).unwrap_err())
    };
    let messages = [
        refused(&|files| fs::remove_file(files.path("ca.crt")).unwrap()),
        refused(&|files| fs::write(files.path("ca.crt"), "").unwrap()),
        refused(&|files| fs::write(files.path("tls.crt"), "").unwrap()),
        refused(&|files| {
            files.write_pair(&authority.sign_with("x", |params| params.subject_alt_names.clear()));
        }),
    ];
    let expected =
        ["cannot read", "contains no authority", "contains no X.509 certificate", "has 0"];
    for (message, expected) in messages.iter().zip(expected) {
        assert!(message.contains(expected), "{message}");
    }
    let half = MtlsConfig { mtls_key_file: Some("tls.key".into()), ..MtlsConfig::default() };
    assert!(matches!(Peers::open(&half), Err(MtlsError::Incomplete)));
}
