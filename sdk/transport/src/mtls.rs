//! mTLS between services: each has a certificate with a SPIFFE id, and accepts the ids that it is
//! configured with. See `docs/how-to/mtls.md`.

use std::{io, net::IpAddr, path::PathBuf, sync::Arc};

use tokio_rustls::{
    TlsAcceptor,
    rustls::{self, server::VerifierBuilderError},
};
use tokio_util::{either::Either, sync::CancellationToken};

pub(crate) use self::connector::{Connector, MaybeTls};
use self::identity::Files;
pub(crate) use self::identity::Identity;
pub use self::spiffe::{SpiffeId, SpiffeIdError, SvidError};
use crate::metrics::{CLIENT_HANDSHAKES_FAILED, METRICS};
use drawbridge_runtime::{
    Address, BindError, OperatorActs, Plaintext, Readiness, ServiceBuilder,
    handshakes::{
        HandshakeError, HandshakeLimits, Handshakes, count_failed_handshake,
        count_failed_handshakes_from_zero,
    },
    metric,
    socket::ForeignUser,
    tls::{CertificateError, KeyPairFiles},
};

mod connector;
mod identity;
mod spiffe;
#[cfg(test)]
mod tests;
mod tls_config;
mod verify;

/// A Unix-domain socket cannot verify the SPIFFE ids that a service allows.
const TLS_REQUIRED: &str = "a Unix-domain socket has no TLS, so --mtls-allow cannot be enforced on it: \
    set an address and a port, or no certificate";
/// gRPC beyond loopback requires TLS.
const PLAINTEXT: &str = "plaintext beyond loopback: \
    set --mtls-certificate-file, or allow it with --allow-plaintext";

/// A service's certificate and the authorities that it trusts.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Between services")]
pub struct MtlsConfig {
    /// A PEM file of this service's certificate, whose only URI is its SPIFFE id, followed by the
    /// intermediates without the root. It may change at any time. Absent: gRPC in plaintext, on
    /// loopback.
    #[arg(long, value_name = "FILE", requires_all = ["mtls_key_file", "mtls_trust_bundle_file"])]
    pub mtls_certificate_file: Option<PathBuf>,

    /// A PEM file of the certificate's key.
    #[arg(long, value_name = "FILE", requires = "mtls_certificate_file")]
    pub mtls_key_file: Option<PathBuf>,

    /// A PEM file of the trusted authorities.
    #[arg(long, value_name = "FILE", requires = "mtls_certificate_file")]
    pub mtls_trust_bundle_file: Option<PathBuf>,

    /// Serve and call gRPC in plaintext beyond loopback too. Only where something else protects it,
    /// such as the sidecars of a service mesh.
    #[arg(long)]
    pub allow_plaintext: bool,
}

/// The mTLS settings of a service that others call.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Between services")]
pub struct MtlsServerConfig {
    /// Its certificate and the authorities that it trusts.
    #[command(flatten)]
    pub identity: MtlsConfig,

    /// The SPIFFE id of a service that may call this one; no other may. Repeat, or separate by
    /// commas.
    #[arg(
        long = "mtls-allow",
        value_name = "SPIFFE_ID",
        value_delimiter = ',',
        requires = "mtls_certificate_file"
    )]
    pub mtls_allow: Vec<SpiffeId>,

    /// What clients may use before they are authenticated.
    #[command(flatten)]
    pub handshakes: HandshakeLimits,
}

/// mTLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum MtlsError {
    /// A file cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// This service's certificate names no service.
    #[error("invalid certificate of this service")]
    Svid(#[from] SvidError),
    /// The new certificate is another service's.
    #[error("the certificate belongs to {current}, but this service is {previous}")]
    IdentityChanged {
        /// The id of this service.
        previous: SpiffeId,
        /// The id in the certificate.
        current: SpiffeId,
    },
    /// The trust bundle is invalid.
    #[error("{path} contains no authority")]
    TrustBundle {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: VerifierBuilderError,
    },
    /// A certificate requires its key and a trust bundle.
    #[error("mTLS requires a certificate, its key and a trust bundle")]
    Incomplete,
    /// No peer may call.
    #[error("mTLS requires at least one allowed peer (--mtls-allow)")]
    NoAllowedPeers,
    /// TLS rejects the certificate, the key or an authority.
    #[error("invalid certificate, key or trust bundle")]
    Rustls(#[from] rustls::Error),
}

/// Connects to other services and authenticates them. The default has no certificate: it uses
/// plaintext, on loopback.
#[derive(Clone, Debug, Default)]
pub struct Peers {
    identity: Option<Arc<Identity>>,
    allow_plaintext: bool,
}

impl Peers {
    /// Loads this service's certificate and trust bundle.
    ///
    /// # Errors
    /// When the files are invalid.
    pub fn open(config: &MtlsConfig) -> Result<Self, MtlsError> {
        let files =
            (&config.mtls_certificate_file, &config.mtls_key_file, &config.mtls_trust_bundle_file);
        let identity = match files {
            (Some(certificate), Some(key), Some(trust_bundle)) => {
                let pair = KeyPairFiles { certificate: certificate.clone(), key: key.clone() };
                Some(Identity::open(Files { pair, trust_bundle: trust_bundle.clone() })?)
            }
            (None, None, None) => None,
            _ => return Err(MtlsError::Incomplete),
        };
        Ok(Self { identity, allow_plaintext: config.allow_plaintext })
    }

    /// Loads them for a service, which follows the files while it runs.
    ///
    /// # Errors
    /// When the files are invalid.
    pub fn start(service: &ServiceBuilder, config: &MtlsConfig) -> Result<Self, MtlsError> {
        metric::describe(METRICS);
        count_failed_handshakes_from_zero(&verify::REASONS);
        CLIENT_HANDSHAKES_FAILED.start_at_zero(verify::REASONS.map(|reason| [reason.into()]));
        let peers = Self::open(config)?;
        let (acts, readiness) = (service.acts(), service.readiness());
        service.spawn(peers.clone().follow(acts, readiness, service.stopping()));
        Ok(peers)
    }

    /// Follows the files until `stopping`: new connections use the current files, open ones are
    /// unaffected. An invalid file is reported in `readiness` and changes nothing else.
    pub async fn follow(
        self,
        acts: OperatorActs,
        readiness: Readiness,
        stopping: CancellationToken,
    ) {
        if let Some(identity) = self.identity {
            identity.follow(acts, readiness, stopping).await;
        }
    }

    /// The id of this service; `None` in plaintext, where services have no ids.
    #[must_use]
    pub fn id(&self) -> Option<&SpiffeId> {
        Some(&self.identity.as_ref()?.id)
    }

    /// The id of a sibling service; `None` in plaintext, where services have no ids.
    #[must_use]
    pub fn sibling(&self, service: &str) -> Option<SpiffeId> {
        Some(self.identity.as_ref()?.id.sibling(service))
    }

    /// This service's certificate. `None` without mTLS.
    pub(crate) fn identity(&self) -> Option<&Arc<Identity>> {
        self.identity.as_ref()
    }

    /// Whether plaintext may leave this host.
    pub(crate) fn allows_plaintext(&self) -> bool {
        self.allow_plaintext
    }

    /// The acceptor of a server with these settings.
    pub(crate) fn acceptor(&self, config: &MtlsServerConfig) -> Result<Acceptor, MtlsError> {
        let allowed = config.mtls_allow.as_slice();
        let tls = match &self.identity {
            None => None,
            Some(_) if allowed.is_empty() => return Err(MtlsError::NoAllowedPeers),
            Some(identity) => {
                let handshakes = Arc::new(Handshakes::new(config.handshakes.clone()));
                Some((TlsAcceptor::from(identity.server(allowed.into())?), handshakes))
            }
        };
        Ok(Acceptor { tls, allow_plaintext: self.allow_plaintext })
    }
}

/// Accepts and authenticates a server's connections.
#[derive(Clone, Default)]
pub(crate) struct Acceptor {
    tls: Option<(TlsAcceptor, Arc<Handshakes>)>,
    allow_plaintext: bool,
}

impl Acceptor {
    /// Checks that peers can be authenticated as required at such an address.
    ///
    /// # Errors
    /// Plaintext beyond loopback that is not allowed; a Unix-domain socket, which has no TLS, if
    /// SPIFFE ids are required.
    pub(crate) fn check_address(&self, address: &Address) -> Result<(), BindError> {
        match (address, &self.tls) {
            (Address::Unix(_), Some(_)) => Err(BindError::refused(address.clone(), TLS_REQUIRED)),
            (Address::Tcp(tcp), None) if !self.allow_plaintext && !tcp.ip().is_loopback() => {
                Err(BindError::refused(address.clone(), PLAINTEXT))
            }
            _ => Ok(()),
        }
    }

    /// How many handshakes may be in progress.
    pub(crate) fn handshakes_max(&self) -> usize {
        self.tls.as_ref().map_or(1, |(_, handshakes)| handshakes.max())
    }

    /// Performs the handshake. `None` when the peer is not accepted.
    pub(crate) async fn accept(
        &self,
        stream: Plaintext,
        address: IpAddr,
    ) -> Option<(MaybeTls, Option<SpiffeId>)> {
        let Some((tls, handshakes)) = &self.tls else { return Some((Either::Left(stream), None)) };
        // INVARIANT: where TLS is required no socket is served (`check_address`).
        let Either::Left(stream) = stream else { return None };
        let accepted = handshakes.accept(tls, stream, address).await.map_err(|error| match error {
            HandshakeError::Tls(error) => {
                (verify::reason(&error), drawbridge_runtime::error_chain(&error))
            }
            HandshakeError::Timeout => ("timeout", error.to_string()),
            HandshakeError::Evicted => ("evicted", error.to_string()),
            HandshakeError::TooMany => ("too_many", error.to_string()),
        });
        match accepted {
            Ok(stream) => {
                let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
                let id = leaf.and_then(|leaf| SpiffeId::of(leaf).ok())?;
                Some((Either::Right(Box::new(stream.into())), Some(id)))
            }
            Err((reason, error)) => {
                count_failed_handshake(reason);
                // A port probe is not worth an info line, nor is each connection of a flood.
                if [verify::BROKEN, "evicted", "too_many"].contains(&reason) {
                    tracing::debug!(reason, error, "a handshake ended early");
                } else {
                    tracing::info!(reason, error, "rejected a peer");
                }
                None
            }
        }
    }
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Acceptor").field("tls", &self.tls.is_some()).finish_non_exhaustive()
    }
}

/// The metric label of why a connection to a peer failed; `None` when TLS was not the cause.
pub(crate) fn handshake_failure(error: &io::Error) -> Option<&'static str> {
    let source = error.get_ref()?;
    if source.is::<ForeignUser>() {
        return Some("peer_user");
    }
    source.downcast_ref::<rustls::Error>()?;
    Some(verify::reason(error))
}
