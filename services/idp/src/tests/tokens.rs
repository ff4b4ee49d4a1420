//! The token endpoint.

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::harness::{
    INTERNAL_CLIENT, REDIRECT_URI, RESOURCE, Server, WORKLOAD_SECRET, check_rejected, config,
    json_of, tokens,
};

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no {field} in {value}"))
}

#[tokio::test]
async fn a_code_with_its_verifier_is_exchanged_for_an_access_token_of_the_resource() {
    let server = Server::start().await;
    let client_id = server.public_client().await;
    let code = server.code(&client_id, &[]).await;
    let answer = tokens(server.redeem(&client_id, &code, &[("resource", RESOURCE)]).await).await;
    assert_eq!((text(&answer, "token_type"), text(&answer, "scope")), ("Bearer", "mcp"));
    assert_eq!(answer["expires_in"], 600);

    let (header, claims) = server.verify(text(&answer, "access_token"), RESOURCE).await;
    assert_eq!(header.typ.as_deref(), Some("at+jwt"));
    assert_eq!(claims["iss"], server.issuer.as_str());
    assert_eq!(claims["sub"], "alice");
    assert_eq!(claims["aud"], RESOURCE);
    assert_eq!(claims["client_id"], client_id.as_str());
    assert_eq!(claims["scope"], "mcp");
    assert_eq!(claims["groups"], json!(["engineering"]));
    assert_eq!(claims["tenant"], "acme");
    assert_eq!((&claims["amr"], &claims["roles"]), (&json!(["pwd", "mfa"]), &json!(null)));
    assert_eq!(claims["email"], "alice@acme.example");
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 600);
    assert!(claims["jti"].is_string() && claims["nbf"].is_u64() && claims["gty"].is_null());
}

#[tokio::test]
async fn the_audience_is_the_configured_resource() {
    let server = Server::start().await;
    let client_id = server.public_client().await;
    let slash = format!("{RESOURCE}/");
    for (client_id, requested, audience) in [
        (client_id.as_str(), slash.as_str(), RESOURCE),
        (&client_id, "", RESOURCE),
        (INTERNAL_CLIENT, "drawbridge-auth", "drawbridge-auth"),
        (INTERNAL_CLIENT, "", RESOURCE),
    ] {
        let code = server.code(client_id, &[("resource", requested)]).await;
        let answer =
            tokens(server.redeem(client_id, &code, &[("resource", requested)]).await).await;
        server.verify(text(&answer, "access_token"), audience).await;
    }
}

#[tokio::test]
async fn a_code_is_bound_to_its_verifier_client_redirect_uri_and_resource() {
    let server = Server::start().await;
    let client_id = server.public_client().await;
    let other = server.public_client().await;
    let code = server.code(&client_id, &[]).await;
    let wrong_verifier = [("code_verifier", "wrong-wrong-wrong-wrong-wrong-wrong-wrong-wrong")];
    check_rejected(server.redeem(&client_id, &code, &wrong_verifier).await, 400, "invalid_grant")
        .await;
    check_rejected(
        server.redeem(&client_id, &code, &[("code_verifier", "")]).await,
        400,
        "invalid_request",
    )
    .await;
    check_rejected(server.redeem(&other, &code, &[]).await, 400, "invalid_grant").await;
    let elsewhere = [("redirect_uri", "http://127.0.0.1:1/callback")];
    check_rejected(server.redeem(&client_id, &code, &elsewhere).await, 400, "invalid_grant").await;
    for resource in ["drawbridge-auth", "https://other.example"] {
        let refused = server.redeem(&client_id, &code, &[("resource", resource)]).await;
        check_rejected(refused, 400, "invalid_target").await;
    }
    check_rejected(server.redeem(&client_id, "made-up", &[]).await, 400, "invalid_grant").await;
    // None of these used up the code.
    tokens(server.redeem(&client_id, &code, &[]).await).await;
}

