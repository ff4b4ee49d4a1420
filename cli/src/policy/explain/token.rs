//! The caller according to a token's claims, read as auth does for an issuer without a claim
//! mapping.

use std::path::Path;

use anyhow::{Context as _, bail};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use drawbridge_config::policy::PrincipalSpec;
use drawbridge_runtime::bounded;
use serde_json::Value;

/// The longest token, in bytes.
const BYTES_MAX: u64 = 64 * 1024;
/// The claims in which issuers name the OAuth client.
const CLIENT: [&str; 4] = ["client_id", "azp", "appid", "cid"];

/// Reads the claims of the token in a file, or from standard input.
pub(super) fn read(file: &Path) -> anyhow::Result<PrincipalSpec> {
    let text = if file == Path::new("-") {
        bounded::read_to_string(std::io::stdin(), BYTES_MAX)
    } else {
        bounded::read_file_to_string(file, BYTES_MAX)
    };
    let text = text.with_context(|| format!("cannot read the token in {}", file.display()))?;
    // Errors do not quote the text: it may be another secret.
    let mut parts = text.trim().split('.');
    let (Some(_), Some(claims), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        bail!("the token is not a signed JWT; give the caller's attributes by flags instead");
    };
    let claims = URL_SAFE_NO_PAD.decode(claims).context("the token's claims are not base64url")?;
    let claims: Value =
        serde_json::from_slice(&claims).context("the token's claims are not valid JSON")?;
    who(&claims).context("the token lacks `iss` or `sub`")
}

fn who(claims: &Value) -> Option<PrincipalSpec> {
    let text = |name: &str| claims[name].as_str().map(ToOwned::to_owned);
    let list = |name: &str| match &claims[name] {
        Value::String(text) => text.split_whitespace().map(ToOwned::to_owned).collect(),
        Value::Array(items) => {
            items.iter().filter_map(|item| item.as_str().map(ToOwned::to_owned)).collect::<Vec<_>>()
        }
        _ => Vec::new(),
    };
    let amr: Vec<String> = list("amr");
    let client = CLIENT.iter().find_map(|name| text(name)).unwrap_or_default();
    let subject = text("sub")?;
    // RFC 9068 section 5: in a client's own token both are the same.
    let workload = subject == client || claims["gty"] == "client-credentials";
    Some(PrincipalSpec {
        issuer: text("iss")?,
        subject,
        client,
        tenant: text("tenant").unwrap_or_default(),
        groups: list("groups"),
        roles: list("roles"),
        scopes: list("scope"),
        email: text("email"),
        mfa: amr.iter().any(|method| method == "mfa"),
        workload,
    })
}
