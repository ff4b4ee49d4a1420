use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use drawbridge_mesh::Mesh;
use drawbridge_transport::{ChannelError, Peers};
use tonic::transport::Channel;
use url::Url;

/// Services of this process's meshes that use mTLS, by URL.
static PEERS: Mutex<BTreeMap<Url, KnownPeer>> = Mutex::new(BTreeMap::new());

#[derive(Clone)]
struct KnownPeer {
    name: String,
    /// The identity of its mesh's edge, which may call every RPC.
    peers: Peers,
}

/// A channel to a service: with the identity of its mesh's edge if that mesh uses mTLS, else in
/// plaintext.
///
/// # Errors
/// When the URL is not a valid gRPC endpoint.
pub fn connect(url: &Url) -> Result<Channel, ChannelError> {
    let known = PEERS.lock().unwrap_or_else(PoisonError::into_inner).get(url).cloned();
    match known {
        Some(KnownPeer { name, peers }) => peers.connect(url, &name, None),
        None => drawbridge_transport::connect(url),
    }
}

/// Registers the services of a mesh for [`connect`].
pub(crate) fn register_mesh(mesh: &Mesh) {
    register(mesh, "auth", &mesh.state.auth_url);
    for (name, url) in &mesh.state.services {
        register(mesh, name, url);
    }
}

/// Registers a service of this mesh for [`connect`].
pub(crate) fn register(mesh: &Mesh, name: &str, url: &Url) {
    let mut known = PEERS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(authority) = &mesh.authority {
        let peers = Peers::open(&authority.issue("edge").expect("files")).expect("a certificate");
        known.insert(url.clone(), KnownPeer { name: name.to_owned(), peers });
    }
}