#[tokio::test]
async fn a_code_is_valid_once_and_reuse_revokes_the_refresh_tokens() {
    let server = Server::start().await;
    let client_id = server.public_client().await;
    let code = server.code(&client_id, &[]).await;
    let first = tokens(server.redeem(&client_id, &code, &[]).await).await;
    let rotated = tokens(server.refresh(&client_id, text(&first, "refresh_token")).await).await;
    check_rejected(server.redeem(&client_id, &code, &[]).await, 400, "invalid_grant").await;
    let refused = server.refresh(&client_id, text(&rotated, "refresh_token")).await;
    check_rejected(refused, 400, "invalid_grant").await;
}

#[tokio::test]
async fn a_code_expires() {
    let mut config = config();
    config.code_ttl_seconds = 0;
    let server = Server::start_with(config).await;
    let client_id = server.public_client().await;
    let code = server.code(&client_id, &[]).await;
    check_rejected(server.redeem(&client_id, &code, &[]).await, 400, "invalid_grant").await;
}

#[tokio::test]
async fn a_refresh_token_is_valid_once_and_reuse_revokes_its_family() {
    let server = Server::start().await;
    let client_id = server.public_client().await;
    let code = server.code(&client_id, &[]).await;
    let first = tokens(server.redeem(&client_id, &code, &[]).await).await;
    let second = tokens(server.refresh(&client_id, text(&first, "refresh_token")).await).await;
    let third = tokens(server.refresh(&client_id, text(&second, "refresh_token")).await).await;
    let (_, claims) = server.verify(text(&third, "access_token"), RESOURCE).await;
    assert_eq!(claims["sub"], "alice");

    let reused = server.refresh(&client_id, text(&first, "refresh_token")).await;
    check_rejected(reused, 400, "invalid_grant").await;
    let newest = server.refresh(&client_id, text(&third, "refresh_token")).await;
    check_rejected(newest, 400, "invalid_grant").await;
}

#[tokio::test]
async fn a_refresh_token_is_bound_to_its_client_and_resource() {
    let server = Server::start().await;
    let client_id = server.public_client().await;
    let other = server.public_client().await;
    let code = server.code(&client_id, &[]).await;
    let first = tokens(server.redeem(&client_id, &code, &[]).await).await;
    let token = text(&first, "refresh_token");
    check_rejected(server.refresh(&other, token).await, 400, "invalid_grant").await;
    check_rejected(server.refresh(&client_id, "made.up").await, 400, "invalid_grant").await;
    let form = [
        ("grant_type", "refresh_token"),
        ("client_id", &client_id),
        ("refresh_token", token),
        ("resource", "drawbridge-auth"),
    ];
    check_rejected(server.token(&form).await, 400, "invalid_target").await;
    tokens(server.refresh(&client_id, token).await).await;
}

#[tokio::test]
async fn only_a_client_registered_for_the_refresh_grant_gets_a_refresh_token() {
    let server = Server::start().await;
    let metadata = json!({ "redirect_uris": [REDIRECT_URI], "token_endpoint_auth_method": "none" });
    let registered = server.register(&metadata).await;
    let client_id = text(&registered, "client_id");
    let code = server.code(client_id, &[]).await;
    let answer = tokens(server.redeem(client_id, &code, &[]).await).await;
    assert!(answer["refresh_token"].is_null());
    check_rejected(server.refresh(client_id, "x.y").await, 400, "unauthorized_client").await;
}

#[tokio::test]
async fn unknown_scopes_are_ignored_and_the_response_lists_the_granted_ones() {
    let mut config = config();
    config.scopes = vec!["mcp".into(), "invoices:read".into()];
    let server = Server::start_with(config).await;
    let client_id = server.public_client().await;
    for (requested, granted) in
        [("", "mcp invoices:read"), ("invoices:read", "invoices:read"), ("openid mcp", "mcp")]
    {
        let code = server.code(&client_id, &[("scope", requested)]).await;
        let answer = tokens(server.redeem(&client_id, &code, &[]).await).await;
        assert_eq!(text(&answer, "scope"), granted, "{requested}");
    }
}

