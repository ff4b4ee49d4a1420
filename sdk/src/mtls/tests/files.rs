//! Files that change while a service runs.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::*;

/// Waits until something holds.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{what}"));
}

/// Whether a client of this authority alone, on a new connection, gets an answer.
async fn answers(authority: &Authority, trusted: &[&Authority], server: &Server) -> bool {
    let client = Files::new(&authority.sign("edge"), trusted).peers();
    health(&client, &server.url()).await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_and_authorities_change_under_load_without_a_failed_call() {
    let (old, new) = (Authority::new(), Authority::new());
    let tools = Files::new(&old.sign("tools"), &[&old]);
    let edge = Files::new(&old.sign("edge"), &[&old]);
    let server = Server::with(&tools, &["edge"]);
    let client = server.starting.peers(&edge.config()).unwrap();
    let (done, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let balanced = client.balanced(&[server.url()], "tools", None).unwrap();
    let kept = client.connect(&server.url(), "tools", None).unwrap();
    let mut callers = Vec::new();
    for _ in 0..3 {
        let (done, calls) = (Arc::clone(&done), Arc::clone(&calls));
        let (balanced, kept) = (balanced.clone(), kept.clone());
        let (client, url) = (client.clone(), server.url());
        callers.push(tokio::spawn(async move {
            while !done.load(Ordering::Relaxed) {
                HealthClient::new(balanced.clone())
                    .check(HealthCheckRequest::default())
                    .await
                    .unwrap();
                ask(kept.clone()).await.unwrap();
                // A connection of its own, with what is in the files now.
                health(&client, &url).await.unwrap();
                calls.fetch_add(3, Ordering::Relaxed);
            }
        }));
    }

    // First both authorities are believed, then the certificates are the new one's, then the old one is not believed.
    for files in [&tools, &edge] {
        files.trust(&[&old, &new]);
    }
    until("the server believes the new authority", async || answers(&new, &[&old], &server).await)
        .await;
    edge.show(&new.sign("edge"));
    tools.show(&new.sign("tools"));
    until("the server shows the new certificate", async || answers(&new, &[&new], &server).await)
        .await;
    // The client has looked as often.
    tokio::time::sleep(Duration::from_secs(4)).await;
    for files in [&tools, &edge] {
        files.trust(&[&new]);
    }
    until("the old authority is not believed", async || !answers(&old, &[&new], &server).await)
        .await;
    assert!(answers(&new, &[&new], &server).await);

    done.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.expect("no call fails");
    }
    let calls = calls.load(Ordering::Relaxed);
    assert!(calls > 100, "{calls} calls");
}

#[tokio::test]
async fn broken_files_change_nothing_and_are_told() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let good = authority.sign("tools");
    let tools = Files::new(&good, &[&authority]);
    let server = Server::with(&tools, &["edge"]);
    let readiness = server.starting.readiness();
    let expired = authority
        .sign_with("tools", |params| params.not_after = (SystemTime::now() - HOUR / 2).into());
    let unnamed = authority.sign_with("tools", |params| params.subject_alt_names.clear());
    let breaks: [(&str, &dyn Fn()); 6] = [
        ("is not PEM", &|| {
            fs::write(tools.path("ca.crt"), "-----BEGIN CERTIFICATE-----\nMII").unwrap()
        }),
        ("holds no authority", &|| fs::write(tools.path("ca.crt"), "").unwrap()),
        ("cannot use the certificate with its key", &|| {
            fs::write(tools.path("tls.key"), &stranger.sign("x").key).unwrap();
        }),
        ("has expired", &|| tools.show(&expired)),
        ("must have one URI as a name, and has 0", &|| tools.show(&unnamed)),
        ("the certificate is that of spiffe://acme.example/other", &|| {
            tools.show(&authority.sign("other"))
        }),
    ];
    for (wrong, break_it) in breaks {
        break_it();
        until(wrong, async || {
            readiness.notes().get("mtls").is_some_and(|note| note.contains(wrong))
        })
        .await;
        assert!(answers(&authority, &[&authority], &server).await, "{wrong}");
        tools.trust(&[&authority]);
        tools.show(&good);
        until("all is well again", async || !readiness.notes().contains_key("mtls")).await;
    }
    fs::remove_file(tools.path("tls.crt")).unwrap();
    until("a file is missing", async || readiness.notes().contains_key("mtls")).await;
    assert!(answers(&authority, &[&authority], &server).await);
}

#[test]
fn files_that_cannot_be_used_are_refused_at_the_start() {
    let authority = Authority::new();
    let refused = |change: &dyn Fn(&Files)| {
        let files = Files::new(&authority.sign("tools"), &[&authority]);
        change(&files);
        crate::error_chain(&Peers::open(&files.config()).unwrap_err())
    };
    let told = [
        refused(&|files| fs::remove_file(files.path("ca.crt")).unwrap()),
        refused(&|files| fs::write(files.path("ca.crt"), "").unwrap()),
        refused(&|files| fs::write(files.path("tls.crt"), "").unwrap()),
        refused(&|files| {
            files.show(&authority.sign_with("x", |params| params.subject_alt_names.clear()))
        }),
    ];
    let expected = ["cannot read", "holds no authority", "holds no X.509 certificate", "has 0"];
    for (told, expected) in told.iter().zip(expected) {
        assert!(told.contains(expected), "{told}");
    }
    let half = MtlsConfig { mtls_key_file: Some("tls.key".into()), ..MtlsConfig::default() };
    assert!(matches!(Peers::open(&half), Err(MtlsError::Incomplete)));
}
