//! Multiple issuers, the issuers file, and caching of their tokens.

use drawbridge_config::ConfigText;

use super::*;

fn issuer(name: &str, keys: &str) -> String {
    format!("[[issuers]]\nissuer = \"https://{name}.example\"\njwks_file = \"{keys}\"\n")
}

fn claims(issuer: &str) -> Value {
    json!({
        "iss": format!("https://{issuer}.example"), "sub": "alice", "aud": EDGE, "client_id": "c",
        "iat": now(), "exp": now() + 300, "jti": "t-1",
    })
}

#[tokio::test]
async fn a_key_is_valid_for_its_own_issuer_only() {
    let signed = Signed::new();
    // The same key id, as with two tenants of one product.
    let other = publish(&rsa_key(), signed.folder.path(), "other.json");
    let verifier =
        signed.verifier(&format!("{}{}", issuer("a", "keys.json"), issuer("b", "other.json")));
    let header = json!({ "alg": "RS256", "kid": KEY_ID });
    let verify = async |key: &EncodingKey, name: &str| {
        let token = sign(key, &header, &claims(name));
        verifier
            .verify(&token, EDGE, client_network())
            .await
            .map(|token| token.identity.principal.issuer.clone())
    };
    assert_eq!(verify(&signed.key, "a").await.unwrap(), "https://a.example");
    assert_eq!(verify(&other, "b").await.unwrap(), "https://b.example");
    assert!(matches!(verify(&signed.key, "b").await, Err(TokenError::Signature)));
    assert!(matches!(verify(&other, "a").await, Err(TokenError::Signature)));
    assert!(matches!(verify(&signed.key, "c").await, Err(TokenError::Issuer)));
}

#[tokio::test]
async fn issuer_names_are_compared_exactly() {
    let signed = Signed::new();
    let toml = issuer("a", "keys.json");
    for name in [
        "https://a.example/",
        "https://A.example",
        "https://a.example:443",
        "http://a.example",
        " ",
    ] {
        let refused = signed.verify(&toml, &with(&claims("a"), json!({ "iss": name }))).await;
        assert!(matches!(refused, Err(TokenError::Issuer)), "{name}: {refused:?}");
    }
    for odd in [json!(["https://a.example"]), json!({}), json!(1), Value::Null] {
        let mut claims = claims("a");
        claims["iss"] = odd;
        assert!(matches!(signed.verify(&toml, &claims).await, Err(TokenError::Claims)));
    }
}

