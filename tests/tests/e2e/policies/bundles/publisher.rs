//! Who makes bundles, and the replicas that trust them.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use drawbridge_auth::policy::{
    PolicyStatus, STATUS_PATH,
    bundle::{Bundle, Note, Release, RemoteConfig, SigningKey, push},
};
use drawbridge_mesh::HostedService;
use drawbridge_tests::{TestMesh, copy_folder, repository};
use http::StatusCode;
use jiff::Timestamp;
use serde_json::Value;
use tempfile::TempDir;

/// How long a change may take, with a poll each second.
pub(super) const TAKEN_TIMEOUT: Duration = Duration::from_secs(20);
pub(super) const NAME: &str = "policies.tar.gz";

/// Someone who writes policies, signs them, and runs replicas of auth that trust the keys.
pub(super) struct Publisher {
    home: TempDir,
    pub(super) keys: Vec<SigningKey>,
    pub(super) location: String,
}

impl Publisher {
    pub(super) fn new(location: String, threshold: usize) -> Self {
        let home = tempfile::tempdir().expect("a folder");
        copy_folder(&repository().join("policies"), &home.path().join("policies"));
        let key = |number: usize| SigningKey::generate(&format!("acme.example/{number}"));
        let keys: Vec<_> = (0..3).map(|number| key(number).expect("a key").0).collect();
        let publisher = Self { home, keys, location };
        publisher.trust(&[0, 1, 2], threshold);
        publisher
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Trusts these of the keys.
    pub(super) fn trust(&self, keys: &[usize], threshold: usize) {
        let keys: Vec<_> = keys.iter().map(|key| self.keys[*key].public().to_string()).collect();
        let text = format!("threshold = {threshold}\nkeys = {keys:?}\n");
        fs::write(self.path("policy-keys.toml"), text).expect("a file");
    }

    pub(super) fn edit(&self, file: &str, from: &str, to: &str) {
        let path = self.path("policies").join(file);
        let text = fs::read_to_string(&path).expect("a file");
        assert!(text.contains(from), "{file} does not contain {from}");
        fs::write(path, text.replacen(from, to, 1)).expect("a file");
    }

    pub(super) fn packed(&self) -> Vec<u8> {
        let (bundle, cases) = Bundle::read(&self.path("policies")).expect("valid policies");
        assert!(cases > 0, "the shipped policies have cases");
        bundle.pack().expect("a bundle")
    }

    pub(super) async fn push_signed(&self, packed: &[u8], release: &Release, keys: &[&SigningKey]) {
        let mut note = Note::new(release.to_string()).expect("a note");
        keys.iter().for_each(|key| note.sign(key));
        let location = self.location.parse().expect("a location");
        let pushed = push(&location, &remote(), packed, note.to_string().as_bytes()).await;
        pushed.unwrap_or_else(|error| panic!("{error}: {error:?}"));
    }

    /// Pushes the folder as it is, signed by the first key.
    pub(super) async fn push(&self, revision: u64) {
        let packed = self.packed();
        self.push_signed(&packed, &release(&packed, revision), &[&self.keys[0]]).await;
    }

    /// A replica of auth, not yet started.
    pub(super) fn auth(&self, mesh: &TestMesh) -> drawbridge_tests::Auth {
        mesh.auth(|config| {
            config.policies = self.location.parse().expect("a location");
            config.policy_bundles.policy_keys = Some(self.path("policy-keys.toml"));
            config.policy_bundles.policy_cache = Some(self.path("cache"));
            config.policy_bundles.policy_poll_seconds = 1;
        })
    }
}

pub(super) fn remote() -> RemoteConfig {
    RemoteConfig::default()
}

pub(super) fn release(packed: &[u8], revision: u64) -> Release {
    Release {
        name: "policies".to_owned(),
        sha256: Release::digest(packed),
        revision,
        created: Timestamp::now(),
        not_after: None,
        allow_rollback: None,
    }
}

pub(super) async fn admin(auth: &HostedService, path: &str) -> String {
    let url = format!("http://{}{path}", auth.running.admin);
    let response = reqwest::get(url).await.expect("a response");
    assert_eq!(response.status(), StatusCode::OK, "{path}");
    response.text().await.expect("a text")
}

pub(super) async fn status(auth: &HostedService) -> PolicyStatus {
    serde_json::from_str(&admin(auth, STATUS_PATH).await).expect("a status")
}

pub(super) fn revision(status: &PolicyStatus) -> u64 {
    status.bundle.as_ref().map_or(0, |bundle| bundle.revision)
}

/// Waits until the status is as wanted.
pub(super) async fn wait(
    auth: &HostedService,
    wanted: impl Fn(&PolicyStatus) -> bool,
) -> PolicyStatus {
    let started = Instant::now();
    loop {
        let status = status(auth).await;
        if wanted(&status) {
            return status;
        }
        assert!(started.elapsed() < TAKEN_TIMEOUT, "{status:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until what the server has is refused for this reason, while `revision` stays in force.
pub(super) async fn wait_refused(auth: &HostedService, reason: &str, revision: u64) {
    let is = |status: &PolicyStatus| {
        status.problem.as_ref().is_some_and(|problem| problem.contains(reason))
    };
    let status = wait(auth, is).await;
    assert_eq!(self::revision(&status), revision, "{status:?}");
    let ready: Value = serde_json::from_str(&admin(auth, "/readyz").await).expect("JSON");
    let note = ready["notes"]["policies"].as_str().unwrap_or_default();
    assert!(note.contains(reason) && ready["ready"] == true, "{ready}");
    assert!(admin(auth, "/metrics").await.contains("auth_policies_current 0\n"));
}

pub(super) async fn wait_taken(auth: &HostedService, revision: u64) {
    let is = |status: &PolicyStatus| self::revision(status) == revision && status.problem.is_none();
    wait(auth, is).await;
}
