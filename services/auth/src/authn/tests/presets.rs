//! Tokens in exactly the formats of well-known issuers.

use super::*;

const KEYCLOAK: &str = r#"
    [[issuers]]
    issuer = "https://sso.acme.example/realms/acme"
    preset = "keycloak"
    jwks_file = "keys.json"
    claims.roles = ["realm_access.roles", "resource_access.drawbridge.roles"]
"#;

fn keycloak() -> Value {
    json!({
        "exp": now() + 300, "iat": now(), "auth_time": now(), "jti": "onrtac:0b7f6e5c-7b3e-4a52-8f4e-2d7c1c2f9b1a",
        "iss": "https://sso.acme.example/realms/acme", "aud": [EDGE, "account"],
        "sub": "5f0d2b7e-3c1f-4d59-9a3a-0b8f6f0f2c11", "typ": "Bearer", "azp": "mcp-client",
        "sid": "b5f9c3de-5c52-4c58-9d40-3a5e2b6f7a10", "acr": "1", "allowed-origins": ["/*"],
        "realm_access": { "roles": ["offline_access", "auditor"] },
        "resource_access": {
            "drawbridge": { "roles": ["operator"] },
            "account": { "roles": ["manage-account", "view-profile"] },
        },
        "scope": "openid profile email", "email_verified": true, "name": "Alice Archer",
        "groups": ["engineering"], "preferred_username": "alice", "email": "alice@acme.example",
    })
}

#[tokio::test]
async fn a_keycloak_token_has_roles_of_realm_and_client_and_its_kind_in_a_claim() {
    let signed = Signed::new();
    let token = signed.verify(KEYCLOAK, &keycloak()).await.unwrap();
    let alice = token.identity;
    assert_eq!(alice.principal.subject, "5f0d2b7e-3c1f-4d59-9a3a-0b8f6f0f2c11");
    assert_eq!(alice.principal.client_id, "mcp-client");
    assert_eq!(alice.principal.scopes, ["openid", "profile", "email"]);
    assert_eq!(alice.groups, ["engineering"]);
    assert_eq!(alice.roles, ["offline_access", "auditor", "operator"]);
    assert_eq!(alice.email.as_deref(), Some("alice@acme.example"));
    assert_eq!(token.id.as_deref(), Some("onrtac:0b7f6e5c-7b3e-4a52-8f4e-2d7c1c2f9b1a"));
    assert!(!alice.mfa && !alice.workload && token.issued_at.is_some());

    // ID tokens and refresh tokens differ in one claim; older access tokens have a nonce.
    for kind in ["ID", "Refresh", "Offline", "DPoP", "Logout"] {
        let refused = signed.verify(KEYCLOAK, &with(&keycloak(), json!({ "typ": kind }))).await;
        assert!(matches!(refused, Err(TokenError::Kind)), "{kind}: {refused:?}");
    }
    assert!(signed.verify(KEYCLOAK, &with(&keycloak(), json!({ "nonce": "n" }))).await.is_ok());
    // An unverified address does not count.
    let unverified =
        signed.verify(KEYCLOAK, &with(&keycloak(), json!({ "email_verified": false }))).await;
    assert_eq!(unverified.unwrap().identity.email, None);
    // A client's service account, with and without the claims of the scope `service_account`.
    let account = json!({
        "jti": "trrtcc:738fd936-cdb5-d538-062a-2099f4c060aa", "azp": "nightly", "sid": null, "auth_time": null,
        "preferred_username": "service-account-nightly", "email_verified": false, "email": null, "name": null,
    });
    assert!(
        signed
            .verify(KEYCLOAK, &with(&keycloak(), account.clone()))
            .await
            .unwrap()
            .identity
            .workload
    );
    let mut more = account;
    more["client_id"] = json!("nightly");
    more["clientHost"] = json!("10.0.0.7");
    assert!(signed.verify(KEYCLOAK, &with(&keycloak(), more)).await.unwrap().identity.workload);
    // A user with such a name is not a client.
    let posing = json!({ "preferred_username": "service-account-mcp-client" });
    assert!(!signed.verify(KEYCLOAK, &with(&keycloak(), posing)).await.unwrap().identity.workload);
}