#[tokio::test]
async fn a_confidential_client_must_authenticate() {
    let server = Server::start().await;
    let registered = server.register(&json!({ "redirect_uris": [REDIRECT_URI] })).await;
    assert_eq!(registered["token_endpoint_auth_method"], "client_secret_basic");
    assert_eq!(registered["client_secret_expires_at"], 0);
    let (client_id, secret) = (text(&registered, "client_id"), text(&registered, "client_secret"));
    let code = server.code(client_id, &[]).await;
    check_rejected(server.redeem(client_id, &code, &[]).await, 401, "invalid_client").await;
    let wrong = server.redeem(client_id, &code, &[("client_secret", "wrong")]).await;
    check_rejected(wrong, 401, "invalid_client").await;
    tokens(server.redeem(client_id, &code, &[("client_secret", secret)]).await).await;

    let public = server.public_client().await;
    let code = server.code(&public, &[]).await;
    let pretending = server.redeem(&public, &code, &[("client_secret", "x")]).await;
    check_rejected(pretending, 401, "invalid_client").await;
}

#[tokio::test]
async fn a_workloads_token_is_marked_as_such() {
    let server = Server::start().await;
    let form = [("grant_type", "client_credentials"), ("resource", "drawbridge-auth")];
    let request = server.http.post(server.url("/token")).form(&form);
    // Some clients encode the credentials (RFC 6749 section 2.3.1), others do not.
    for secret in [WORKLOAD_SECRET, "workload%3Asecret%26%3D"] {
        let request = request.try_clone().unwrap().basic_auth("nightly", Some(secret));
        let answer = tokens(request.send().await.unwrap()).await;
        assert!(answer["refresh_token"].is_null());
        let (_, claims) = server.verify(text(&answer, "access_token"), "drawbridge-auth").await;
        assert_eq!((&claims["sub"], &claims["client_id"]), (&json!("nightly"), &json!("nightly")));
        assert_eq!(claims["gty"], "client-credentials");
        assert_eq!(claims["groups"], json!(["batch"]));
    }

    let refused =
        request.try_clone().unwrap().basic_auth("nightly", Some("wrong")).send().await.unwrap();
    assert!(refused.headers()["www-authenticate"].to_str().unwrap().starts_with("Basic"));
    check_rejected(refused, 401, "invalid_client").await;
    let twice = request.basic_auth("nightly", Some(WORKLOAD_SECRET));
    let form = [("grant_type", "client_credentials"), ("client_secret", WORKLOAD_SECRET)];
    check_rejected(twice.form(&form).send().await.unwrap(), 400, "invalid_request").await;
}

#[tokio::test]
async fn a_registered_client_cannot_use_the_client_credentials_grant() {
    let server = Server::start().await;
    let registered = server
        .register(&json!({
            "redirect_uris": [REDIRECT_URI],
            "grant_types": ["authorization_code", "client_credentials"],
        }))
        .await;
    assert_eq!(registered["grant_types"], json!(["authorization_code"]));
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", text(&registered, "client_id")),
        ("client_secret", text(&registered, "client_secret")),
    ];
    check_rejected(server.token(&form).await, 400, "unauthorized_client").await;
}

#[tokio::test]
async fn an_invalid_token_request_is_rejected() {
    let server = Server::start().await;
    let client_id = server.public_client().await;
    let client = ("client_id", client_id.as_str());
    check_rejected(server.token(&[]).await, 400, "invalid_request").await;
    check_rejected(server.token(&[client]).await, 400, "invalid_request").await;
    check_rejected(server.token(&[client, client]).await, 400, "invalid_request").await;
    let password = ("grant_type", "password");
    check_rejected(server.token(&[client, password]).await, 400, "unsupported_grant_type").await;
    let unknown = server.token(&[("client_id", "unknown"), password]).await;
    assert_eq!(unknown.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(json_of(unknown).await["error"], "invalid_client");
}
