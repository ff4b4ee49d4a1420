use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;

const ALL: [PatternClass; 4] =
    [PatternClass::Secrets, PatternClass::Cards, PatternClass::Iban, PatternClass::Email];

/// Fake secrets of each kind. Composed at run time, so that secret scanners do not report them.
fn planted() -> Vec<(&'static str, String)> {
    let letters =
        |count: usize| "aB3dE6gH9jK2mN5pQ8sT".chars().cycle().take(count).collect::<String>();
    let upper = letters(16).to_ascii_uppercase();
    vec![
        ("aws-key-id", format!("AKIA{upper}")),
        ("github-token", format!("ghp_{}", letters(36))),
        ("github-token", format!("github_pat_{}_{}", letters(22), letters(59))),
        ("gitlab-token", format!("glpat-{}", letters(20))),
        ("slack-token", format!("xoxb-123456789012-{}", letters(24))),
        ("slack-webhook", format!("hooks.slack.com/services/T00000000/B00000000/{}", letters(24))),
        ("stripe-key", format!("sk_live_{}", letters(24))),
        ("google-key", format!("AIza{}", letters(35))),
        ("google-key", format!("ya29.{}", letters(60))),
        ("model-api-key", format!("sk-ant-api03-{}", letters(80))),
        ("npm-token", format!("npm_{}", letters(36))),
        ("pypi-token", format!("pypi-AgEIcHlwaS5vcmc{}", letters(60))),
        ("vault-token", format!("hvs.{}", letters(90))),
        ("vault-token", format!("s.{}", letters(24))),
        ("jwt", format!("eyJ{}.eyJ{}.{}", letters(30), letters(80), letters(86))),
        ("jwt", format!("eyJ{}..{}.{}.{}", letters(30), letters(16), letters(80), letters(22))),
        (
            "private-key",
            format!(
                "-----BEGIN RSA PRIVATE KEY-----\nDEK-Info: AES-128\n\n{}\n\
                 -----END RSA PRIVATE KEY-----",
                letters(600)
            ),
        ),
        ("private-key", format!("-----BEGIN PRIVATE KEY-----\\n{}", letters(600))),
        ("card", "4111 1111 1111 1111".to_owned()),
        ("card", "378282246310005".to_owned()),
        ("iban", "DE89 3704 0044 0532 0130 00".to_owned()),
        ("iban", "GB29NWBK60161331926819".to_owned()),
        ("email", "ada.lovelace+1843@mail.example.co.uk".to_owned()),
        ("email", "jürgen@bücher.example".to_owned()),
    ]
}

fn redactor() -> &'static Redactor {
    static REDACTOR: LazyLock<Redactor> = LazyLock::new(|| Redactor::new(&ALL, &[]).unwrap());
    &REDACTOR
}

fn redact(text: &str) -> String {
    redactor().redact(text, &mut |_, _| {}).into_owned()
}

#[test]
fn every_kind_of_secret_is_redacted_in_any_context() {
    let redactor = redactor();
    for (name, secret) in planted() {
        for (before, after) in [("", ""), ("key: ", "\nnext"), ("(\"", "\", x)"), ("—", "—")] {
            let mut found = Vec::new();
            let text = format!("{before}{secret}{after}");
            let redacted =
                redactor.redact(&text, &mut |name, count| found.push((name.to_owned(), count)));
            // An unclosed key extends as far as one could.
            let is_unclosed = !secret.ends_with("PRIVATE KEY-----") && name == "private-key";
            let after = if is_unclosed { "" } else { after };
            assert_eq!(redacted, format!("{before}[redacted:{name}]{after}"), "{secret}");
            assert_eq!(found, [(name.to_owned(), 1)], "{secret}");
        }
    }
}

#[test]
fn only_the_secret_within_its_context_is_redacted() {
    let key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    for (text, redacted) in [
        (
            format!("aws_secret_access_key = {key}\n"),
            "aws_secret_access_key = [redacted:aws-secret-key]\n",
        ),
        (
            format!("{{'SecretAccessKey': '{key}'}}"),
            "{'SecretAccessKey': '[redacted:aws-secret-key]'}",
        ),
        (
            "postgres://app:hunter2@db.test:5432/x?sslmode=require".to_owned(),
            "postgres://app:[redacted:password]@db.test:5432/x?sslmode=require",
        ),
        (
            "redis://:p@ss@h/0 and https://a.test:8080/".to_owned(),
            "redis://:[redacted:password]@h/0 and https://a.test:8080/",
        ),
        (
            "host=db user=app password=hunter2 dbname=x".to_owned(),
            "host=db user=app password=[redacted:password] dbname=x",
        ),
        (
            "Server=db;User Id=sa;Password='a b';".to_owned(),
            "Server=db;User Id=sa;Password=[redacted:password];",
        ),
        (
            "Authorization: Basic dXNlcjpodW50ZXIy".to_owned(),
            "Authorization: Basic [redacted:authorization]",
        ),
        (
            "curl -H 'bearer 0123456789abcdef'".to_owned(),
            "curl -H 'bearer [redacted:authorization]'",
        ),
    ] {
        assert_eq!(redact(&text), redacted);
    }
}