const AUTH0: &str = r#"
    [[issuers]]
    issuer = "https://acme.eu.auth0.com/"
    preset = "auth0"
    jwks_file = "keys.json"
    claims.namespace = "https://acme.example/"
"#;

fn auth0() -> Value {
    json!({
        "https://acme.example/groups": ["engineering"],
        "https://acme.example/roles": ["auditor"],
        "https://acme.example/email": "alice@acme.example",
        "https://acme.example/mfa": true,
        "iss": "https://acme.eu.auth0.com/", "sub": "auth0|64f0c0ffee64f0c0ffee64f0",
        "aud": [EDGE, "https://acme.eu.auth0.com/userinfo"],
        "iat": now(), "exp": now() + 86_400, "scope": "openid profile invoices:read",
        "org_id": "org_acme", "azp": "3kP0wqYb1mZ7", "permissions": ["invoices:delete"],
    })
}

#[tokio::test]
async fn an_auth0_token_has_claims_under_a_namespace_and_its_organization_as_tenant() {
    let signed = Signed::new();
    let token = signed.verify(AUTH0, &auth0()).await.unwrap();
    let alice = token.identity;
    assert_eq!(alice.principal.issuer, "https://acme.eu.auth0.com/");
    assert_eq!(alice.principal.tenant, "org_acme");
    assert_eq!(alice.principal.client_id, "3kP0wqYb1mZ7");
    // The user's permissions exceed the client's scopes.
    assert_eq!(alice.principal.scopes, ["openid", "profile", "invoices:read"]);
    assert_eq!(
        (alice.groups, alice.roles),
        (vec!["engineering".to_owned()], vec!["auditor".to_owned()])
    );
    assert_eq!(alice.email.as_deref(), Some("alice@acme.example"));
    assert!(alice.mfa && !alice.workload);

    // The RFC 9068 profile, which a tenant can choose.
    let marked = with(&auth0(), json!({ "azp": null, "client_id": "3kP0wqYb1mZ7", "jti": "t-1" }));
    let token = signed.sign(&json!({ "alg": "RS256", "typ": "at+jwt", "kid": KEY_ID }), &marked);
    let token = signed.verifier(AUTH0).verify(&token, EDGE, client_network()).await.unwrap();
    let alice = &token.identity;
    assert_eq!(
        (token.id.as_deref(), alice.principal.client_id.as_str()),
        (Some("t-1"), "3kP0wqYb1mZ7")
    );

    let machine = json!({ "sub": "3kP0wqYb1mZ7@clients", "gty": "client-credentials" });
    assert!(signed.verify(AUTH0, &with(&auth0(), machine)).await.unwrap().identity.workload);
    // The slash is part of the name.
    let without =
        signed.verify(AUTH0, &with(&auth0(), json!({ "iss": "https://acme.eu.auth0.com" }))).await;
    assert!(matches!(without, Err(TokenError::Issuer)));
    let id_token = json!({ "nonce": "n", "aud": EDGE, "scope": null });
    assert!(matches!(signed.verify(AUTH0, &with(&auth0(), id_token)).await, Err(TokenError::Kind)));
}

const TENANT: &str = "9f1c6a34-52a1-4a53-9d4e-0c8e35d6c5b2";
const ENTRA: &str = r#"
    [[issuers]]
    issuer = "https://login.microsoftonline.com/9f1c6a34-52a1-4a53-9d4e-0c8e35d6c5b2/v2.0"
    preset = "entra"
    jwks_file = "keys.json"
    audiences = ["3f2504e0-4f89-41d3-9a0c-0305e82c3301", "api://drawbridge"]
"#;

