use std::{fs, path::Path};

use axum::{Router, extract::Path as UrlPath, http::StatusCode, routing::get};
use tempfile::TempDir;

use super::{Report, file, issuers::serve};
use crate::{REPOSITORY, drawbridge, new_state, policy::copy, text};

/// A folder with policies, a signed bundle of them, and a file of the key that is trusted.
struct Signed {
    folder: TempDir,
    keys: String,
}

impl Signed {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        copy(&Path::new(REPOSITORY).join("policies"), &folder.path().join("policies"));
        let public = Self::run(&folder, &["policy", "key", "acme.example/a", "--out", "a.key"]);
        Self::run(&folder, &["policy", "key", "acme.example/b", "--out", "b.key"]);
        let keys = file(&folder, "keys.toml", &format!("keys = [\"{}\"]\n", public.trim()));
        Self { folder, keys }
    }

    fn run(folder: &TempDir, arguments: &[&str]) -> String {
        let mut command = drawbridge(new_state().path());
        let output = command.args(arguments).current_dir(folder.path()).output().expect("policy");
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {stdout}{stderr}");
        stdout.to_owned()
    }

    fn bundle(&self, key: &str) {
        let bundle =
            ["policy", "bundle", "--out", "p.tar.gz", "--revision", "7", "--valid-days", "1"];
        Self::run(&self.folder, &[&bundle[..], &["--key", key]].concat());
    }

    /// Serves the folder's files as they are at each request, and checks the bundle there.
    fn check(&self) -> Report {
        let root = self.folder.path().to_owned();
        let url = serve(|_| {
            Router::new().route(
                "/{name}",
                get(move |UrlPath(name): UrlPath<String>| async move {
                    fs::read(root.join(name)).map_err(|_| StatusCode::NOT_FOUND)
                }),
            )
        });
        Report::of_variables(
            &format!(
                "DRAWBRIDGE_AUTH_ISSUER=http://127.0.0.1:1\n\
                 DRAWBRIDGE_AUTH_AUDIENCE=http://127.0.0.1:1/mcp\n\
                 DRAWBRIDGE_AUTH_POLICIES={url}/p.tar.gz\n\
                 DRAWBRIDGE_AUTH_POLICY_ALLOW_PRIVATE_ADDRESSES=true\n\
                 DRAWBRIDGE_AUTH_POLICY_KEYS={}\n",
                self.keys
            ),
            &[],
        )
    }
}

#[test]
fn a_signed_bundle_that_auth_would_take_passes_and_others_are_found() {
    let signed = Signed::new();
    let missing = signed.check();
    missing.has("policies", "failed", "answered 404", "lets auth read them");
    signed.bundle("a.key");
    let good = signed.check();
    let found = good.findings("policies");
    let expected = "of revision 7, signed by acme.example/a";
    assert!(matches!(found[..], [("ok", text, "")] if text.contains(expected)), "{found:?}");
    // A key that auth does not trust.
    signed.bundle("b.key");
    signed.check().has("policies", "failed", "must sign the bundle", "drawbridge policy sign");
    // Other bytes than those that were signed.
    signed.bundle("a.key");
    let bundle = signed.folder.path().join("p.tar.gz");
    let mut bytes = fs::read(&bundle).expect("the bundle");
    bytes.push(0);
    fs::write(&bundle, bytes).expect("a file");
    signed.check().has("policies", "failed", "the SHA-256 differs", "lets auth read them");
    fs::write(&signed.keys, "keys = 1\n").expect("a file");
    signed.check().has("policies", "failed", "cannot use the policy keys", "--policy-keys");
}
