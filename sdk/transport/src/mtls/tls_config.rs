//! The TLS configs of servers and clients: each side proves its identity and verifies its peer's.

use std::sync::Arc;

use tokio_rustls::rustls::{
    ClientConfig, ServerConfig, client::Resumption, server::NoServerSessionStorage, version::TLS13,
};

use super::{MtlsError, SpiffeId, identity::Identity, verify::PeerVerifier};

/// gRPC is HTTP/2 and nothing else.
const ALPN: &[u8] = b"h2";

impl Identity {
    /// The TLS config of a server for these peers.
    pub(crate) fn server(
        self: &Arc<Self>,
        peers: Arc<[SpiffeId]>,
    ) -> Result<Arc<ServerConfig>, MtlsError> {
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(PeerVerifier::new(self, peers)))
            .with_cert_resolver(Arc::<Self>::clone(self));
        config.alpn_protocols = vec![ALPN.to_vec()];
        // A resumed session presents no certificate, so every connection performs a full handshake.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    /// The TLS config of a client of this peer.
    pub(crate) fn client(self: &Arc<Self>, peer: SpiffeId) -> Result<Arc<ClientConfig>, MtlsError> {
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(PeerVerifier::new(self, [peer].into())))
            .with_client_cert_resolver(Arc::<Self>::clone(self));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }
}