#[test]
fn text_that_resembles_a_secret_is_unchanged() {
    let redactor = redactor();
    for text in [
        "fn main() { println!(\"{}\", 1 + 1); }",
        "order 4111111111111112 of 2026-11-23 14:46:19, took 1764000000000000000 ns",
        "DE88 3704 0044 0532 0130 00",
        "lodash@4.17.21, @scope/name, a@b",
        "a bearer authentication-mechanism of sk-learn-like-estimators-only",
        "https://a.test:8080/path?x=1#y, s.trim(), eyJ is how a JWT begins",
        "3f786850e387550fdab836ed7e6dc881de23001b 123e4567-e89b-12d3-a456-426614174000",
        "host=db user=app",
    ] {
        assert!(
            matches!(redactor.redact(text, &mut |_, _| {}), Cow::Borrowed(_)),
            "{}",
            redact(text)
        );
    }
}

#[test]
fn a_number_is_found_after_an_invalid_match() {
    assert_eq!(redact("2025 4111 1111 1111 1111 25"), "2025 [redacted:card] 25");
    assert_eq!(redact("ab12 DE89370400440532013000 x"), "ab12 [redacted:iban] x");
}

#[test]
fn a_number_that_a_replacement_separates_is_redacted_too() {
    assert_eq!(redact("a@b.com4111111111111111"), "[redacted:email][redacted:card]");
}

#[test]
fn values_of_fields_with_secret_names_are_redacted() {
    let redactor = redactor();
    for name in [
        "password",
        "dbPassword",
        "client_secret",
        "AWS-Secret-Access-Key",
        "apiKey",
        "Authorization",
    ] {
        assert_eq!(
            redactor.redact_field(Some(name), "x", &mut |_, _| {}),
            "[redacted:field]",
            "{name}"
        );
    }
    for name in ["nextPageToken", "passwordless", "keys", "secretary"] {
        assert_eq!(redactor.redact_field(Some(name), "x", &mut |_, _| {}), "x", "{name}");
    }
    assert_eq!(redactor.redact_field(Some("password"), "", &mut |_, _| {}), "");
}

#[test]
fn custom_patterns_match_first_and_are_bounded() {
    let custom = |pattern, replacement| CustomPattern { name: "staff", pattern, replacement };
    let redactor = Redactor::new(&ALL, &[custom("E-[0-9]{6}", None)]).unwrap();
    assert_eq!(
        redactor.redact("E-123456 a@b.de", &mut |_, _| {}),
        "[redacted:staff] [redacted:email]"
    );
    let redactor = Redactor::new(&[], &[custom("id (?<secret>[0-9]+)", Some("***"))]).unwrap();
    assert_eq!(redactor.redact("id 7 a@b.de", &mut |_, _| {}), "id *** a@b.de");
    for (pattern, replacement, reason) in [
        ("(", None, "unclosed group"),
        ("x*", None, "the empty text"),
        ("(?:[a-z]{1,500}){1,500}", None, "size limit"),
        ("[a-z]+", None, "match again"),
        ("x", Some("a@b.de"), "match again"),
    ] {
        let errors = Redactor::new(&ALL, &[custom(pattern, replacement)]).unwrap_err();
        let (_, error) = &errors[0];
        assert!(error.to_string().contains(reason), "{pattern}: {error}");
    }
}

/// Quadratic matching would not end here.
#[test]
fn an_adversarial_text_is_redacted_in_linear_time() {
    let redactor = redactor();
    for piece in [
        "-----BEGIN PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY----- a@b.de --",
        "4 1 ",
        "DE89 ",
        "a.",
        "a://",
        "a@b.c.",
        "host= ",
        "eyJaaaaaaaaa.",
        "eyJaaaaaaaaaa-AKIAAAAAAAAAAAAAAAAA-",
    ] {
        let text = piece.repeat(400_000 / piece.len());
        let once = redactor.redact(&text, &mut |_, _| {});
        assert!(!once.contains("PRIVATE KEY") && !once.contains("AKIA"), "{piece}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn all_planted_secrets_are_redacted_in_one_call(
        pieces in prop::collection::vec(
            (0..planted().len(), "[ \\n\",:;()=@/—-]|(\\PC){0,6}"),
            0..5,
        )
    ) {
        let secrets = planted();
        let redactor = redactor();
        let texts = pieces.iter().map(|(which, between)| {
            format!("{between} {} ", secrets[*which].1)
        });
        let text: String = texts.collect();
        let once = redactor.redact(&text, &mut |_, _| {}).into_owned();
        for (which, _) in &pieces {
            prop_assert!(!once.contains(&secrets[*which].1), "{} in {:?}", secrets[*which].1, once);
        }
        let twice = redactor.redact(&once, &mut |_, _| {});
        prop_assert_eq!(&*twice, &*once);
    }

    #[test]
    fn redaction_is_idempotent(text in "\\PC{0,40}") {
        let once = redact(&text);
        prop_assert_eq!(redact(&once), once);
    }
}
