//! Where bundles are fetched from and pushed to: HTTP servers and OCI registries.

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use url::Url;

use super::{
    archive::BUNDLE_BYTES_MAX,
    location::BundleLocation,
    note::NOTE_BYTES_MAX,
    registry::Registry,
    release::Release,
    session::{
        ANSWER_BYTES_MAX, BUNDLE_TYPE, Exchange, NOTE_TYPE, RemoteConfig, RemoteError, Session,
        expect,
    },
};

/// The signature of a bundle is at its path with this appended.
const SIGNATURE_SUFFIX: &str = ".sig";
/// A server of bundles.
#[derive(Debug)]
pub(super) enum Remote {
    Http(HttpServer),
    Registry(Registry),
}

/// An HTTP server with a bundle, and its signature beside it.
#[derive(Debug)]
pub(super) struct HttpServer {
    session: Session,
    bundle: Url,
    signature: Url,
    /// The signature as last read, with its `ETag`.
    last: Option<(Bytes, Option<HeaderValue>)>,
}

impl Remote {
    pub(super) fn new(
        location: &BundleLocation,
        config: &RemoteConfig,
    ) -> Result<Self, RemoteError> {
        let session = Session::new(location.server(), config)?;
        Ok(match location {
            BundleLocation::Registry(reference) => {
                Self::Registry(Registry::new(session, reference.clone()))
            }
            BundleLocation::Http(url) => {
                let mut signature = url.clone();
                signature.set_path(&format!("{}{SIGNATURE_SUFFIX}", url.path()));
                Self::Http(HttpServer { session, bundle: url.clone(), signature, last: None })
            }
        })
    }

    /// The signed note of the bundle, if it differs from the one that was last read.
    pub(super) async fn changed_note(&mut self) -> Result<Option<Bytes>, RemoteError> {
        match self {
            Self::Http(server) => server.changed_note().await,
            Self::Registry(registry) => registry.changed_note().await,
        }
    }

    /// The bundle that a note is about. Its digest is not checked.
    pub(super) async fn bundle(&mut self, release: &Release) -> Result<Bytes, RemoteError> {
        match self {
            Self::Http(server) => server.get(&server.bundle, BUNDLE_BYTES_MAX).await,
            Self::Registry(registry) => registry.bundle(&release.sha256_hex()).await,
        }
    }

    /// The next note counts as changed.
    pub(super) fn forget(&mut self) {
        match self {
            Self::Http(server) => server.last = None,
            Self::Registry(registry) => registry.forget(),
        }
    }

    /// Uploads a bundle, and then its note, by which replicas take notice of it.
    pub(super) async fn push(&mut self, packed: &[u8], note: &[u8]) -> Result<(), RemoteError> {
        match self {
            Self::Http(server) => server.push(packed, note).await,
            Self::Registry(registry) => registry.push(packed, note).await,
        }
    }
}

impl HttpServer {
    async fn authorized<'a>(
        &self,
        mut exchange: Exchange<'a>,
    ) -> Result<Exchange<'a>, RemoteError> {
        let credentials = self.session.credentials().await?;
        exchange.authorization = credentials.and_then(|credentials| credentials.header());
        Ok(exchange)
    }

    async fn get(&self, url: &Url, bytes_max: usize) -> Result<Bytes, RemoteError> {
        let exchange = self.authorized(Exchange::get(url, bytes_max)).await?;
        let response = self.session.send(&exchange).await?;
        Ok(expect(response, url, |status| status == StatusCode::OK)?.into_body())
    }

    async fn changed_note(&mut self) -> Result<Option<Bytes>, RemoteError> {
        let mut exchange = Exchange::get(&self.signature, NOTE_BYTES_MAX);
        if let Some((_, Some(etag))) = &self.last {
            exchange = exchange.header(header::IF_NONE_MATCH, etag.clone());
        }
        let exchange = self.authorized(exchange).await?;
        let response = self.session.send(&exchange).await?;
        if response.status == StatusCode::NOT_MODIFIED && self.last.is_some() {
            return Ok(None);
        }
        let response = expect(response, &self.signature, |status| status == StatusCode::OK)?;
        let etag = response.headers.get(header::ETAG).cloned();
        let note = response.into_body();
        let is_changed = self.last.as_ref().is_none_or(|(last, _)| *last != note);
        self.last = Some((note.clone(), etag));
        Ok(is_changed.then_some(note))
    }

    async fn push(&self, packed: &[u8], note: &[u8]) -> Result<(), RemoteError> {
        for (url, media_type, content) in
            [(&self.bundle, BUNDLE_TYPE, packed), (&self.signature, NOTE_TYPE, note)]
        {
            let exchange = Exchange::new(Method::PUT, url, ANSWER_BYTES_MAX);
            let exchange = self.authorized(exchange.body(media_type, content)).await?;
            let response = self.session.send(&exchange).await?;
            expect(response, url, |status| status.is_success())?;
        }
        Ok(())
    }
}

/// Uploads a bundle with its signed note. Replicas never see one without the other in a registry;
/// at an HTTP server they try again.
///
/// # Errors
/// When the server cannot be reached, or refuses it.
pub async fn push(
    location: &BundleLocation,
    config: &RemoteConfig,
    packed: &[u8],
    note: &[u8],
) -> Result<(), RemoteError> {
    Remote::new(location, config)?.push(packed, note).await
}
