//! Several issuers, the file that names them, and what is remembered of their tokens.

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
async fn a_key_is_good_for_its_own_issuer_alone_and_a_subject_too() {
    let signed = Signed::new();
    // The same key id, as with two tenants of one product.
    let other = publish(&rsa_key(), signed.folder.path(), "other.json");
    let verifier =
        signed.verifier(&format!("{}{}", issuer("a", "keys.json"), issuer("b", "other.json")));
    let header = json!({ "alg": "RS256", "kid": KEY_ID });
    let verify = async |key: &EncodingKey, name: &str| {
        let token = sign(key, &header, &claims(name));
        verifier
            .verify(&token, EDGE, somewhere())
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
async fn issuers_are_told_apart_to_the_letter() {
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
async fn an_issuer_may_be_held_to_marked_tokens_some_algorithms_and_no_leeway() {
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
            .verify(&marked, EDGE, somewhere())
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn what_was_verified_is_forgotten_when_keys_change() {
    let signed = Signed::new();
    let verifier = signed.verifier(&issuer("a", "keys.json"));
    let token = signed.sign(&json!({ "alg": "RS256", "kid": KEY_ID }), &claims("a"));
    let first = verifier.verify(&token, EDGE, somewhere()).await.unwrap();
    assert!(
        Arc::ptr_eq(&first, &verifier.verify(&token, EDGE, somewhere()).await.unwrap()),
        "it is remembered"
    );
    let mut changes = verifier.issuers.changes();
    verifier.issuers.forget_verified();
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    let second = verifier.verify(&token, EDGE, somewhere()).await.unwrap();
    assert!(!Arc::ptr_eq(&first, &second) && first == second, "it is verified anew");
    // A token for one endpoint is not remembered for another.
    assert!(matches!(
        verifier.verify(&token, "https://evil.example", somewhere()).await,
        Err(TokenError::Audience)
    ));
}

/// A made-up token costs a signature check once. What may be good a moment later is looked at each time.
#[tokio::test]
async fn a_refused_token_is_remembered_unless_it_may_heal_or_keys_change() {
    let signed = Signed::new();
    let stranger = publish(&rsa_key(), signed.folder.path(), "other.json");
    let verifier = signed.verifier(&issuer("a", "keys.json"));
    let (header, good) = (json!({ "alg": "RS256", "kid": KEY_ID }), claims("a"));
    let own = |claims: &Value| signed.sign(&header, claims);
    for (token, remembered) in [
        (sign(&stranger, &header, &good), true),
        (own(&claims("b")), true),
        (own(&with(&good, json!({ "exp": now() - 600 }))), true),
        (own(&with(&good, json!({ "aud": "https://other.example" }))), true),
        ("e30.e30".to_owned(), true),
        ("no-issuer-knows-it".to_owned(), true),
        (own(&with(&good, json!({ "nbf": now() + 600 }))), false),
        (signed.sign(&json!({ "alg": "RS256", "kid": "not published yet" }), &good), false),
        (own(&good), false),
    ] {
        let first =
            verifier.verify(&token, EDGE, somewhere()).await.map_err(|error| error.to_string());
        let known = || verifier.refused.get(&digest(&token, EDGE), verifier.issuers.epoch());
        assert_eq!(
            known().map(|error| error.to_string()),
            first.clone().err().filter(|_| remembered)
        );
        let again =
            verifier.verify(&token, EDGE, somewhere()).await.map_err(|error| error.to_string());
        assert_eq!(again, first);
        verifier.issuers.forget_verified();
        assert!(known().is_none(), "a key may have changed");
    }
}

fn issuers(first: &str, second: &str) -> String {
    format!("{}{first}\n{}{second}\n", issuer("a", "keys.json"), issuer("b", "keys.json"))
}

#[tokio::test]
async fn beside_other_issuers_an_issuer_names_the_tenants_to_which_it_is_bound() {
    let signed = Signed::new();
    let check = async |toml: &str, name: &str, claimed: &str, expected: Option<&str>| {
        let verified =
            signed.verify(toml, &with(&claims(name), json!({ "tenant": claimed }))).await;
        match (&verified, expected) {
            (Ok(token), Some(tenant)) => {
                assert_eq!(token.identity.principal.tenant, tenant, "{toml}")
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
        // Who claims none has none.
        check(&toml, "b", "", Some("")).await;
    }
    check(&issuers(own, "tenants = [\"*\"]"), "b", "anything", Some("anything")).await;
    check(&issuers("", own), "a", "acme", None).await;
}

#[test]
fn a_mistake_is_told_with_its_file_and_line() {
    let signed = Signed::new();
    let a = issuer("a", "keys.json");
    let url = "[[issuers]]\nissuer = \"https://a.example\"\n";
    let asks = "introspection = { url = \"https://a.example/i\", client_id = \"c\", client_secret_file = \"keys.json\" }\n";
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
        format!("{url}{asks}{}{asks}", url.replace("a.example", "b.example")),
        "[[issuers]]\nissuer = \"https://accounts.google.com\"\npreset = \"google\"\n".to_owned(),
    ];
    let folder = signed.folder.path().display().to_string();
    let told: Vec<_> = mistakes
        .iter()
        .map(|toml| signed.issuers(toml).unwrap_err().to_string().replace(&folder, ""))
        .collect();
    insta::assert_snapshot!(told.join("\n"), @r#"
    no issuer is given: name one by --issuer, or several in a file by --issuers
    /issuers.toml: TOML parse error at line 1, column 3
      |
    1 | [[issuer]]
      |   ^^^^^^
    unknown field `issuer`, expected `issuers`

    /issuers.toml: TOML parse error at line 4, column 1
      |
    4 | audience = "x"
      | ^^^^^^^^
    unknown field `audience`, expected one of `issuer`, `preset`, `audiences`, `tenants`, `algorithms`, `jwks_url`, `jwks_file`, `claims`, `leeway_seconds`, `require_at_jwt`, `workloads`, `allow_private_addresses`, `introspection`

    /issuers.toml: TOML parse error at line 4, column 10
      |
    4 | preset = "okta"
      |          ^^^^^^
    unknown variant `okta`, expected one of `keycloak`, `auth0`, `entra`, `google`, `kubernetes`

    /issuers.toml:2: audiences must not be empty: absent, they are the edge's URLs
    /issuers.toml:2: algorithms are some of [ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512]
    /issuers.toml: TOML parse error at line 4, column 15
      |
    4 | algorithms = ["none"]
      |               ^^^^^^
    unknown variant `none`, expected one of `HS256`, `HS384`, `HS512`, `ES256`, `ES384`, `RS256`, `RS384`, `RS512`, `PS256`, `PS384`, `PS512`, `EdDSA`

    /issuers.toml:2: leeway_seconds must be at most 300
    /issuers.toml:2: jwks_url and jwks_file exclude one another
    /issuers.toml:6: the issuer https://a.example is given twice
    /issuers.toml:2: the issuer "a.example" is no URL to find keys at: give jwks_url or jwks_file
    /issuers.toml:3: http://a.example/ is not https; allow_private_addresses accepts http
    /issuers.toml:2: an issuer is written as in the claim `iss`, without #
    /issuers.toml:2: http://a.example/keys is not https; allow_private_addresses accepts http
    /issuers.toml: TOML parse error at line 3, column 17
      |
    3 | claims.groups = 1
      |                 ^
    expected the path of a claim, or a list of them

    /issuers.toml:2: claims.tenant_prefix must not be empty: absent, there is none
    /issuers.toml:2: tenants are names, or "*" alone for any
    /issuers.toml:2: introspection needs client_secret_file or client_secret_env
    /issuers.toml:2: the environment variable NO_SUCH_VARIABLE is not set
    /issuers.toml:5: another issuer is asked about opaque tokens already: they do not say whose they are
    /issuers.toml:2: audiences are missing: Google's tokens name OAuth client ids
    "#);
}
