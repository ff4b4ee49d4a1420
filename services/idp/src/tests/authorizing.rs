//! The authorization endpoint.

use reqwest::{StatusCode, header};
use serde_json::json;

use super::harness::{REDIRECT_URI, Server, callback, challenge, location, request_id};

/// Checks that a request is rejected by a redirect to the client.
async fn check_redirected(changes: &[(&str, &str)], error: &str) {
    let server = Server::start().await;
    let client_id = server.public_client().await;
    let response = server.authorize(&client_id, changes).await;
    assert!(location(&response).as_str().starts_with(REDIRECT_URI), "{changes:?}");
    let parameters = callback(&response);
    assert_eq!(parameters["error"], error, "{changes:?}");
    assert_eq!(parameters["iss"], server.issuer);
    assert_eq!(parameters["state"], "the state");
    assert!(!parameters.contains_key("code"));
}

/// Checks that a request is rejected with a page.
async fn check_page(server: &Server, client_id: &str, changes: &[(&str, &str)]) {
    let response = server.authorize(client_id, changes).await;
    assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{changes:?}");
    assert!(!response.headers().contains_key(header::LOCATION));
    let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let page = response.text().await.unwrap();
    assert!(page.contains("This did not work") && page.contains(&id), "{id}: {page}");
}

#[tokio::test]
async fn an_authorization_response_contains_the_state_and_the_issuer() {
    let server = Server::start().await;
    let client_id = server.public_client().await;
    let request = server.pending(&client_id, &[]).await;
    let response = server.decide(&request, ("alice", "alice"), "allow").await;
    assert!(location(&response).as_str().starts_with(REDIRECT_URI));
    let parameters = callback(&response);
    assert_eq!(parameters["state"], "the state");
    assert_eq!(parameters["iss"], server.issuer);
    assert!(parameters["code"].len() >= 43);
}

#[tokio::test]
async fn only_s256_is_accepted_as_a_challenge_method() {
    let plain = ("code_challenge", super::harness::VERIFIER);
    check_redirected(&[("code_challenge_method", "plain"), plain], "invalid_request").await;
    check_redirected(&[("code_challenge_method", ""), plain], "invalid_request").await;
    check_redirected(&[("code_challenge", "")], "invalid_request").await;
    check_redirected(&[("code_challenge", "too-short")], "invalid_request").await;
}

#[tokio::test]
async fn an_error_of_the_request_is_redirected_to_the_client() {
    check_redirected(&[("resource", "https://other.example/mcp")], "invalid_target").await;
    // The auth service is not a resource for registered clients.
    check_redirected(&[("resource", "drawbridge-auth")], "invalid_target").await;
    check_redirected(&[("response_type", "token")], "unsupported_response_type").await;
    check_redirected(&[("response_type", "")], "invalid_request").await;
    check_redirected(&[("response_mode", "fragment")], "invalid_request").await;
    check_redirected(&[("scope", "unknown")], "invalid_scope").await;
}

#[tokio::test]
async fn an_unknown_client_or_redirect_uri_is_shown_to_the_user_and_not_redirected() {
    let server = Server::start().await;
    let client_id = server.public_client().await;
    check_page(&server, "unknown", &[]).await;
    check_page(&server, "", &[]).await;
    check_page(&server, "nightly", &[]).await;
    for uri in [
        "https://evil.example/callback",
        "http://127.0.0.1:33418/other",
        "http://127.0.0.1:33418/callback#x",
    ] {
        check_page(&server, &client_id, &[("redirect_uri", uri)]).await;
    }
}