fn entra() -> Value {
    json!({
        "aud": "3f2504e0-4f89-41d3-9a0c-0305e82c3301",
        "iss": format!("https://login.microsoftonline.com/{TENANT}/v2.0"),
        "iat": now(), "nbf": now(), "exp": now() + 4_500, "aio": "AXQAi/8TAAAA", "azp": "7c9e6679-7425-40de-944b",
        "azpacr": "0", "groups": ["4b1f7d2c-engineering"], "name": "Alice Archer",
        "oid": "690222be-ff1a-4d56-abd1-7e4f7d38e474", "preferred_username": "alice@acme.example",
        "email": "whatever@victim.example", "rh": "0.AVYA", "roles": ["Auditor"], "scp": "Tools.Read Tools.Write",
        "sub": "HKZpfaHyWadeOouYlitjrI-KffTm222X5rrV3xDqfKQ", "tid": TENANT, "uti": "fqiBqXLPj0eQa82S-IYFAA",
        "ver": "2.0",
    })
}

#[tokio::test]
async fn an_entra_token_has_a_tenant_and_its_email_is_ignored() {
    let signed = Signed::new();
    let token = signed.verify(ENTRA, &entra()).await.unwrap();
    let alice = token.identity;
    assert_eq!(alice.principal.tenant, TENANT);
    assert_eq!(alice.principal.scopes, ["Tools.Read", "Tools.Write"]);
    assert_eq!(
        (alice.groups, alice.roles),
        (vec!["4b1f7d2c-engineering".to_owned()], vec!["Auditor".to_owned()])
    );
    assert_eq!((alice.email, token.id.as_deref()), (None, Some("fqiBqXLPj0eQa82S-IYFAA")));
    assert!(!alice.workload);

    // Tokens of the older endpoint name another issuer and have another client claim.
    let older = json!({
        "iss": format!("https://sts.windows.net/{TENANT}/"), "aud": "api://drawbridge", "ver": "1.0",
        "azp": null, "azpacr": null, "appid": "7c9e6679-7425-40de-944b", "appidacr": "0", "amr": ["pwd", "mfa"],
    });
    let sts = ENTRA.replace("login.microsoftonline.com", "sts.windows.net").replace("v2.0", "");
    let token = signed.verify(&sts, &with(&entra(), older)).await.unwrap();
    let alice = token.identity;
    assert!(alice.mfa && alice.principal.client_id == "7c9e6679-7425-40de-944b");

    // A program has roles, and no scopes delegated by a user.
    let program = json!({ "scp": null, "idtyp": "app", "groups": null });
    assert!(signed.verify(ENTRA, &with(&entra(), program)).await.unwrap().identity.workload);
    let id_token = json!({ "azp": null, "azpacr": null, "scp": null });
    assert!(matches!(signed.verify(ENTRA, &with(&entra(), id_token)).await, Err(TokenError::Kind)));
    let other_tenant =
        json!({ "iss": "https://login.microsoftonline.com/evil/v2.0", "tid": "evil" });
    assert!(matches!(
        signed.verify(ENTRA, &with(&entra(), other_tenant)).await,
        Err(TokenError::Issuer)
    ));
}

#[tokio::test]
async fn a_token_with_omitted_groups_is_rejected_because_a_policy_may_forbid_by_them() {
    let signed = Signed::new();
    let elsewhere = json!({
        "groups": null, "_claim_names": { "groups": "src1" },
        "_claim_sources": { "src1": { "endpoint": "https://graph.example/v1.0/users/690222be/getMemberObjects" } },
    });
    for over in [elsewhere, json!({ "hasgroups": true })] {
        let refused = signed.verify(ENTRA, &with(&entra(), over)).await;
        assert!(matches!(refused, Err(TokenError::Overage)), "{refused:?}");
    }
}

#[tokio::test]
async fn a_cognito_token_needs_no_preset_but_must_name_its_audience() {
    let issuer = r#"
        [[issuers]]
        issuer = "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_AbCdEfGhI"
        jwks_file = "keys.json"
    "#;
    let cognito = json!({
        "sub": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", "cognito:groups": ["engineering"],
        "iss": "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_AbCdEfGhI", "version": 2,
        "client_id": "xxxxxxxxxxxxexample", "origin_jti": "o", "event_id": "e", "token_use": "access",
        "aud": EDGE, "scope": "drawbridge/read", "auth_time": now(), "exp": now() + 3600, "iat": now(),
        "jti": "t", "username": "alice",
    });
    let signed = Signed::new();
    let token = signed.verify(issuer, &cognito).await.unwrap();
    let alice = token.identity;
    assert_eq!(
        (alice.groups, alice.principal.scopes),
        (vec!["engineering".into()], vec!["drawbridge/read".into()])
    );
    let id_token = signed.verify(issuer, &with(&cognito, json!({ "token_use": "id" }))).await;
    assert!(matches!(id_token, Err(TokenError::Kind)));
    let without = signed.verify(issuer, &with(&cognito, json!({ "aud": null }))).await;
    assert!(matches!(without, Err(TokenError::Claims)));
}

