//! An MCP client that registers itself, signs in, refreshes its tokens and calls tools.

use serde_json::{Value, json};
use url::Url;

const REDIRECT_URI: &str = "http://127.0.0.1:1/callback";
const VERIFIER: &str = "a-verifier-of-sixty-four-characters-0123456789-0123456789-012345";
/// The SHA-256 of the verifier, in base64url.
const CHALLENGE: &str = "_44VNpt-eYphkMSvPYuE_pHqBtTmye6goZPIIdZEKhg";

/// A client of one person.
pub(crate) struct Client {
    http: reqwest::Client,
    mcp_url: String,
    issuer: Url,
    client_id: String,
    pub(crate) access_token: String,
    refresh_token: String,
}

impl Client {
    /// Registers a client, and signs in a user whose password equals the name.
    pub(crate) async fn sign_in(mcp_url: &str, issuer: &str, who: &str) -> Self {
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        // Idle connections do not survive a server restart.
        let http = http.pool_max_idle_per_host(0).build();
        let (http, issuer) = (http.expect("a client"), Url::parse(issuer).expect("a URL"));
        let registration = json!({
            "redirect_uris": [REDIRECT_URI],
            "token_endpoint_auth_method": "none",
            "grant_types": ["authorization_code", "refresh_token"],
        });
        let endpoint = |path: &str| issuer.join(path).expect("a URL");
        let registered = http.post(endpoint("/register")).json(&registration).send().await;
        let registered: Value = registered.expect("an answer").json().await.expect("JSON");
        let client_id = registered["client_id"].as_str().expect("an id").to_owned();
        let query = [
            ("response_type", "code"),
            ("client_id", &client_id),
            ("redirect_uri", REDIRECT_URI),
            ("code_challenge", CHALLENGE),
            ("code_challenge_method", "S256"),
            ("resource", mcp_url),
        ];
        let page = http.get(endpoint("/authorize")).query(&query).send().await.expect("a page");
        let page = page.text().await.expect("a text");
        let (_, rest) =
            page.split_once(r#"name="request" value=""#).unwrap_or_else(|| panic!("{page}"));
        let request = rest.split_once('"').expect("a value").0;
        let form =
            [("request", request), ("username", who), ("password", who), ("decision", "allow")];
        let response =
            http.post(endpoint("/authorize")).form(&form).send().await.expect("an answer");
        let location = response.headers()["location"].to_str().expect("a text");
        let location = Url::parse(location).expect("a URL");
        let code =
            location.query_pairs().find(|(name, _)| name == "code").expect("a code").1.into_owned();
        let mut client = Self {
            http,
            mcp_url: mcp_url.to_owned(),
            issuer,
            client_id,
            access_token: String::new(),
            refresh_token: String::new(),
        };
        let form = [
            ("grant_type", "authorization_code"),
            ("code", &code),
            ("redirect_uri", REDIRECT_URI),
            ("code_verifier", VERIFIER),
        ];
        client.token(&form).await.expect("tokens");
        client
    }

    /// Refreshes the tokens, or returns the error code.
    pub(crate) async fn refresh(&mut self) -> Result<(), String> {
        let token = self.refresh_token.clone();
        self.token(&[("grant_type", "refresh_token"), ("refresh_token", &token)]).await
    }

    async fn token(&mut self, form: &[(&str, &str)]) -> Result<(), String> {
        let form = [form, &[("client_id", self.client_id.as_str())]].concat();
        let url = self.issuer.join("/token").expect("a URL");
        let response = self.http.post(url).form(&form).send().await.expect("an answer");
        let response: Value = response.json().await.expect("JSON");
        let text = |field: &str| response[field].as_str().map(str::to_owned);
        let (Some(access), Some(refresh)) = (text("access_token"), text("refresh_token")) else {
            return Err(text("error").unwrap_or_else(|| response.to_string()));
        };
        (self.access_token, self.refresh_token) = (access, refresh);
        Ok(())
    }

    /// Calls an MCP method, and returns the HTTP status and the response.
    pub(crate) async fn call(&self, method: &str, params: Value) -> (u16, Value) {
        let message = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let request = self
            .http
            .post(&self.mcp_url)
            .header("accept", "application/json, text/event-stream")
            .header("mcp-protocol-version", "2025-11-25")
            .bearer_auth(&self.access_token)
            .json(&message);
        let response = request.send().await.expect("an answer");
        let (status, text) = (response.status().as_u16(), response.text().await.expect("a body"));
        let last_event = text.lines().rev().find_map(|line| line.strip_prefix("data: "));
        (status, serde_json::from_str(last_event.unwrap_or(&text)).unwrap_or(Value::Null))
    }

    /// The names of the tools that the user sees.
    pub(crate) async fn tools(&self) -> Vec<String> {
        let (status, response) = self.call("tools/list", json!({})).await;
        let tools =
            response["result"]["tools"].as_array().unwrap_or_else(|| panic!("{status} {response}"));
        tools.iter().map(|tool| tool["name"].as_str().expect("a name").to_owned()).collect()
    }

    /// Waits until the user sees a tool.
    pub(crate) async fn until_it_sees(&self, tool: &str) {
        let mut seen = Vec::new();
        for _ in 0..600 {
            seen = self.tools().await;
            if seen.iter().any(|name| name == tool) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        panic!("no {tool} among {seen:?}");
    }
}
