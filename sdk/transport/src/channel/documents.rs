//! A document that every replica of a service serves, fetched from each of them.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use drawbridge_runtime::{Address, bounded};
use futures::future::join_all;
use http::{Request, StatusCode, Uri, header::CONTENT_TYPE};
use http_body_util::Full;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tonic::body::Body;
use url::Url;

use super::{
    ChannelError,
    replicas::{self, Connection, ConnectionTasks, Origin},
};
use crate::{
    SpiffeId,
    fetch::BODY_BYTES_MAX,
    mtls::{Connector, Peers},
};

/// How long one replica may take.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Fetches a document from all replicas of one service: every URL of a list, and every address that
/// a URL's host name resolves to at that moment. No replica is asked over another's connection, so
/// none can answer for another.
#[derive(Debug)]
pub struct ReplicaDocuments {
    origins: Vec<(Arc<Origin>, Connector)>,
}

/// The answer of one replica.
#[derive(Debug)]
pub struct ReplicaDocument {
    /// The replica's address; the host of a URL that cannot be resolved.
    pub replica: String,
    /// The document, or why it could not be fetched.
    pub body: io::Result<Bytes>,
}

impl ReplicaDocuments {
    /// The replicas behind `urls`, each of which must be `id` where mTLS authenticates services.
    ///
    /// # Errors
    /// When one of the URLs is not that of a gRPC server, or needs TLS or plaintext that is not
    /// available.
    pub fn new(peers: &Peers, urls: &[Url], id: Option<&SpiffeId>) -> Result<Self, ChannelError> {
        let origin = |url| Ok((Arc::new(Origin::new(url)?), peers.connector(url, "", id)?));
        Ok(Self { origins: urls.iter().map(origin).collect::<Result<_, ChannelError>>()? })
    }

    /// Fetches the document at this path, which may have a query, from every replica.
    pub async fn fetch(&self, path: &str) -> Vec<ReplicaDocument> {
        self.request(path, None).await
    }

    /// Posts JSON to this path of every replica, and returns their answers.
    pub async fn post(&self, path: &str, json: Bytes) -> Vec<ReplicaDocument> {
        self.request(path, Some(json)).await
    }

    async fn request(&self, path: &str, json: Option<Bytes>) -> Vec<ReplicaDocument> {
        let json = json.as_ref();
        let of_origin =
            self.origins.iter().map(async |(origin, connector)| {
                match replicas::resolve(origin).await {
                    Ok(addresses) => {
                        let fetching = addresses.into_iter().map(async |address| ReplicaDocument {
                            replica: address.to_string(),
                            body: request(origin, &address, connector, path, json).await,
                        });
                        join_all(fetching).await
                    }
                    Err(error) => {
                        vec![ReplicaDocument { replica: origin.host.clone(), body: Err(error) }]
                    }
                }
            });
        join_all(of_origin).await.into_iter().flatten().collect()
    }
}

/// Closes the connection even if its peer is silent.
struct ClosedOnDrop(Connection);

impl Drop for ClosedOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

async fn request(
    origin: &Arc<Origin>,
    address: &Address,
    connector: &Connector,
    path: &str,
    json: Option<&Bytes>,
) -> io::Result<Bytes> {
    let mut parts = origin.uri.clone().into_parts();
    parts.path_and_query = Some(path.parse().map_err(io::Error::other)?);
    let uri = Uri::from_parts(parts).map_err(io::Error::other)?;
    let request = match json {
        None => Request::get(uri).body(Body::empty()),
        Some(json) => Request::post(uri)
            .header(CONTENT_TYPE, "application/json")
            .body(Body::new(Full::new(json.clone()))),
    };
    let request = request.map_err(io::Error::other)?;
    let fetching = async {
        let tasks = ConnectionTasks::default();
        let (sender, driver) = replicas::connect(address, connector, tasks.clone()).await?;
        let _driver = AbortOnDropHandle::new(tokio::spawn(driver));
        let mut connection = ClosedOnDrop(Connection::new(sender, origin, tasks));
        let response = connection.0.sender.send_request(request).await.map_err(io::Error::other)?;
        if response.status() != StatusCode::OK {
            return Err(io::Error::other(format!("the status is {}", response.status())));
        }
        bounded::read_body(response.into_body(), BODY_BYTES_MAX).await.map_err(io::Error::other)
    };
    timeout(TIMEOUT, fetching).await?
}