const KUBERNETES: &str = r#"
    [[issuers]]
    issuer = "https://kubernetes.default.svc.cluster.local"
    preset = "kubernetes"
    jwks_file = "keys.json"
"#;

/// A projected token of the service account `invoices` in the namespace `billing`.
fn kubernetes() -> Value {
    json!({
        "aud": ["drawbridge-auth"], "exp": now() + 3_607, "iat": now(), "nbf": now(),
        "iss": "https://kubernetes.default.svc.cluster.local", "jti": "ea28ed49-2e11-4280-9ec5-bc3d1d84661a",
        "kubernetes.io": {
            "namespace": "billing",
            "node": { "name": "worker-2", "uid": "58456cb0-dd00-45ed-b797-5578fdceaced" },
            "pod": { "name": "invoices-69cbfb9798-jv9gn", "uid": "778a530c-b3f4-47c0-9cd5-ab018fb64f33" },
            "serviceaccount": { "name": "invoices", "uid": "a087d5a0-e1dd-43ec-93ac-f13d89cd13af" },
            "warnafter": now() + 3_600,
        },
        "sub": "system:serviceaccount:billing:invoices",
    })
}

#[tokio::test]
async fn a_kubernetes_service_account_is_a_workload_in_the_group_of_its_namespace() {
    let signed = Signed::new();
    let issuers = Arc::new(signed.issuers(KUBERNETES).unwrap());
    let verifier = TokenVerifier::new(
        issuers,
        Audience::Own("drawbridge-auth".to_owned()),
        &RefusedTokensConfig::default(),
    );
    // A cluster writes no `typ` header.
    let header = json!({ "alg": "RS256", "kid": KEY_ID });
    let verify = async |claims: &Value| {
        verifier.verify(&signed.sign(&header, claims), "drawbridge-auth", client_network()).await
    };

    let token = verify(&kubernetes()).await.unwrap();
    let Identity { principal, groups, roles, email, mfa, workload } = &token.identity;
    assert_eq!(principal.issuer, "https://kubernetes.default.svc.cluster.local");
    assert_eq!(principal.subject, "system:serviceaccount:billing:invoices");
    assert_eq!((principal.tenant.as_str(), principal.client_id.as_str()), ("", ""));
    assert!(principal.scopes.is_empty() && roles.is_empty() && email.is_none() && !mfa);
    assert_eq!(groups, &["kubernetes:billing"]);
    assert!(workload);
    assert_eq!(token.id.as_deref(), Some("ea28ed49-2e11-4280-9ec5-bc3d1d84661a"));

    // Another account, and the same name in another namespace, are other principals.
    for (namespace, account) in [("billing", "search"), ("staging", "invoices")] {
        let subject = format!("system:serviceaccount:{namespace}:{account}");
        let other = json!({
            "sub": subject,
            "kubernetes.io": { "namespace": namespace, "serviceaccount": { "name": account } },
        });
        let other = verify(&with(&kubernetes(), other)).await.unwrap();
        assert_eq!(other.identity.principal.subject, subject);
        assert_eq!(other.identity.groups, [format!("kubernetes:{namespace}")]);
    }

    let expired = json!({ "exp": now() - 60, "iat": now() - 660, "nbf": now() - 660 });
    assert!(matches!(verify(&with(&kubernetes(), expired)).await, Err(TokenError::Expired)));
    // Each pod's token for the API server.
    let own = json!({ "aud": ["https://kubernetes.default.svc.cluster.local"] });
    assert!(matches!(verify(&with(&kubernetes(), own)).await, Err(TokenError::Audience)));
    // Legacy tokens, which are stored in a Secret and do not expire.
    let old = json!({
        "iss": "kubernetes/serviceaccount", "aud": null, "exp": null, "iat": null, "nbf": null, "jti": null,
        "kubernetes.io": null, "kubernetes.io/serviceaccount/namespace": "billing",
        "kubernetes.io/serviceaccount/service-account.name": "invoices",
    });
    assert!(matches!(verify(&with(&kubernetes(), old)).await, Err(TokenError::Issuer)));
    // An invalid namespace is an error.
    let broken = json!({ "kubernetes.io": { "namespace": 7 } });
    assert!(matches!(verify(&with(&kubernetes(), broken)).await, Err(TokenError::Claims)));
}