#[tokio::test]
async fn an_issuer_may_require_marked_tokens_some_algorithms_and_no_leeway() {
    let signed = Signed::new();
    let strict = |line: &str| format!("{}{line}\n", issuer("a", "keys.json"));
    let good = claims("a");
    let unmarked = signed.verify(&strict("require_at_jwt = true"), &good).await;
    assert!(matches!(unmarked, Err(TokenError::Header("type"))));
    let other = signed.verify(&strict(r#"algorithms = ["ES256", "PS256"]"#), &good).await;
    assert!(matches!(other, Err(TokenError::Header("algorithm"))));
    let late = with(&good, json!({ "exp": now() - 2 }));
    assert!(signed.verify(&strict(""), &late).await.is_ok());
    assert!(matches!(
        signed.verify(&strict("leeway_seconds = 0"), &late).await,
        Err(TokenError::Expired)
    ));
    assert!(signed.verify(&strict("workloads = true"), &good).await.unwrap().identity.workload);
    let marked = signed.sign(&json!({ "alg": "RS256", "typ": "at+JWT", "kid": KEY_ID }), &good);
    assert!(
        signed
            .verifier(&strict("require_at_jwt = true"))
            .verify(&marked, EDGE, client_network())
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_key_change_evicts_verified_tokens() {
    let signed = Signed::new();
    let verifier = signed.verifier(&issuer("a", "keys.json"));
    let token = signed.sign(&json!({ "alg": "RS256", "kid": KEY_ID }), &claims("a"));
    let first = verifier.verify(&token, EDGE, client_network()).await.unwrap();
    assert!(
        Arc::ptr_eq(&first, &verifier.verify(&token, EDGE, client_network()).await.unwrap()),
        "it is cached"
    );
    let mut changes = verifier.issuers.subscribe();
    verifier.issuers.invalidate_verified();
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    let second = verifier.verify(&token, EDGE, client_network()).await.unwrap();
    assert!(!Arc::ptr_eq(&first, &second) && first == second, "it is verified again");
    // A cached token of one endpoint is not valid for another.
    assert!(matches!(
        verifier.verify(&token, "https://evil.example", client_network()).await,
        Err(TokenError::Audience)
    ));
}

/// A forged token costs one signature check. A token that may become valid is checked each time.
#[tokio::test]
async fn a_rejected_token_is_cached_unless_it_may_become_valid_or_keys_change() {
    let signed = Signed::new();
    let foreign = publish(&rsa_key(), signed.folder.path(), "other.json");
    let verifier = signed.verifier(&issuer("a", "keys.json"));
    let (header, good) = (json!({ "alg": "RS256", "kid": KEY_ID }), claims("a"));
    let own = |claims: &Value| signed.sign(&header, claims);
    for (token, is_cached) in [
        (sign(&foreign, &header, &good), true),
        (own(&claims("b")), true),
        (own(&with(&good, json!({ "exp": now() - 600 }))), true),
        (own(&with(&good, json!({ "aud": "https://other.example" }))), true),
        ("e30.e30".to_owned(), true),
        ("no-issuer-knows-it".to_owned(), true),
        (own(&with(&good, json!({ "nbf": now() + 600 }))), false),
        (signed.sign(&json!({ "alg": "RS256", "kid": "not published yet" }), &good), false),
        (own(&good), false),
    ] {
        let first = verifier
            .verify(&token, EDGE, client_network())
            .await
            .map_err(|error| error.to_string());
        let cached = || verifier.refused.get(&digest(&token, EDGE), verifier.issuers.epoch());
        assert_eq!(
            cached().map(|error| error.to_string()),
            first.clone().err().filter(|_| is_cached)
        );
        let again = verifier
            .verify(&token, EDGE, client_network())
            .await
            .map_err(|error| error.to_string());
        assert_eq!(again, first);
        verifier.issuers.invalidate_verified();
        assert!(cached().is_none(), "a key may have changed");
    }
}

fn issuers(first: &str, second: &str) -> String {
    format!("{}{first}\n{}{second}\n", issuer("a", "keys.json"), issuer("b", "keys.json"))
}

#[tokio::test]
async fn beside_other_issuers_an_issuer_may_name_only_its_configured_tenants() {
    let signed = Signed::new();
    let check = async |toml: &str, name: &str, claimed: &str, expected: Option<&str>| {
        let verified =
            signed.verify(toml, &with(&claims(name), json!({ "tenant": claimed }))).await;
        match (&verified, expected) {
            (Ok(token), Some(tenant)) => {
                assert_eq!(token.identity.principal.tenant, tenant, "{toml}");
            }
            (Err(TokenError::Tenant), None) => {}
            _ => panic!("{toml} {name} {claimed}: {verified:?}"),
        }
    };
    check(&issuer("a", "keys.json"), "a", "acme", Some("acme")).await;
    let own = r#"tenants = ["acme", "umbrella"]"#;
    for (partner, bound) in [
        ("", None),
        ("claims.group_prefix = \"partner:\"", None),
        ("claims.tenant_prefix = \"partner:\"", Some("partner:acme")),
        ("tenants = []", None),
        ("tenants = [\"globex\"]", None),
        ("preset = \"kubernetes\"\nclaims.tenant = \"tenant\"", Some("kubernetes.acme")),
        ("preset = \"kubernetes\"\nclaims.tenant = \"tenant\"\ntenants = [\"acme\"]", Some("acme")),
    ] {
        let toml = issuers(own, partner);
        check(&toml, "a", "acme", Some("acme")).await;
        check(&toml, "a", "globex", None).await;
        check(&toml, "b", "acme", bound).await;
        // A token without a tenant has none.
        check(&toml, "b", "", Some("")).await;
    }
    check(&issuers(own, "tenants = [\"*\"]"), "b", "anything", Some("anything")).await;
    check(&issuers("", own), "a", "acme", None).await;
}

#[test]
fn an_error_in_the_issuers_file_names_its_line() {
    let signed = Signed::new();
    let a = issuer("a", "keys.json");
    let url = "[[issuers]]\nissuer = \"https://a.example\"\n";
    let introspection = "introspection = { url = \"https://a.example/i\", client_id = \"c\", client_secret_file = \"keys.json\" }\n";
    let mistakes = [
        String::new(),
        a.replace("[[issuers]]", "[[issuer]]"),
        format!("{a}audience = \"x\"\n"),
        format!("{a}preset = \"okta\"\n"),
        format!("{a}audiences = []\n"),
        format!("{a}algorithms = [\"HS256\"]\n"),
        format!("{a}algorithms = [\"none\"]\n"),
        format!("{a}leeway_seconds = 3600\n"),
        format!("{a}jwks_url = \"https://a.example/keys\"\n"),
        format!("{a}\n{a}"),
        "[[issuers]]\nissuer = \"a.example\"\n".to_owned(),
        "\n[[issuers]]\nissuer = \"http://a.example\"\n".to_owned(),
        "[[issuers]]\nissuer = \"https://a.example#b\"\n".to_owned(),
        format!("{url}jwks_url = \"http://a.example/keys\"\n"),
        format!("{url}claims.groups = 1\n"),
        format!("{url}claims.tenant_prefix = \"\"\n"),
        format!("{url}tenants = [\"acme\", \"*\"]\n"),
        format!("{url}introspection = {{ url = \"https://a.example/i\", client_id = \"c\" }}\n"),
        format!(
            "{url}introspection = {{ url = \"https://a.example/i\", client_id = \"c\", client_secret_env = \"NO_SUCH_VARIABLE\" }}\n"
        ),
        format!("{url}{introspection}{}{introspection}", url.replace("a.example", "b.example")),
        "[[issuers]]\nissuer = \"https://accounts.google.com\"\npreset = \"google\"\n".to_owned(),
    ];
    let folder = signed.folder.path().display().to_string();
    let messages: Vec<_> = mistakes
        .iter()
        .map(|toml| signed.issuers(toml).unwrap_err().to_string().replace(&folder, ""))
        .collect();
    insta::assert_snapshot!(messages.join("\n"), @r#"
    no issuer is configured: name one with --issuer, or several in a file with --issuers
    /issuers.toml:1:3: unknown field `issuer`, expected `issuers`
      |
    1 | [[issuer]]
      |   ^^^^^^
      = help: did you mean `issuers`?
    /issuers.toml:4:1: unknown field `audience`, expected one of `issuer`, `preset`, `audiences`, `tenants`, `algorithms`, `jwks_url`, `jwks_file`, `jwks_ca_file`, `jwks_token_file`, `claims`, `leeway_seconds`, `require_at_jwt`, `workloads`, `allow_private_addresses`, `introspection`
      |
    4 | audience = "x"
      | ^^^^^^^^
      = help: did you mean `audiences`?
    /issuers.toml:4:10: unknown variant `okta`, expected one of `keycloak`, `auth0`, `entra`, `google`, `kubernetes`
      |
    4 | preset = "okta"
      |          ^^^^^^
    /issuers.toml:4:13: audiences must not be empty: omit them for the edge's URLs
      |
    4 | audiences = []
      |             ^^
    /issuers.toml:4:15: unknown variant `HS256`, expected one of `ES256`, `ES384`, `EdDSA`, `PS256`, `PS384`, `PS512`, `RS256`, `RS384`, `RS512`
      |
    4 | algorithms = ["HS256"]
      |               ^^^^^^^
    /issuers.toml:4:15: unknown variant `none`, expected one of `ES256`, `ES384`, `EdDSA`, `PS256`, `PS384`, `PS512`, `RS256`, `RS384`, `RS512`
      |
    4 | algorithms = ["none"]
      |               ^^^^^^
    /issuers.toml:4:18: must be from 0 to 300
      |
    4 | leeway_seconds = 3600
      |                  ^^^^
    /issuers.toml:3:13: jwks_url and jwks_file are mutually exclusive
      |
    3 | jwks_file = "keys.json"
      |             ^^^^^^^^^^^
    /issuers.toml:6:10: the issuer https://a.example is configured twice
      |
    6 | issuer = "https://a.example"
      |          ^^^^^^^^^^^^^^^^^^^
    /issuers.toml:2:10: the issuer "a.example" is not a URL, so its keys cannot be located: set jwks_url or jwks_file
      |
    2 | issuer = "a.example"
      |          ^^^^^^^^^^^
    /issuers.toml:3:10: http://a.example/ is not https; set allow_private_addresses to allow http
      |
    3 | issuer = "http://a.example"
      |          ^^^^^^^^^^^^^^^^^^
    /issuers.toml:2:10: an issuer must be a value of the claim `iss` without #
      |
    2 | issuer = "https://a.example#b"
      |          ^^^^^^^^^^^^^^^^^^^^^
    /issuers.toml:3:12: http://a.example/keys is not https; set allow_private_addresses to allow http
      |
    3 | jwks_url = "http://a.example/keys"
      |            ^^^^^^^^^^^^^^^^^^^^^^^
    /issuers.toml:3:17: expected the path of a claim, or an array of them
      |
    3 | claims.groups = 1
      |                 ^
    /issuers.toml:3:24: claims.tenant_prefix must not be empty: omit it for no prefix
      |
    3 | claims.tenant_prefix = ""
      |                        ^^
    /issuers.toml:3:20: tenants must be names, or only "*" for any
      |
    3 | tenants = ["acme", "*"]
      |                    ^^^
    /issuers.toml:3:25: introspection needs client_secret_file or client_secret_env
      |
    3 | introspection = { url = "https://a.example/i", client_id = "c" }
      |                         ^^^^^^^^^^^^^^^^^^^^^
    /issuers.toml:3:85: the environment variable NO_SUCH_VARIABLE is not set
      |
    3 | introspection = { url = "https://a.example/i", client_id = "c", client_secret_env = "NO_SUCH_VARIABLE" }
      |                                                                                     ^^^^^^^^^^^^^^^^^^
    /issuers.toml:6:25: only one issuer may have introspection: opaque tokens do not name their issuer
      |
    6 | introspection = { url = "https://a.example/i", client_id = "c", client_secret_file = "keys.json" }
      |                         ^^^^^^^^^^^^^^^^^^^^^
    /issuers.toml:2:10: audiences are missing: Google's tokens name OAuth client ids
      |
    2 | issuer = "https://accounts.google.com"
      |          ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    "#);
}

#[tokio::test]
async fn a_reload_applies_what_changed_and_keeps_the_keys_of_the_rest() {
    let signed = Signed::new();
    let (a, b) = (issuer("a", "keys.json"), issuer("b", "keys.json"));
    let verifier = signed.verifier(&format!("{a}{b}"));
    let header = json!({ "alg": "RS256", "kid": KEY_ID });
    let token = |name: &str| signed.sign(&header, &claims(name));
    let (of_a, of_b) = (token("a"), token("b"));
    let verify = async |token: &str| verifier.verify(token, EDGE, client_network()).await;
    verify(&of_a).await.unwrap();
    verify(&of_b).await.unwrap();
    let reload = |text: &str| {
        verifier.issuers.reload(&ConfigText::new(signed.folder.path().join("issuers.toml"), text))
    };
    // From now on no keys can be fetched.
    fs::remove_file(signed.folder.path().join("keys.json")).unwrap();
    let (epoch, before) = (verifier.issuers.epoch(), verifier.issuers.get("https://a.example"));

    assert!(!reload(&format!("# A comment.\n{b}{a}")).unwrap());
    for invalid in ["", &a.repeat(2), "[[issuers]]\nissuer = 1\n"] {
        reload(invalid).unwrap_err();
    }
    assert_eq!(verifier.issuers.epoch(), epoch, "nothing changed");
    verify(&of_b).await.unwrap();

    // `b` ends, with the task that refreshes its keys. `a` is as it was.
    let removed = Arc::downgrade(&verifier.issuers.get("https://b.example").unwrap());
    assert!(reload(&format!("{a}{}", issuer("c", "more.json"))).unwrap());
    assert!(matches!(verify(&of_b).await, Err(TokenError::Issuer)));
    assert!(removed.upgrade().is_none());
    let after = verifier.issuers.get("https://a.example").unwrap();
    assert!(Arc::ptr_eq(&after, &before.unwrap()));
    verify(&of_a).await.unwrap();
    assert!(matches!(verify(&token("c")).await, Err(TokenError::Keys(_))));

    // `a` changes, but for its keys.
    assert!(reload(&format!("{a}audiences = [\"another\"]\n")).unwrap());
    assert!(matches!(verify(&of_a).await, Err(TokenError::Audience)));
    assert!(reload(&a).unwrap());
    verify(&of_a).await.unwrap();
    assert!(reload(&issuer("a", "more.json")).unwrap());
    assert!(matches!(verify(&of_a).await, Err(TokenError::Keys(_))));
}
