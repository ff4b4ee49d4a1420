use std::{
    fs,
    net::TcpListener,
    os::unix::process::CommandExt as _,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::{Response, StatusCode, header};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use url::Url;

use crate::{
    repository,
    tools::{program_by, tools},
};

const REDIRECT_URI: &str = "http://127.0.0.1:33418/callback";
const VERIFIER: &str = "a-verifier-that-only-a-test-would-use-0123456789";
const START_DEADLINE: Duration = Duration::from_secs(180);

/// A real Keycloak in development mode, with the realm of `deploy/keycloak`.
#[derive(Debug)]
pub struct Keycloak {
    child: Child,
    /// The realm's issuer.
    pub issuer: Url,
}

impl Keycloak {
    /// Starts it on a free port and waits until it serves the realm.
    pub async fn start() -> Self {
        let home = program_by(tools().join("keycloak"), "`make keycloak-test`");
        let import = home.join("data/import");
        fs::create_dir_all(&import).expect("a folder");
        fs::copy(repository().join("deploy/keycloak/realm.json"), import.join("realm.json"))
            .expect("a file");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = port.expect("a port").port();
        let child = Command::new("bash")
            .arg(home.join("bin/kc.sh"))
            .args([
                "start-dev",
                "--import-realm",
                "--db=dev-mem",
                "--http-host=127.0.0.1",
                "--log-level=warn",
            ])
            .arg(format!("--http-port={port}"))
            .stdin(Stdio::null())
            // Development mode starts a second Java process; the group includes it.
            .process_group(0)
            .spawn()
            .expect("bash");
        let issuer = format!("http://127.0.0.1:{port}/realms/drawbridge").parse().expect("a URL");
        let mut keycloak = Self { child, issuer };
        keycloak.wait().await;
        keycloak
    }

    async fn wait(&mut self) {
        let metadata = format!("{}/.well-known/openid-configuration", self.issuer);
        let started = Instant::now();
        loop {
            let response = reqwest::get(&metadata).await;
            if response.is_ok_and(|response| response.status() == StatusCode::OK) {
                return;
            }
            let exited = self.child.try_wait().expect("a process");
            assert!(exited.is_none(), "Keycloak has exited: {exited:?}");
            assert!(started.elapsed() < START_DEADLINE, "Keycloak does not respond");
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }

    fn endpoint(&self, name: &str) -> Url {
        format!("{}/protocol/openid-connect/{name}", self.issuer).parse().expect("a URL")
    }

    /// Signs in as a browser does, through a registered public client with PKCE, and returns the
    /// token endpoint's response.
    pub async fn sign_in(&self, username: &str, password: &str) -> Value {
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        let http = http.build().expect("an HTTP client");
        let mut authorize = self.endpoint("auth");
        authorize.query_pairs_mut().extend_pairs([
            ("response_type", "code"),
            ("client_id", "mcp-client"),
            ("redirect_uri", REDIRECT_URI),
            ("scope", "openid"),
            ("code_challenge", &URL_SAFE_NO_PAD.encode(Sha256::digest(VERIFIER))),
            ("code_challenge_method", "S256"),
            ("state", "test"),
        ]);
        let page = http.get(authorize).send().await.expect("a page");
        let cookies = cookies(&page);
        let page = page.text().await.expect("a text");
        let (_, rest) = page.split_once(r#"action=""#).unwrap_or_else(|| panic!("no form: {page}"));
        let (action, _) = rest.split_once('"').expect("a value");
        let form = [("username", username), ("password", password)];
        let signed_in =
            http.post(action.replace("&amp;", "&")).header(header::COOKIE, cookies).form(&form);
        let signed_in = signed_in.send().await.expect("a response");
        let location = signed_in.headers().get(header::LOCATION);
        let location = location.unwrap_or_else(|| panic!("not signed in: {}", signed_in.status()));
        let location = Url::parse(location.to_str().expect("a text")).expect("a URL");
        let code = location.query_pairs().find(|(name, _)| name == "code");
        let code = code.unwrap_or_else(|| panic!("no code: {location}")).1.into_owned();
        self.token(&[
            ("grant_type", "authorization_code"),
            ("client_id", "mcp-client"),
            ("code", &code),
            ("redirect_uri", REDIRECT_URI),
            ("code_verifier", VERIFIER),
        ])
        .await
    }

    /// The token endpoint's response.
    pub async fn token(&self, form: &[(&str, &str)]) -> Value {
        let response = reqwest::Client::new().post(self.endpoint("token")).form(form).send().await;
        let response: Value = response.expect("a response").json().await.expect("JSON");
        assert!(response["access_token"].is_string(), "no token: {response}");
        response
    }
}

impl Drop for Keycloak {
    fn drop(&mut self) {
        // Kills the whole process group. The error of an exited one is ignored.
        let _ =
            Command::new("kill").args(["-KILL", "--", &format!("-{}", self.child.id())]).status();
        let _ = self.child.wait();
    }
}

fn cookies(response: &Response) -> String {
    let cookies = response.headers().get_all(header::SET_COOKIE).iter();
    let cookies = cookies.filter_map(|cookie| cookie.to_str().ok()?.split(';').next());
    cookies.collect::<Vec<_>>().join("; ")
}
