//! The part of the OCI distribution specification that bundles need: tag → manifest → blob.
//!
//! A manifest has two layers, the bundle and its signed note. The tag moves to a new manifest at
//! once, so a bundle never has the note of another.

use bytes::Bytes;
use data_encoding::HEXLOWER;
use drawbridge_transport::fetch::Fetched;
use http::{HeaderValue, Method, StatusCode, header};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use url::Url;

use super::{
    archive::BUNDLE_BYTES_MAX,
    location::OciReference,
    note::NOTE_BYTES_MAX,
    release::Release,
    session::{
        ANSWER_BYTES_MAX, BUNDLE_TYPE, Credentials, Exchange, NOTE_TYPE, RemoteError, Session,
        expect, shown,
    },
};

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const ARTIFACT_TYPE: &str = "application/vnd.drawbridge.policies.v1";
/// The empty config of an artifact (image specification, "Guidance for an empty descriptor").
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
const EMPTY: &[u8] = b"{}";
const BLOB_TYPE: &str = "application/octet-stream";

#[derive(Debug)]
pub(super) struct Registry {
    session: Session,
    reference: OciReference,
    /// What opened the registry last.
    authorization: Option<HeaderValue>,
    /// The digest of the manifest that was last read.
    last: Option<[u8; 32]>,
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
}

/// The response of a token server (distribution specification, "Token Authentication").
#[derive(Deserialize)]
struct Token {
    #[serde(alias = "access_token")]
    token: Option<String>,
}

impl Registry {
    pub(super) fn new(session: Session, reference: OciReference) -> Self {
        Self { session, reference, authorization: None, last: None }
    }

    pub(super) fn forget(&mut self) {
        self.last = None;
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.reference.registry.clone();
        url.set_path(&format!("/v2/{}/{path}", self.reference.repository));
        url
    }

    /// Sends a request, and once more with a token if the registry wants one.
    async fn send(&mut self, mut exchange: Exchange<'_>) -> Result<Fetched, RemoteError> {
        exchange.authorization.clone_from(&self.authorization);
        let response = self.session.send(&exchange).await?;
        // INVARIANT: a server to which the registry redirects does not name the server of tokens,
        // which gets the credentials.
        let is_own = response.url.origin() == exchange.url.origin();
        if response.status != StatusCode::UNAUTHORIZED || !is_own {
            return Ok(response);
        }
        self.authorization = self.authorize(exchange.url, &exchange.method, &response).await?;
        if self.authorization.is_none() {
            return Ok(response);
        }
        exchange.authorization.clone_from(&self.authorization);
        self.session.send(&exchange).await
    }

