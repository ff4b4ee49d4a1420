//! Dynamic client registration (RFC 7591).

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Json,
    body::Bytes,
    extract::{ConnectInfo, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use drawbridge_audit::event::SignIn;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    address::ClientAddress,
    client::{Client, ClientId, RedirectUri},
    client_name,
    error::{ErrorCode, OAuthError},
    grant_type::GrantType,
    secret,
    server::Idp,
    unix_time,
};

const REDIRECT_URIS_MAX: usize = 10;
const CLIENT_NAME_CHARS_MAX: usize = 200;

/// A registration request. Unknown fields are ignored (RFC 7591 section 2).
#[derive(Deserialize)]
struct Registration {
    #[serde(default)]
    redirect_uris: Vec<String>,
    client_name: Option<String>,
    token_endpoint_auth_method: Option<String>,
    grant_types: Option<Vec<String>>,
    response_types: Option<Vec<String>>,
}

/// The response (RFC 7591 section 3.2.1).
#[derive(Serialize)]
struct Registered<'a> {
    client_id: &'a ClientId,
    client_id_issued_at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_secret: Option<&'a str>,
    /// Zero: it does not expire.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_secret_expires_at: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_name: Option<&'a str>,
    redirect_uris: &'a [RedirectUri],
    token_endpoint_auth_method: AuthMethod,
    grant_types: &'a [GrantType],
    response_types: [&'static str; 1],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum AuthMethod {
    None,
    ClientSecretBasic,
    ClientSecretPost,
}

pub(crate) async fn register(
    State(idp): State<Arc<Idp>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    body: Bytes,
) -> Response {
    let record = SignIn {
        client_address: ClientAddress::from(peer).ip().to_string(),
        grant: "register".to_owned(),
        ..SignIn::default()
    };
    let registered = read(&body, &idp.redirect_schemes).and_then(|(client, auth_method)| {
        let client = Arc::new(client);
        let added = idp.store.add_client(Arc::clone(&client), peer.into());
        let full = ErrorCode::TemporarilyUnavailable
            .because("there are too many unused registrations from this address");
        added.map(|()| (client, auth_method)).map_err(|_| full)
    });
    let (client, auth_method) = match registered {
        Ok(registered) => registered,
        Err(error) => {
            tracing::info!(
                error = error.code.as_str(),
                reason = error.description,
                "rejected a registration"
            );
            idp.record_failed(error.code.as_str(), record);
            return error.into_response();
        }
    };
    idp.save().await;
    tracing::info!(client_id = client.id.0, client_name = client.name, "registered a client");
    let (client_id, client_name) = (client.id.0.clone(), client.name.clone().unwrap_or_default());
    if idp.record(SignIn { client_id, client_name, ..record }).await.is_err() {
        let error = ErrorCode::TemporarilyUnavailable;
        return error.because("the registration cannot be recorded now").into_response();
    }
    let registered = Registered {
        client_id: &client.id,
        client_id_issued_at: unix_time::seconds_since_1970(),
        client_secret: client.secret.as_ref().map(|secret| secret.expose_secret()),
        client_secret_expires_at: client.secret.as_ref().map(|_| 0),
        client_name: client.name.as_deref(),
        redirect_uris: &client.redirect_uris,
        token_endpoint_auth_method: auth_method,
        grant_types: &client.grant_types,
        response_types: ["code"],
    };
    (StatusCode::CREATED, [(header::CACHE_CONTROL, "no-store")], Json(registered)).into_response()
}

fn read(body: &[u8], redirect_schemes: &[String]) -> Result<(Client, AuthMethod), OAuthError> {
    let registration: Registration = serde_json::from_slice(body).map_err(|_| {
        ErrorCode::InvalidClientMetadata.because("the body is not client metadata in JSON")
    })?;
    let auth_method = auth_method(registration.token_endpoint_auth_method.as_deref())?;
    let secret = (auth_method != AuthMethod::None).then(|| SecretString::from(secret::random()));
    let client = Client {
        id: ClientId(Uuid::new_v4().to_string()),
        name: client_name(registration.client_name)?,
        redirect_uris: redirect_uris(&registration.redirect_uris, redirect_schemes)?,
        grant_types: grant_types(registration.grant_types.as_deref())?,
        secret,
        groups: Vec::new(),
        internal: false,
    };
    if registration.response_types.is_some_and(|types| !types.iter().any(|kind| kind == "code")) {
        return Err(ErrorCode::InvalidClientMetadata.because("response_types must contain code"));
    }
    Ok((client, auth_method))
}

fn auth_method(requested: Option<&str>) -> Result<AuthMethod, OAuthError> {
    match requested {
        Some("none") => Ok(AuthMethod::None),
        // RFC 7591 section 2: the default.
        None | Some("client_secret_basic") => Ok(AuthMethod::ClientSecretBasic),
        Some("client_secret_post") => Ok(AuthMethod::ClientSecretPost),
        Some(_) => {
            Err(ErrorCode::InvalidClientMetadata
                .because("token_endpoint_auth_method is unsupported"))
        }
    }
}

