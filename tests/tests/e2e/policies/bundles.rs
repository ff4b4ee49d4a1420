//! Policies from signed bundles.

use std::{
    fs,
    time::{Duration, Instant},
};

use drawbridge_auth::policy::bundle::{Bundle, Note, Release, SigningKey, push};
use drawbridge_tests::{Client, FileServer, OciRegistry, TestMesh};

use self::publisher::{
    NAME, Publisher, TAKEN_TIMEOUT, admin, release, remote, revision, status, wait_refused,
    wait_taken,
};

mod expiry;
mod publisher;

#[tokio::test]
async fn a_pushed_bundle_decides_calls_at_every_replica() {
    let (mesh, registry) = (TestMesh::start().await, OciRegistry::start(None));
    let publisher = Publisher::new(format!("oci://{}/acme/policies:prod", registry.address), 1);
    publisher.push(1).await;
    let auths = [publisher.auth(&mesh), publisher.auth(&mesh)];
    let running = [auths[0].start().await, auths[1].start().await];
    let code = &mesh.mesh.state.services["code"];
    let mut clients = Vec::new();
    let mut edges = Vec::new();
    for user in ["alice", "bob"] {
        let urls = [&auths[0], &auths[1]].map(|auth| auth.url.clone().into());
        let edge = mesh.edge(&[("code", code)], |config| config.auth_urls = urls.to_vec()).await;
        clients.push(edge.client(&mesh.client(user).await));
        edges.push(edge);
    }
    assert_eq!(clients[0].tools().await, ["code_list_files", "code_search"]);
    assert!(clients[1].tools().await.is_empty());

    publisher.edit("code.cedar", r#"Group::"engineering""#, r#"Group::"support""#);
    fs::write(publisher.path("policies/tests/code.json"), "[]").expect("a file");
    publisher.push(2).await;
    for auth in &running {
        wait_taken(auth, 2).await;
        let metrics = admin(auth, "/metrics").await;
        let info = metrics.lines().filter(|line| line.starts_with("auth_policy_revision_info{"));
        let info: Vec<_> = info.collect();
        assert!(info.iter().any(|line| line.contains(r#"bundle="2""#) && line.ends_with(" 1")));
        assert!(info.iter().any(|line| line.contains(r#"bundle="1""#) && line.ends_with(" 0")));
    }
    wait_tools(&clients[0], &[]).await;
    wait_tools(&clients[1], &["code_list_files", "code_search"]).await;
    // The same content has the same revision as in a folder.
    let folder = drawbridge_auth::policy::Policies::load(&publisher.path("policies"));
    let folder = folder.expect("valid policies");
    assert_eq!(status(&running[0]).await.revision, folder.revision());
    assert!(status(&running[0]).await.source.starts_with("oci://127.0.0.1:"));
    for edge in edges {
        edge.hosted.stop().await;
    }
    for auth in running {
        auth.stop().await;
    }
    mesh.stop().await;
}

#[tokio::test]
async fn a_bundle_that_is_not_trusted_is_refused_and_the_last_good_one_stays() {
    let (mesh, server) = (TestMesh::start().await, FileServer::start().await);
    let publisher = Publisher::new(server.url(NAME), 2);
    let keys: Vec<_> = publisher.keys.iter().collect();
    let packed = publisher.packed();
    let signed = |revision| release(&packed, revision);
    publisher.push_signed(&packed, &signed(5), &keys[..2]).await;
    let auth = publisher.auth(&mesh).start().await;
    wait_taken(&auth, 5).await;

    let (unknown, _) = SigningKey::generate("acme.example/0").expect("a key");
    publisher.push_signed(&packed, &signed(6), &[keys[1]]).await;
    wait_refused(&auth, "2 of the trusted keys must sign the bundle", 5).await;
    publisher.push_signed(&packed, &signed(6), &[keys[1], &unknown]).await;
    wait_refused(&auth, "of which trusted: acme.example/1;", 5).await;
    publisher.push_signed(&packed, &signed(6), &keys[..2]).await;
    wait_taken(&auth, 6).await;

    // A changed byte of the note, and one of the bundle.
    publisher.push_signed(&packed, &signed(7), &keys[..2]).await;
    wait_taken(&auth, 7).await;
    let note = format!("{NAME}.sig");
    server.edit(&note, |note| {
        let text = String::from_utf8_lossy(note).replace("revision 7", "revision 8");
        *note = text.into_bytes();
    });
    wait_refused(&auth, "the note was changed after it was signed", 7).await;
    publisher.push_signed(&packed, &signed(8), &keys[..2]).await;
    wait_taken(&auth, 8).await;
    let mut changed = packed.clone();
    *changed.last_mut().expect("a byte") ^= 1;
    publisher.push_signed(&changed, &signed(9), &keys[..2]).await;
    wait_refused(&auth, "the SHA-256 differs", 8).await;
    publisher.push_signed(&packed, &signed(9), &keys[..2]).await;
    wait_taken(&auth, 9).await;

    // An older revision, even a signed one; a revision that is used twice; another environment's.
    publisher.push_signed(&packed, &signed(8), &keys[..2]).await;
    wait_refused(&auth, "revision 8 may not replace revision 9", 9).await;
    publisher.edit("code.cedar", "@id", "\n@id");
    let other = publisher.packed();
    publisher.push_signed(&other, &release(&other, 9), &keys[..2]).await;
    wait_refused(&auth, "revision 9 already has another content", 9).await;
    let staging = Release { name: "staging".to_owned(), ..signed(10) };
    publisher.push_signed(&packed, &staging, &keys[..2]).await;
    wait_refused(&auth, r#"the bundle has the name "staging""#, 9).await;
    let rollback = Release { allow_rollback: Some(9), ..signed(3) };
    publisher.push_signed(&packed, &rollback, &keys[..2]).await;
    wait_taken(&auth, 3).await;
    publisher.push_signed(&packed, &signed(9), &keys[..2]).await;
    wait_refused(&auth, "revision 9 may not replace revision 9", 3).await;

    // The file of keys is followed.
    publisher.push_signed(&packed, &signed(11), &[keys[2], &unknown]).await;
    wait_refused(&auth, "2 of the trusted keys", 3).await;
    publisher.trust(&[2], 1);
    wait_taken(&auth, 11).await;
    let before = server.not_modified();
    let started = Instant::now();
    while server.not_modified() < before + 2 {
        assert!(started.elapsed() < TAKEN_TIMEOUT, "polls are not conditional");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    auth.stop().await;
    mesh.stop().await;
}

/// Waits until a client sees these tools: an edge receives a new epoch a moment later.
async fn wait_tools(client: &Client, wanted: &[&str]) {
    let started = Instant::now();
    loop {
        let tools = client.tools().await;
        if tools == wanted {
            return;
        }
        assert!(started.elapsed() < TAKEN_TIMEOUT, "{tools:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A gzipped tar with a symbolic link.
fn with_a_link() -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_path("a.cedar").expect("a name");
    header.set_link_name("/etc/passwd").expect("a name");
    header.set_size(0);
    header.set_cksum();
    let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let mut tar = tar::Builder::new(gzip);
    tar.append(&header, &b""[..]).expect("an entry");
    tar.into_inner().expect("a tar").finish().expect("a gzip")
}

#[tokio::test]
async fn a_signed_bundle_with_failing_cases_invalid_policies_or_links_is_refused_whole() {
    let (mesh, server) = (TestMesh::start().await, FileServer::start().await);
    let publisher = Publisher::new(server.url(NAME), 1);
    publisher.push(1).await;
    let auth = publisher.auth(&mesh).start().await;
    let good = status(&auth).await.revision;
    let key = [&publisher.keys[0]];

    // `Bundle::read` would refuse these before they are signed.
    let good_files = publisher.packed();
    publisher.edit("code.cedar", r#"Group::"engineering""#, r#"Group::"support""#);
    assert!(Bundle::read(&publisher.path("policies")).is_err(), "its cases fail");
    let failing = repacked(&good_files, "engineering", "operations1");
    publisher.push_signed(&failing, &release(&failing, 2), &key).await;
    wait_refused(&auth, "at tests/code.json:", 1).await;
    assert!(mesh.log().contains("fails: expected"), "the failed case is not in the log");
    let invalid = repacked(&good_files, "\npermit (", "\npermid (");
    publisher.push_signed(&invalid, &release(&invalid, 3), &key).await;
    wait_refused(&auth, " at code.cedar:", 1).await;
    assert!(mesh.log().contains("permid"), "the mistake is not in the log");
    let link = with_a_link();
    publisher.push_signed(&link, &release(&link, 4), &key).await;
    wait_refused(&auth, "is a symbolic link", 1).await;
    let bomb = {
        use std::io::Write as _;
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(&vec![0; 40 * 1024 * 1024]).expect("a gzip");
        gzip.finish().expect("a gzip")
    };
    publisher.push_signed(&bomb, &release(&bomb, 5), &key).await;
    wait_refused(&auth, "more than 33554432 bytes", 1).await;
    assert_eq!(status(&auth).await.revision, good);
    publisher.push_signed(&good_files, &release(&good_files, 6), &key).await;
    wait_taken(&auth, 6).await;
    assert_eq!(status(&auth).await.revision, good);
    auth.stop().await;
    mesh.stop().await;
}

/// A bundle with another text of the same length in its policies for code.
fn repacked(packed: &[u8], from: &str, to: &str) -> Vec<u8> {
    use std::io::{Read as _, Write as _};
    let mut tar = Vec::new();
    flate2::read::GzDecoder::new(packed).read_to_end(&mut tar).expect("a gzip");
    let begin = find(&tar, b"code.cedar\0", 0);
    let at = find(&tar, from.as_bytes(), begin);
    assert_eq!(from.len(), to.len());
    tar[at..at + to.len()].copy_from_slice(to.as_bytes());
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).expect("a gzip");
    gzip.finish().expect("a gzip")
}

fn find(text: &[u8], part: &[u8], from: usize) -> usize {
    let found = text[from..].windows(part.len()).position(|window| window == part);
    from + found.expect("the part")
}

#[tokio::test]
async fn auth_starts_from_the_last_good_bundle_and_not_without_one() {
    let (mesh, mut server) = (TestMesh::start().await, FileServer::start().await);
    let publisher = Publisher::new(server.url(NAME), 1);
    publisher.push(7).await;
    let auth = publisher.auth(&mesh);
    let running = auth.start().await;
    wait_taken(&running, 7).await;
    running.stop().await;

    // The server is away: the bundle from disk.
    server.stop();
    let running = auth.start().await;
    assert_eq!(revision(&status(&running).await), 7);
    wait_refused(&running, "cannot fetch the policy bundle", 7).await;
    server.restart().await;
    publisher.push(8).await;
    wait_taken(&running, 8).await;
    running.stop().await;

    // The revision on disk protects from a rollback, too.
    publisher.push(7).await;
    let running = auth.start().await;
    wait_refused(&running, "revision 7 may not replace revision 8", 8).await;
    running.stop().await;

    // A changed byte on disk: it is not used, and the server is away.
    server.stop();
    let cached: Vec<_> = fs::read_dir(publisher.path("cache")).expect("a folder").collect();
    assert_eq!(cached.len(), 2, "one bundle and its note: {cached:?}");
    for entry in cached {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "gz") {
            let mut bytes = fs::read(&path).expect("a file");
            *bytes.last_mut().expect("a byte") ^= 1;
            fs::write(&path, bytes).expect("a file");
        }
    }
    let error = auth.try_start().await.expect_err("no trusted bundle");
    assert!(error.contains("cannot start auth"), "{error}");
    assert!(error.contains("Remote("), "{error}");
    assert!(mesh.log().contains("the policy bundle on disk cannot be used"));
    mesh.stop().await;
}

#[tokio::test]
async fn a_bundle_without_keys_and_keys_without_a_bundle_are_errors_at_start() {
    let (mesh, server) = (TestMesh::start().await, FileServer::start().await);
    let publisher = Publisher::new(server.url(NAME), 1);
    publisher.push(1).await;
    let unkeyed = mesh.auth(|config| config.policies = server.url(NAME).parse().expect("a URL"));
    let error = unkeyed.try_start().await.expect_err("no keys");
    assert!(error.contains("NoKeys"), "{error}");
    let keys = Some(publisher.path("policy-keys.toml"));
    let folder = mesh.auth(|config| config.policy_bundles.policy_keys.clone_from(&keys));
    let error = folder.try_start().await.expect_err("a folder with keys");
    assert!(error.contains("Folder("), "{error}");
    fs::write(publisher.path("policy-keys.toml"), "keys = [\"nonsense\"]").expect("a file");
    let error = publisher.auth(&mesh).try_start().await.expect_err("invalid keys");
    assert!(error.contains("Keys("), "{error}");
    mesh.stop().await;
}

#[tokio::test]
async fn a_stored_revision_protects_from_older_bundles_when_its_keys_are_not_trusted_any_more() {
    let (mesh, server) = (TestMesh::start().await, FileServer::start().await);
    let publisher = Publisher::new(server.url(NAME), 1);
    let (packed, [first, second]) = (publisher.packed(), [&publisher.keys[0], &publisher.keys[1]]);
    publisher.push_signed(&packed, &release(&packed, 8), &[first]).await;
    let auth = publisher.auth(&mesh);
    let running = auth.start().await;
    wait_taken(&running, 8).await;
    running.stop().await;
    // The first key is withdrawn.
    publisher.trust(&[1], 1);
    publisher.push_signed(&packed, &release(&packed, 7), &[second]).await;
    let error = auth.try_start().await.expect_err("an older bundle");
    assert!(error.contains("Rollback"), "{error}");
    publisher.push_signed(&packed, &release(&packed, 9), &[second]).await;
    let running = auth.start().await;
    wait_taken(&running, 9).await;
    running.stop().await;
    mesh.stop().await;
}

#[tokio::test]
async fn a_registry_that_wants_a_token_gets_one_for_the_credentials() {
    let (mesh, registry) = (TestMesh::start().await, OciRegistry::start(Some("ci:secret")));
    let publisher = Publisher::new(format!("oci://{}/acme/policies:prod", registry.address), 1);
    let packed = publisher.packed();
    let mut note = Note::new(release(&packed, 1).to_string()).expect("a note");
    note.sign(&publisher.keys[0]);
    let (note, location) = (note.to_string(), publisher.location.parse().expect("a location"));
    let credentials = publisher.path("registry.secret");
    let mut remote = remote();
    let refused = push(&location, &remote, &packed, note.as_bytes()).await.expect_err("no token");
    assert!(refused.to_string().contains("answered 401"), "{refused}");
    remote.policy_credentials = Some(credentials.clone());
    fs::write(&credentials, "ci:wrong\n").expect("a file");
    let refused = push(&location, &remote, &packed, note.as_bytes()).await.expect_err("wrong");
    assert!(refused.to_string().contains("/token answered 401"), "{refused}");
    assert!(refused.to_string().contains("--policy-credentials right?"), "{refused}");
    fs::write(&credentials, "ci:secret\n").expect("a file");
    push(&location, &remote, &packed, note.as_bytes()).await.expect("the right user");
    let auth = mesh.auth(|config| {
        config.policies = publisher.location.parse().expect("a location");
        config.policy_bundles.policy_keys = Some(publisher.path("policy-keys.toml"));
        config.policy_bundles.remote = remote.clone();
    });
    let running = auth.start().await;
    assert_eq!(revision(&status(&running).await), 1);
    running.stop().await;
    mesh.stop().await;
}

#[tokio::test]
async fn a_signal_ends_auth_while_it_waits_for_a_server_that_does_not_answer() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = silent.local_addr().expect("an address");
    let publisher = Publisher::new(format!("http://{address}/{NAME}"), 1);
    let mut auth = tokio::process::Command::new(env!("CARGO_BIN_EXE_auth-process"))
        .args(["--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0", "--audience=http://edge"])
        .args(["--issuer=http://127.0.0.1:9", "--allow-private-addresses"])
        .arg(format!("--policies={}", publisher.location))
        .arg("--policy-keys")
        .arg(publisher.path("policy-keys.toml"))
        .kill_on_drop(true)
        .spawn()
        .expect("the program");
    let (_connection, _) = silent.accept().await.expect("a request for the bundle");
    let id = auth.id().expect("a process").to_string();
    std::process::Command::new("kill").args(["-TERM", &id]).status().expect("kill");
    // Without the signal it ends with an error, after 15 seconds.
    let status = auth.wait().await.expect("an end");
    assert!(status.success(), "{status}");
}