    /// What the registry asks for in a response: the credentials, or a token that its token server
    /// issues for them. `None`: there are no credentials that it would take.
    async fn authorize(
        &self,
        url: &Url,
        method: &Method,
        response: &Fetched,
    ) -> Result<Option<HeaderValue>, RemoteError> {
        let credentials = self.session.credentials().await?;
        if let Some(credentials @ Credentials::Bearer(_)) = &credentials {
            return Ok(credentials.header());
        }
        let values = response.headers.get_all(header::WWW_AUTHENTICATE).into_iter();
        let values: Vec<_> = values.filter_map(|value| value.to_str().ok()).collect();
        let challenges = values.iter().filter_map(|value| http_auth::parse_challenges(value).ok());
        let challenges: Vec<_> = challenges.flatten().collect();
        let bearer = challenges.iter().find(|it| it.scheme.eq_ignore_ascii_case("Bearer"));
        let Some(bearer) = bearer else {
            return Ok(credentials.and_then(|credentials| credentials.header()));
        };
        let parameter = |name: &str| {
            let found = bearer.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_unescaped())
        };
        let realm = parameter("realm").and_then(|realm| realm.parse::<Url>().ok());
        let mut realm = realm.ok_or_else(|| RemoteError::Response {
            url: shown(url),
            problem: "it asks for a token and names no server of tokens".to_owned(),
        })?;
        let actions = if *method == Method::GET { "pull" } else { "pull,push" };
        let scope = format!("repository:{}:{actions}", self.reference.repository);
        if let Some(service) = parameter("service") {
            realm.query_pairs_mut().append_pair("service", &service);
        }
        realm.query_pairs_mut().append_pair("scope", &scope);
        let mut exchange = Exchange::get(&realm, ANSWER_BYTES_MAX);
        exchange.authorization = credentials.and_then(|credentials| credentials.header());
        let issued = self.session.send(&exchange).await?;
        let issued: Token = json(expect(issued, &realm, |status| status == StatusCode::OK)?)?;
        let token = issued.token.map(|token| Credentials::Bearer(token.into()));
        Ok(token.and_then(|token| token.header()))
    }

    async fn blob(&mut self, hex: &str, bytes_max: usize) -> Result<Bytes, RemoteError> {
        let url = self.url(&format!("blobs/sha256:{hex}"));
        let response = self.send(Exchange::get(&url, bytes_max)).await?;
        Ok(expect(response, &url, |status| status == StatusCode::OK)?.into_body())
    }

    pub(super) async fn bundle(&mut self, hex: &str) -> Result<Bytes, RemoteError> {
        self.blob(hex, BUNDLE_BYTES_MAX).await
    }

    pub(super) async fn changed_note(&mut self) -> Result<Option<Bytes>, RemoteError> {
        let url = self.url(&format!("manifests/{}", self.reference.tag));
        let mut exchange =
            Exchange::get(&url, ANSWER_BYTES_MAX).header(header::ACCEPT, MANIFEST_TYPE);
        if let Some(last) = &self.last {
            let etag = format!("\"sha256:{}\"", HEXLOWER.encode(last));
            exchange = exchange.header(header::IF_NONE_MATCH, etag);
        }
        let response = self.send(exchange).await?;
        if response.status == StatusCode::NOT_MODIFIED && self.last.is_some() {
            return Ok(None);
        }
        let response = expect(response, &url, |status| status == StatusCode::OK)?;
        let digest = Release::digest(response.body());
        if self.last == Some(digest) {
            return Ok(None);
        }
        let Manifest { layers } = json(response)?;
        let layer = layers.iter().find(|layer| layer.media_type == NOTE_TYPE);
        let hex = layer.and_then(|layer| layer.digest.strip_prefix("sha256:"));
        let hex = hex.ok_or_else(|| RemoteError::Response {
            url: url.clone(),
            problem: format!(
                "the tag is not a policy bundle (a manifest with a layer {NOTE_TYPE}); \
                 `drawbridge policy push` makes one"
            ),
        })?;
        let note = self.blob(hex, NOTE_BYTES_MAX).await?;
        self.last = Some(digest);
        Ok(Some(note))
    }

    pub(super) async fn push(&mut self, packed: &[u8], note: &[u8]) -> Result<(), RemoteError> {
        let config = self.upload(EMPTY_TYPE, EMPTY).await?;
        let layers = [self.upload(BUNDLE_TYPE, packed).await?, self.upload(NOTE_TYPE, note).await?];
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "artifactType": ARTIFACT_TYPE,
            "config": config,
            "layers": layers,
        });
        let url = self.url(&format!("manifests/{}", self.reference.tag));
        let exchange = Exchange::new(Method::PUT, &url, ANSWER_BYTES_MAX);
        let exchange = exchange.body(MANIFEST_TYPE, manifest.to_string().as_bytes());
        let response = self.send(exchange).await?;
        expect(response, &url, |status| status.is_success()).map(drop)
    }

    /// Uploads a blob in one request.
    async fn upload(
        &mut self,
        media_type: &str,
        content: &[u8],
    ) -> Result<Descriptor, RemoteError> {
        let digest = format!("sha256:{}", HEXLOWER.encode(&Release::digest(content)));
        let url = self.url("blobs/uploads/");
        let response = self.send(Exchange::new(Method::POST, &url, ANSWER_BYTES_MAX)).await?;
        let response = expect(response, &url, |status| status == StatusCode::ACCEPTED)?;
        let location = response.headers.get(header::LOCATION);
        let location = location.and_then(|location| url.join(location.to_str().ok()?).ok());
        // An upload gets the credentials of the registry.
        let upload = location.filter(|location| location.origin() == url.origin());
        let mut upload = upload.ok_or_else(|| RemoteError::Response {
            url: url.clone(),
            problem: "it names no place of its own for the upload".to_owned(),
        })?;
        upload.query_pairs_mut().append_pair("digest", &digest);
        let exchange = Exchange::new(Method::PUT, &upload, ANSWER_BYTES_MAX);
        let response = self.send(exchange.body(BLOB_TYPE, content)).await?;
        expect(response, &upload, |status| status == StatusCode::CREATED)?;
        let size = content.len() as u64;
        Ok(Descriptor { media_type: media_type.to_owned(), digest, size })
    }
}

/// Reads a response. Its URL may be one to which the registry redirected, with a secret in its query.
fn json<T: DeserializeOwned>(response: Fetched) -> Result<T, RemoteError> {
    let url = shown(&response.url);
    serde_json::from_slice(response.body())
        .map_err(|error| RemoteError::Response { url, problem: error.to_string() })
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use axum::{Router, response::Redirect, routing::get};
    use tokio::net::TcpListener;

    use super::{super::session::RemoteConfig, *};

    async fn serve(listener: TcpListener, router: Router) -> Url {
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }

    /// CVE-2020-15157 was of this kind.
    #[tokio::test]
    async fn a_server_to_which_the_registry_redirects_gets_no_credentials() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let realm = format!("http://{}/token", listener.local_addr().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let challenge = [(header::WWW_AUTHENTICATE, format!("Bearer realm=\"{realm}\""))];
        let blob = get(async move || (StatusCode::UNAUTHORIZED, challenge));
        let count = Arc::clone(&asked);
        let token = get(async move || {
            count.fetch_add(1, Ordering::Relaxed);
            r#"{"token":"stolen"}"#
        });
        let other =
            serve(listener, Router::new().route("/blob", blob).route("/token", token)).await;
        let target = other.join("blob").unwrap().to_string();
        let manifest = get(async move || Redirect::temporary(&target));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let routes = Router::new().route("/v2/policies/manifests/main", manifest);
        let registry = serve(listener, routes).await;

        let folder = tempfile::tempdir().unwrap();
        let credentials = folder.path().join("credentials");
        std::fs::write(&credentials, "user:password").unwrap();
        let config =
            RemoteConfig { policy_credentials: Some(credentials), ..RemoteConfig::default() };
        let session = Session::new(&registry, &config).unwrap();
        let (repository, tag) = ("policies".to_owned(), "main".to_owned());
        let mut registry = Registry::new(session, OciReference { registry, repository, tag });
        let error = registry.changed_note().await.unwrap_err();
        assert!(matches!(error, RemoteError::Status { .. }), "{error:?}");
        assert_eq!(asked.load(Ordering::Relaxed), 0, "the token server was asked");
    }
}
