use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use drawbridge_runtime::{bounded, tls::PEM_BYTES_MAX};
use http::Method;
use reqwest::RequestBuilder;
use url::Url;

use super::JwksError;
use crate::fetch::{FetchError, Fetcher, NetworkScope};

const TOKEN_BYTES_MAX: u64 = 64 * 1024;

/// A server of keys with authorities of its own, or one that demands a token, such as Kubernetes'
/// API server. Its files may change at any time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrivateServer {
    /// The URL of the key set.
    pub url: Url,
    /// Where the server may be.
    pub scope: NetworkScope,
    /// A PEM file of the only authorities that may sign its certificate. Absent: the platform's.
    pub ca_file: Option<PathBuf>,
    /// A file with a bearer token for it.
    pub token_file: Option<PathBuf>,
}

impl PrivateServer {
    /// A request for the key set, and what sends it.
    pub(super) async fn request(&self) -> Result<(Fetcher, RequestBuilder), JwksError> {
        let fetcher = match &self.ca_file {
            None => Fetcher::new(self.scope),
            Some(path) => Fetcher::trusting(self.scope, &read(path, PEM_BYTES_MAX).await?),
        };
        let fetcher = fetcher.map_err(|error| match &self.ca_file {
            Some(path) => file_error(path, io::Error::other(error)),
            None => FetchError::Http { url: self.url.clone(), source: error }.into(),
        })?;
        let mut request = fetcher.request(Method::GET, &self.url)?;
        if let Some(path) = &self.token_file {
            let token = read(path, TOKEN_BYTES_MAX).await?;
            request = request.bearer_auth(String::from_utf8_lossy(&token).trim());
        }
        Ok((fetcher, request))
    }
}

async fn read(path: &Path, bytes_max: u64) -> Result<Vec<u8>, JwksError> {
    bounded::read_file_async(path, bytes_max).await.map_err(|error| file_error(path, error))
}

fn file_error(path: &Path, source: io::Error) -> JwksError {
    JwksError::File { path: path.to_owned(), source: Arc::new(source) }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio_rustls::{
        TlsAcceptor,
        rustls::{ServerConfig, crypto::aws_lc_rs, pki_types::PrivatePkcs8KeyDer},
    };

    use super::*;
    use crate::jwks::{Jwks, JwksLimits, KeySource};

    fn authority() -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    /// Serves an empty key set to requests with this token.
    async fn serve(authority: &CertifiedIssuer<'static, KeyPair>, token: &'static str) -> Url {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, authority).unwrap();
        let builder = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into());
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/openid/v1/jwks", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A client that does not trust the certificate ends the handshake.
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut request = vec![0; 4096];
                let read = stream.read(&mut request).await.unwrap();
                let request = String::from_utf8_lossy(&request[..read]).to_lowercase();
                let is_allowed = request.contains(&format!("authorization: bearer {token}\r\n"));
                let status = if is_allowed { "200 OK" } else { "401 Unauthorized" };
                let head = format!("HTTP/1.1 {status}\r\ncontent-length: 11\r\n");
                let response = format!("{head}connection: close\r\n\r\n{{\"keys\":[]}}");
                stream.write_all(response.as_bytes()).await.unwrap();
                let _ = stream.shutdown().await;
            }
        });
        url.parse().unwrap()
    }

    #[tokio::test]
    async fn only_its_authority_is_trusted_and_the_token_is_read_at_each_fetch() {
        let (own, other) = (authority(), authority());
        let url = serve(&own, "second").await;
        let folder = tempfile::tempdir().unwrap();
        let [ca_file, token_file] = ["ca.crt", "token"].map(|name| folder.path().join(name));
        let fetch = async || {
            let server = PrivateServer {
                url: url.clone(),
                scope: NetworkScope::Anywhere,
                ca_file: Some(ca_file.clone()),
                token_file: Some(token_file.clone()),
            };
            let keys = Jwks::new(KeySource::Private(server), JwksLimits::default());
            let error = keys.fetch_ahead().await.err()?;
            Some(drawbridge_runtime::error_chain(&error))
        };
        let missing = fetch().await.unwrap();
        assert!(missing.starts_with(&format!("cannot use {}", ca_file.display())), "{missing}");
        std::fs::write(&ca_file, other.pem()).unwrap();
        std::fs::write(&token_file, "first\n").unwrap();
        let untrusted = fetch().await.unwrap();
        assert!(untrusted.starts_with("cannot fetch https://127.0.0.1"), "{untrusted}");
        std::fs::write(&ca_file, own.pem()).unwrap();
        let refused = fetch().await.unwrap();
        assert!(refused.ends_with("answered 401 Unauthorized"), "{refused}");
        std::fs::write(&token_file, "second\n").unwrap();
        assert_eq!(fetch().await, None);
    }
}
