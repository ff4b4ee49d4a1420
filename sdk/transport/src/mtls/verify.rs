use std::sync::Arc;

use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{
        ParsedCertificate,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use super::{SpiffeId, SvidError, identity::Identity};

/// Why a peer with a certificate of a trusted authority is rejected.
#[derive(Debug, thiserror::Error)]
pub(super) enum PeerError {
    #[error(transparent)]
    Svid(#[from] SvidError),
    #[error("the peer is {0}, which is not allowed")]
    NotAllowed(SpiffeId),
}

/// Accepts peers only by their SPIFFE ids: host names are ignored (X509-SVID section 5).
#[derive(Debug)]
pub(super) struct PeerVerifier {
    identity: Arc<Identity>,
    allowed: Arc<[SpiffeId]>,
}

impl PeerVerifier {
    pub(super) fn new(identity: &Arc<Identity>, allowed: Arc<[SpiffeId]>) -> Self {
        Self { identity: Arc::clone(identity), allowed }
    }

    fn allow(&self, leaf: &CertificateDer<'_>) -> Result<(), Error> {
        let refused = |error: PeerError| {
            Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
        };
        let id = SpiffeId::of(leaf).map_err(|error| refused(error.into()))?;
        if self.allowed.contains(&id) { Ok(()) } else { Err(refused(PeerError::NotAllowed(id))) }
    }

    fn algorithms(&self) -> &WebPkiSupportedAlgorithms {
        &self.identity.provider.signature_verification_algorithms
    }
}

/// The methods that the traits for clients and for servers have in common.
macro_rules! signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls12_signature(message, certificate, signature, self.algorithms())
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, certificate, signature, self.algorithms())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.algorithms().supported_schemes()
        }
    };
}

impl ClientCertVerifier for PeerVerifier {
    /// No hints: authorities change, and peers have one certificate each.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified =
            self.identity.material().clients.verify_client_cert(leaf, intermediates, now)?;
        self.allow(leaf)?;
        Ok(verified)
    }

    signatures!();
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(leaf)?;
        let roots = &self.identity.material().roots;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            roots,
            intermediates,
            now,
            self.algorithms().all,
        )?;
        self.allow(leaf)?;
        Ok(ServerCertVerified::assertion())
    }

    signatures!();
}

/// The peer disconnected, or does not use TLS.
pub(super) const BROKEN: &str = "broken";

/// Why handshakes of services fail, as metric labels.
pub(super) const REASONS: [&str; 10] = [
    BROKEN,
    "expired",
    "no_certificate",
    "no_spiffe_id",
    "not_allowed",
    "not_tls",
    "not_valid_yet",
    "refused_by_peer",
    "unknown_authority",
    "wrong_certificate",
];

/// The metric label of why a handshake failed, one of [`REASONS`].
pub(super) fn reason(error: &std::io::Error) -> &'static str {
    let Some(error) = error.get_ref().and_then(|error| error.downcast_ref::<Error>()) else {
        return BROKEN;
    };
    match error {
        Error::NoCertificatesPresented => "no_certificate",
        Error::InvalidCertificate(wrong) => match wrong {
            CertificateError::Other(OtherError(other)) => match other.downcast_ref::<PeerError>() {
                Some(PeerError::NotAllowed(_)) => "not_allowed",
                _ => "no_spiffe_id",
            },
            // Another authority may have the same name.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => "unknown_authority",
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => "expired",
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "not_valid_yet"
            }
            _ => "wrong_certificate",
        },
        Error::InvalidMessage(_) => "not_tls",
        // The peer rejects this service, or uses another TLS version.
        Error::AlertReceived(_) => "refused_by_peer",
        _ => BROKEN,
    }
}
