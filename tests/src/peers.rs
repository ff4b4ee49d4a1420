use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use drawbridge_cli::mesh::Mesh;
use drawbridge_sdk::{ChannelError, Peers};
use tonic::transport::Channel;
use url::Url;

/// Services of meshes of this process that speak mTLS, by their URLs.
static KNOWN: Mutex<BTreeMap<Url, Known>> = Mutex::new(BTreeMap::new());

#[derive(Clone)]
struct Known {
    name: String,
    /// As the edge of its mesh, which may ask everything.
    peers: Peers,
}

/// A channel to a service: as the edge of its mesh, if that speaks mTLS, and else in plaintext.
///
/// # Errors
/// When the URL is not one that gRPC can use.
pub fn connect(url: &Url) -> Result<Channel, ChannelError> {
    let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner).get(url).cloned();
    match known {
        Some(Known { name, peers }) => peers.connect(url, &name, None),
        None => drawbridge_sdk::connect(url),
    }
}

/// Lets [`connect`] know the services of a mesh.
pub(crate) fn know_mesh(mesh: &Mesh) {
    know(mesh, "auth", &mesh.state.auth_url);
    for (name, url) in &mesh.state.services {
        know(mesh, name, url);
    }
}

/// Lets [`connect`] know a service that speaks as those of this mesh do.
pub(crate) fn know(mesh: &Mesh, name: &str, url: &Url) {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(authority) = &mesh.authority {
        let peers = Peers::open(&authority.issue("edge").expect("files")).expect("a certificate");
        known.insert(url.clone(), Known { name: name.to_owned(), peers });
    }
}