/// Ignores grant types that registered clients cannot use here: VS Code also registers the device
/// grant, and the client credentials grant is for configured workloads.
fn grant_types(requested: Option<&[String]>) -> Result<Vec<GrantType>, OAuthError> {
    let Some(requested) = requested else { return Ok(vec![GrantType::AuthorizationCode]) };
    let mut granted = Vec::new();
    for grant_type in requested.iter().filter_map(|text| GrantType::parse(text)) {
        if grant_type != GrantType::ClientCredentials && !granted.contains(&grant_type) {
            granted.push(grant_type);
        }
    }
    if granted.contains(&GrantType::AuthorizationCode) {
        Ok(granted)
    } else {
        Err(ErrorCode::InvalidClientMetadata.because("grant_types must contain authorization_code"))
    }
}

fn redirect_uris(requested: &[String], schemes: &[String]) -> Result<Vec<RedirectUri>, OAuthError> {
    let reject = |description| Err(ErrorCode::InvalidRedirectUri.because(description));
    if requested.is_empty() {
        return reject("redirect_uris must name at least one URI");
    }
    if requested.len() > REDIRECT_URIS_MAX {
        return reject("redirect_uris must name at most 10 URIs");
    }
    let allowed = |text: &String| {
        RedirectUri::parse(text).ok().filter(|uri: &RedirectUri| uri.has_scheme_of(schemes))
    };
    requested.iter().map(allowed).collect::<Option<_>>().map_or_else(
        || {
            reject(
                "a redirect URI must be https, http on a loopback host, of a scheme with a dot, \
                 or of a configured scheme",
            )
        },
        Ok,
    )
}

fn client_name(requested: Option<String>) -> Result<Option<String>, OAuthError> {
    let is_valid = |name: &String| {
        name.chars().count() <= CLIENT_NAME_CHARS_MAX && !name.contains(char::is_control)
    };
    match requested {
        Some(name) if !name.trim().is_empty() && !is_valid(&name) => {
            Err(ErrorCode::InvalidClientMetadata
                .because("client_name is too long or has control characters"))
        }
        name => Ok(name.and_then(|name| client_name::cleaned(&name))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(metadata: &Value, expected: Result<(), ErrorCode>) {
        let outcome =
            read(metadata.to_string().as_bytes(), &["cursor".to_owned(), "vscode".to_owned()])
                .map(|_| ())
                .map_err(|error| error.code);
        assert_eq!(outcome, expected, "{metadata}");
    }

    #[test]
    fn a_redirect_uri_must_be_https_loopback_or_private_use() {
        for uri in [
            "https://app.example/cb",
            "https://app.example:8443/cb?x=1",
            "http://127.0.0.1/cb",
            "http://127.0.0.1:33418/",
            "http://[::1]:1/cb",
            "http://localhost:8080/cb",
            "cursor://anysphere.cursor-retrieval/oauth/cb",
            "vscode://ms.copilot/cb",
            "com.example.app:/oauth2redirect",
        ] {
            check(&json!({ "redirect_uris": [uri] }), Ok(()));
        }
        for uri in [
            "",
            "/cb",
            "http://app.example/cb",
            "http://127.0.0.1.evil.example/cb",
            "http://localhost.evil.example/cb",
            "http://user@127.0.0.1/cb",
            "https://app.example/cb#fragment",
            "https://app.example/cb#",
            "https://app.example/c b",
            "java\nscript:alert(1)",
            "javascript:alert(1)",
            "JavaScript:alert(1)",
            "data:text/html,x",
            "file:///etc/passwd",
            "blob:https://app.example/1",
            "vbscript:x",
            "ms-msdt:/id",
            "slack://open",
            "intent:x",
            "tel:1",
            &format!("https://app.example/{}", "x".repeat(2048)),
        ] {
            check(&json!({ "redirect_uris": [uri] }), Err(ErrorCode::InvalidRedirectUri));
        }
    }

    #[test]
    fn the_number_of_redirect_uris_is_one_to_ten() {
        check(&json!({ "redirect_uris": vec!["https://app.example/cb"; 10] }), Ok(()));
        check(
            &json!({ "redirect_uris": vec!["https://app.example/cb"; 11] }),
            Err(ErrorCode::InvalidRedirectUri),
        );
        check(&json!({ "redirect_uris": [] }), Err(ErrorCode::InvalidRedirectUri));
        check(&json!({}), Err(ErrorCode::InvalidRedirectUri));
    }

    #[test]
    fn unsupported_metadata_is_rejected() {
        let with = |field: &str, value: Value| {
            let mut metadata = json!({ "redirect_uris": ["https://app.example/cb"] });
            metadata[field] = value;
            metadata
        };
        let refused = Err(ErrorCode::InvalidClientMetadata);
        check(&json!("no object"), refused);
        check(&with("redirect_uris", json!("https://app.example/cb")), refused);
        check(&with("token_endpoint_auth_method", json!("private_key_jwt")), refused);
        check(&with("token_endpoint_auth_method", json!("client_secret_post")), Ok(()));
        check(&with("grant_types", json!(["client_credentials"])), refused);
        check(&with("grant_types", json!(["refresh_token"])), refused);
        check(&with("grant_types", json!(["authorization_code", "urn:x:device_code"])), Ok(()));
        check(&with("response_types", json!(["token"])), refused);
        check(&with("response_types", json!(["code"])), Ok(()));
        check(&with("client_name", json!("x".repeat(201))), refused);
        check(&with("client_name", json!("x\u{7}")), refused);
        check(&with("some_extension", json!({ "x": 1 })), Ok(()));
    }
}