#[tokio::test]
async fn a_repeated_parameter_is_rejected() {
    let server = Server::start().await;
    let client_id = server.public_client().await;
    let base = format!(
        "/authorize?response_type=code&client_id={client_id}&redirect_uri={REDIRECT_URI}&state=s\
         &code_challenge={}&code_challenge_method=S256",
        challenge()
    );
    assert_eq!(server.get(&base).await.status(), StatusCode::OK);
    let twice = server.get(&format!("{base}&resource=a&resource=b")).await;
    assert_eq!(callback(&twice)["error"], "invalid_target");
    assert_eq!(callback(&server.get(&format!("{base}&state=t")).await)["error"], "invalid_request");
    let twice = server.get(&format!("{base}&redirect_uri=https://evil.example")).await;
    assert_eq!(twice.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn the_port_of_a_loopback_redirect_uri_is_ignored() {
    let server = Server::start().await;
    let client_id = server.public_client().await;
    let moved = "http://127.0.0.1:50123/callback";
    let request = server.pending(&client_id, &[("redirect_uri", moved)]).await;
    let response = server.decide(&request, ("alice", "alice"), "allow").await;
    assert!(location(&response).as_str().starts_with(moved));
    let code = &callback(&response)["code"];
    let elsewhere = server.redeem(&client_id, code, &[]).await;
    super::harness::check_rejected(elsewhere, 400, "invalid_grant").await;
    let redeemed = server.redeem(&client_id, code, &[("redirect_uri", moved)]).await;
    assert_eq!(redeemed.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_private_use_redirect_uri_gets_its_response() {
    let server = Server::start().await;
    let uri = "cursor://anysphere.cursor-retrieval/oauth/callback";
    let registered = server
        .register(&json!({
            "redirect_uris": [uri, "http://localhost:8787/callback", "https://www.cursor.example/callback"],
            "token_endpoint_auth_method": "none",
        }))
        .await;
    let client_id = registered["client_id"].as_str().unwrap();
    let response = server.authorize(client_id, &[("redirect_uri", uri)]).await;
    let page = response.text().await.unwrap();
    assert!(page.contains("cursor://anysphere.cursor-retrieval"));
    let response = server.decide(&request_id(&page), ("bob", "bob"), "allow").await;
    assert!(location(&response).as_str().starts_with(&format!("{uri}?code=")));
}

#[tokio::test]
async fn a_denial_is_redirected_to_the_client_and_ends_the_request() {
    let server = Server::start().await;
    let client_id = server.public_client().await;
    let request = server.pending(&client_id, &[]).await;
    let parameters = callback(&server.decide(&request, ("", ""), "deny").await);
    assert_eq!(parameters["error"], "access_denied");
    assert_eq!(parameters["state"], "the state");
    assert_eq!(parameters["iss"], server.issuer);
    let again = server.decide(&request, ("alice", "alice"), "allow").await;
    assert_eq!(again.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_wrong_password_fails_and_leaves_the_request_pending() {
    let server = Server::start().await;
    let client_id = server.public_client().await;
    let request = server.pending(&client_id, &[]).await;
    for credentials in [("alice", "bob"), ("unknown", "unknown"), ("alice", ""), ("", "")] {
        let response = server.decide(&request, credentials, "allow").await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{credentials:?}");
        let page = response.text().await.unwrap();
        assert_eq!(request_id(&page), request);
        assert!(page.contains(r#"role="alert""#));
    }
    let parameters = callback(&server.decide(&request, ("alice", "alice"), "allow").await);
    assert!(parameters.contains_key("code"));
}

#[tokio::test]
async fn five_failed_sign_ins_end_the_request() {
    let server = Server::start().await;
    let client_id = server.public_client().await;
    let request = server.pending(&client_id, &[]).await;
    for _ in 0..4 {
        let response = server.decide(&request, ("alice", "wrong"), "allow").await;
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    }
    let fifth = callback(&server.decide(&request, ("alice", "wrong"), "allow").await);
    assert_eq!(fifth["error"], "access_denied");
    let sixth = server.decide(&request, ("alice", "alice"), "allow").await;
    assert_eq!(sixth.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_request_is_completed_once_and_only_by_its_own_form() {
    let server = Server::start().await;
    let client_id = server.public_client().await;
    let request = server.pending(&client_id, &[]).await;
    let undecided = server.decide(&request, ("alice", "alice"), "").await;
    assert_eq!(undecided.status(), StatusCode::BAD_REQUEST);
    let forged = server.decide("made-up", ("alice", "alice"), "allow").await;
    assert_eq!(forged.status(), StatusCode::BAD_REQUEST);
    let first = server.decide(&request, ("alice", "alice"), "allow").await;
    assert_eq!(first.status(), StatusCode::SEE_OTHER);
    let second = server.decide(&request, ("alice", "alice"), "allow").await;
    assert_eq!(second.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn the_name_of_a_client_is_escaped() {
    let server = Server::start().await;
    let registered = server
        .register(&json!({
            "client_name": "<script>alert('x')</script>\"><b>",
            "redirect_uris": [REDIRECT_URI],
        }))
        .await;
    let response = server.authorize(registered["client_id"].as_str().unwrap(), &[]).await;
    let page = response.text().await.unwrap();
    assert!(!page.contains("<script") && !page.contains("<b>"), "{page}");
    assert!(page.contains("&#60;script&#62;"), "{page}");

    let typed = server.decide(&request_id(&page), ("\"><script>", "x"), "allow").await;
    assert!(!typed.text().await.unwrap().contains("<script"));
}

#[tokio::test]
async fn the_page_cannot_be_framed_cached_or_scripted() {
    let server = Server::start().await;
    let client_id = server.public_client().await;
    let response = server.authorize(&client_id, &[]).await;
    let headers = response.headers();
    let policy = headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; style-src 'nonce-"), "{policy}");
    assert!(policy.contains("frame-ancestors 'none'"));
    assert_eq!(headers["x-frame-options"], "DENY");
    assert_eq!(headers["referrer-policy"], "no-referrer");
    assert_eq!(headers["cache-control"], "no-store");
    assert!(!headers.contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn the_page_is_not_served_under_a_foreign_host_name() {
    let server = Server::start().await;
    let client_id = server.public_client().await;
    let url = server.url(&format!("/authorize?client_id={client_id}"));
    let port = server.issuer.rsplit_once(':').unwrap().1;
    for (host, refused) in [("evil.example", true), ("localhost", false), ("[::1]", false)] {
        let request = server.http.get(&url).header(header::HOST, format!("{host}:{port}"));
        let status = request.send().await.unwrap().status();
        assert_eq!(status == StatusCode::MISDIRECTED_REQUEST, refused, "{host}");
    }
}

#[tokio::test]
async fn the_sign_in_page_describes_the_requested_access_and_the_built_in_users() {
    let server = Server::start().await;
    let client_id = server.public_client().await;
    let page = server.authorize(&client_id, &[]).await.text().await.unwrap();
    for part in [
        "Sign in to let “<bdi>A test</bdi>” act for you",
        "call the tools that you may call, and read what you may read <span class=\"soft\">(mcp)</span>",
        "This is a development server. Its users are alice, bob, carol, dave, erin, frank; the password is the",
        "spellcheck=\"false\" required autofocus>",
    ] {
        assert!(page.contains(part), "{part} is missing: {page}");
    }
    assert!(!page.contains("aria-invalid=\""), "nothing is wrong yet");
    assert_eq!(page.matches("autofocus").count(), 1);
}

#[tokio::test]
async fn every_built_in_user_has_their_name_as_password() {
    for user in ["alice", "bob", "carol", "dave", "erin", "frank"] {
        let server = Server::start().await;
        let client_id = server.public_client().await;
        let request = server.pending(&client_id, &[]).await;
        assert!(
            callback(&server.decide(&request, (user, user), "allow").await).contains_key("code")
        );
    }
}

#[tokio::test]
async fn a_failed_sign_in_marks_the_fields_and_focuses_the_password() {
    let server = Server::start().await;
    let client_id = server.public_client().await;
    let request = server.pending(&client_id, &[]).await;
    let page = server.decide(&request, ("alice", "wrong"), "allow").await.text().await.unwrap();
    assert_eq!(
        page.matches("aria-invalid=\"true\" aria-describedby=\"error\"").count(),
        2,
        "{page}"
    );
    assert!(page.contains("role=\"alert\" id=\"error\""));
    let password = page.split_once("<input id=\"password\"").unwrap().1;
    assert!(password.split_once('>').unwrap().0.ends_with("autofocus"), "{page}");
    assert_eq!(page.matches("autofocus").count(), 1);
}

#[tokio::test]
async fn users_of_a_file_are_not_shown() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "[[users]]\nusername = \"zoe\"\npassword = \"a secret\"\n")
        .unwrap();
    let config = crate::Config { users: Some(file.path().to_owned()), ..super::harness::config() };
    let server = Server::start_with(config).await;
    let client_id = server.public_client().await;
    let sign_in = server.authorize(&client_id, &[]).await.text().await.unwrap();
    let home = server.get("/").await.text().await.unwrap();
    for page in [sign_in, home] {
        assert!(!page.contains("zoe") && !page.contains("password is the"), "{page}");
    }
}

#[tokio::test]
async fn the_home_page_describes_the_server() {
    let server = Server::start().await;
    let response = server.get("/").await;
    assert_eq!(response.status(), StatusCode::OK);
    assert!(response.headers()[header::CONTENT_TYPE].to_str().unwrap().starts_with("text/html"));
    let page = response.text().await.unwrap();
    for part in
        [super::harness::RESOURCE, &server.issuer, "/.well-known/oauth-authorization-server"]
    {
        assert!(page.contains(part), "{part} is missing: {page}");
    }
}