/// Kubernetes' API server with the keys of a cluster, which demands a token.
#[tokio::test]
async fn keys_of_a_cluster_are_fetched_with_a_token_and_an_agent_calls_with_its_own() {
    let signed = Signed::new();
    let keys = fs::read_to_string(signed.folder.path().join("keys.json")).unwrap();
    let serve = move |headers: http::HeaderMap| async move {
        let token = headers.get(http::header::AUTHORIZATION).map(|token| token.to_str().unwrap());
        match token {
            Some("Bearer rotated") => (http::StatusCode::OK, keys),
            _ => (http::StatusCode::UNAUTHORIZED, "{}".to_owned()),
        }
    };
    let routes = axum::Router::new().route("/openid/v1/jwks", axum::routing::get(serve));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let issuer = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let token_file = signed.folder.path().join("token");
    fs::write(&token_file, "first").unwrap();
    let toml = format!(
        "[[issuers]]\nissuer = \"{issuer}\"\npreset = \"kubernetes\"\n\
         jwks_token_file = \"token\"\nallow_private_addresses = true\n"
    );
    let header = json!({ "alg": "RS256", "kid": KEY_ID });
    // The audience of an agent's token is the edge.
    let claims = with(&kubernetes(), json!({ "iss": issuer, "aud": [EDGE] }));
    let verify = async |claims: &Value| {
        let verifier = signed.verifier(&toml);
        let token = signed.sign(&header, claims);
        verifier.verify(&token, EDGE, client_network()).await.map(|token| (*token).clone())
    };
    let refused = verify(&claims).await.unwrap_err();
    assert!(matches!(refused, TokenError::Keys(_)), "{refused:?}");
    // The kubelet replaces the token.
    fs::write(&token_file, "rotated\n").unwrap();
    let agent = verify(&claims).await.unwrap().identity;
    assert_eq!(agent.principal.subject, "system:serviceaccount:billing:invoices");
    assert!(agent.workload);
    let elsewhere = with(&claims, json!({ "aud": ["https://other.example/mcp"] }));
    assert!(matches!(verify(&elsewhere).await, Err(TokenError::Audience)));
}

#[test]
fn a_token_for_keys_is_not_sent_in_plaintext_and_needs_a_url() {
    let signed = Signed::new();
    let problem = |more: &str| {
        let toml = format!("[[issuers]]\nissuer = \"https://sso.acme.example\"\n{more}\n");
        signed.issuers(&toml).unwrap_err().to_string()
    };
    let private = "allow_private_addresses = true";
    let plaintext = problem(&format!(
        "jwks_url = \"http://10.0.0.1/keys\"\njwks_token_file = \"token\"\n{private}"
    ));
    assert!(plaintext.contains("the token of jwks_token_file is not sent by http"), "{plaintext}");
    for field in ["jwks_token_file", "jwks_ca_file"] {
        let without_url = problem(&format!("{field} = \"file\""));
        assert!(without_url.contains("need jwks_url, or the preset kubernetes"), "{without_url}");
        let with_file = problem(&format!("jwks_file = \"keys.json\"\n{field} = \"file\""));
        assert!(with_file.contains("jwks_file needs no jwks_ca_file"), "{with_file}");
    }
}
