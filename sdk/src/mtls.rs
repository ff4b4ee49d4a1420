//! How services speak to one another: by TLS, each with a certificate that names it by a SPIFFE id, and each accepting
//! those that it is told. See `docs/mtls.md`.

use std::{io, net::IpAddr, path::PathBuf, sync::Arc};

use metrics::counter;
use tokio_rustls::{
    TlsAcceptor,
    rustls::{self, pki_types::ServerName, server::VerifierBuilderError},
};
use tokio_util::{either::Either, sync::CancellationToken};
use tonic::transport::Channel;
use url::{Host, Url};

pub(crate) use self::dial::{Dial, MaybeTls, Plaintext};
use self::identity::{Files, Identity};
pub use self::spiffe::{SpiffeId, SpiffeIdError, SvidError};
use crate::{
    BalancedChannel, ChannelError,
    admin::Readiness,
    channel,
    handshakes::{HandshakeError, HandshakeLimits, Handshakes},
    listen::{Address, BindError},
    socket::ForeignUser,
    tls::{CertificateError, PairFiles},
};

mod dial;
mod identity;
mod spiffe;
#[cfg(test)]
mod tests;
mod verify;

/// What a service shows to others, and whom it believes.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Between services")]
pub struct MtlsConfig {
    /// A PEM file of this service's certificate, whose only URI is its SPIFFE id, and behind it those of the authorities
    /// between it and the root. It may change at any time. Absent: gRPC in plaintext, on loopback.
    #[arg(long, value_name = "FILE", requires_all = ["mtls_key_file", "mtls_trust_bundle_file"])]
    pub mtls_certificate_file: Option<PathBuf>,

    /// A PEM file of the certificate's key.
    #[arg(long, value_name = "FILE", requires = "mtls_certificate_file")]
    pub mtls_key_file: Option<PathBuf>,

    /// A PEM file of the authorities whose certificates are believed.
    #[arg(long, value_name = "FILE", requires = "mtls_certificate_file")]
    pub mtls_trust_bundle_file: Option<PathBuf>,

    /// Serve and call gRPC in plaintext beyond loopback too. Only where something else protects it, such as the sidecars
    /// of a service mesh.
    #[arg(long)]
    pub allow_plaintext: bool,
}

/// The same for a service that others call.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Between services")]
pub struct MtlsServerConfig {
    /// What it shows, and whom it believes.
    #[command(flatten)]
    pub own: MtlsConfig,

    /// The SPIFFE id of a service that may call this one; no other may. Repeat, or separate by commas.
    #[arg(
        long = "mtls-allow",
        value_name = "SPIFFE_ID",
        value_delimiter = ',',
        requires = "mtls_certificate_file"
    )]
    pub mtls_allow: Vec<SpiffeId>,

    /// What clients may take before they have shown who they are.
    #[command(flatten)]
    pub handshakes: HandshakeLimits,
}

/// A service cannot speak to others.
#[derive(Debug, thiserror::Error)]
pub enum MtlsError {
    /// A file cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The own certificate names no service.
    #[error("cannot use the own certificate")]
    Svid(#[from] SvidError),
    /// Somebody's certificate is now another's.
    #[error("the certificate is that of {is}, and this service is {was}")]
    AnotherService {
        /// Who the service is.
        was: SpiffeId,
        /// Whom the certificate names.
        is: SpiffeId,
    },
    /// The trust bundle is none.
    #[error("{path} holds no authority")]
    TrustBundle {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: VerifierBuilderError,
    },
    /// A certificate is of no use without its key or anybody to believe.
    #[error("mTLS needs a certificate, its key and a trust bundle")]
    Incomplete,
    /// Nobody could call.
    #[error("with mTLS somebody must be allowed to call: --mtls-allow")]
    NobodyAllowed,
    /// TLS does not take it.
    #[error("cannot use what the files hold")]
    Rustls(#[from] rustls::Error),
}

/// The other services, as this one speaks to them. The default knows no certificate: it speaks plaintext, on loopback.
#[derive(Clone, Debug, Default)]
pub struct Peers {
    identity: Option<Arc<Identity>>,
    allow_plaintext: bool,
}

impl Peers {
    /// Loads what the service shows to others, and whom it believes.
    ///
    /// # Errors
    /// When the files cannot be used.
    pub fn open(config: &MtlsConfig) -> Result<Self, MtlsError> {
        let files =
            (&config.mtls_certificate_file, &config.mtls_key_file, &config.mtls_trust_bundle_file);
        let identity = match files {
            (Some(certificate), Some(key), Some(trust_bundle)) => {
                let pair = PairFiles { certificate: certificate.clone(), key: key.clone() };
                Some(Identity::open(Files { pair, trust_bundle: trust_bundle.clone() })?)
            }
            (None, None, None) => None,
            _ => return Err(MtlsError::Incomplete),
        };
        Ok(Self { identity, allow_plaintext: config.allow_plaintext })
    }

    /// Follows the files until `stopping`: new connections get what is there now, open ones go on. What is wrong with the
    /// files shows in `readiness` and changes nothing else.
    pub async fn follow(self, readiness: Readiness, stopping: CancellationToken) {
        if let Some(identity) = self.identity {
            identity.follow(readiness, stopping).await;
        }
    }

    /// A channel that connects when first used, stays warm, and connects again when it breaks. Whoever answers must be
    /// `id`, or by default `service` beside this service.
    ///
    /// # Errors
    /// When the URL is not one that gRPC can use, or asks for TLS or plaintext that is not to be had.
    pub fn connect(
        &self,
        url: &Url,
        service: &str,
        id: Option<&SpiffeId>,
    ) -> Result<Channel, ChannelError> {
        channel::connect_by(url, self.dial(url, service, id)?)
    }

    /// A channel to all replicas of a service, each of which must be `id`, or by default `service` beside this service.
    ///
    /// # Errors
    /// As [`Self::connect`], and when there is no URL.
    pub fn balanced(
        &self,
        urls: &[Url],
        service: &str,
        id: Option<&SpiffeId>,
    ) -> Result<BalancedChannel, ChannelError> {
        let dial = |url| self.dial(url, service, id).map(|dial| (url, dial));
        BalancedChannel::with(&urls.iter().map(dial).collect::<Result<Vec<_>, _>>()?)
    }

    /// The id of a service beside this one. Nothing in plaintext, where nobody has one.
    #[must_use]
    pub fn sibling(&self, service: &str) -> Option<SpiffeId> {
        Some(self.identity.as_ref()?.id.sibling(service))
    }

    /// Whether it is TLS by which this URL is reached.
    #[must_use]
    pub(crate) fn secures(&self, url: &Url) -> bool {
        self.identity.is_some() && url.scheme() == "https"
    }

    /// How to speak to whoever is at this URL.
    pub(crate) fn dial(
        &self,
        url: &Url,
        service: &str,
        id: Option<&SpiffeId>,
    ) -> Result<Dial, ChannelError> {
        match (url.scheme(), &self.identity) {
            ("https", Some(identity)) => {
                let peer = id.cloned().unwrap_or_else(|| identity.id.sibling(service));
                let form = || ChannelError::Form { url: url.clone() };
                let name = url
                    .host_str()
                    .map(|host| host.trim_matches(['[', ']']).to_owned())
                    .ok_or_else(form)?;
                let name = ServerName::try_from(name).map_err(|_| form())?;
                Ok(Dial::Tls { config: identity.client(peer)?, name })
            }
            // The socket's mode and the user behind it say who is there.
            ("unix", _) => Ok(Dial::Plaintext),
            ("https", None) => Err(ChannelError::NoCertificate { url: url.clone() }),
            _ => {
                self.allow_plaintext_to(url)?;
                Ok(Dial::Plaintext)
            }
        }
    }

    /// Nothing that services tell one another leaves this machine in plaintext, unless somebody has said so.
    pub(crate) fn allow_plaintext_to(&self, url: &Url) -> Result<(), ChannelError> {
        let on_loopback = match url.host() {
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            Some(Host::Domain(name)) => name == "localhost",
            None => false,
        };
        if self.allow_plaintext || on_loopback {
            Ok(())
        } else {
            Err(ChannelError::Plaintext { url: url.clone() })
        }
    }

    /// How a server speaks whose peers are these.
    pub(crate) fn accept(&self, config: &MtlsServerConfig) -> Result<Accept, MtlsError> {
        let allowed = config.mtls_allow.as_slice();
        let tls = match &self.identity {
            None => None,
            Some(_) if allowed.is_empty() => return Err(MtlsError::NobodyAllowed),
            Some(identity) => {
                let handshakes = Arc::new(Handshakes::new(config.handshakes.clone()));
                Some((TlsAcceptor::from(identity.server(allowed.into())?), handshakes))
            }
        };
        Ok(Accept { tls, allow_plaintext: self.allow_plaintext })
    }
}

/// How a server speaks to whoever comes.
#[derive(Clone, Default)]
pub(crate) struct Accept {
    tls: Option<(TlsAcceptor, Arc<Handshakes>)>,
    allow_plaintext: bool,
}

impl Accept {
    /// Checks that what its peers have to prove can be proved at such an address.
    ///
    /// # Errors
    /// Plaintext beyond loopback that is not allowed; a Unix-domain socket, which has no TLS, where SPIFFE ids are required.
    pub(crate) fn check_address(&self, address: &Address) -> Result<(), BindError> {
        match (address, &self.tls) {
            (Address::Unix(_), Some(_)) => Err(BindError::tls_required(address.clone())),
            (Address::Tcp(tcp), None) if !self.allow_plaintext && !tcp.ip().is_loopback() => {
                Err(BindError::plaintext(address.clone()))
            }
            _ => Ok(()),
        }
    }

    /// How many connections may be on their way in at once.
    pub(crate) fn handshakes_max(&self) -> usize {
        self.tls.as_ref().map_or(1, |(_, handshakes)| handshakes.max())
    }

    /// Finds out who has come. Nobody, when it is not a peer.
    pub(crate) async fn accept(
        &self,
        stream: Plaintext,
        address: IpAddr,
    ) -> Option<(MaybeTls, Option<SpiffeId>)> {
        let Some((tls, handshakes)) = &self.tls else { return Some((Either::Left(stream), None)) };
        // INVARIANT: where TLS is required no socket is served (`check_address`).
        let Either::Left(stream) = stream else { return None };
        let shaken = handshakes.shake(tls, stream, address).await.map_err(|error| match error {
            HandshakeError::Tls(error) => (verify::reason(&error), crate::error_chain(&error)),
            HandshakeError::Timeout => ("timeout", error.to_string()),
            HandshakeError::Evicted => ("evicted", error.to_string()),
            HandshakeError::TooMany => ("too_many", error.to_string()),
        });
        match shaken {
            Ok(stream) => {
                let leaf = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
                let id = leaf.and_then(|leaf| SpiffeId::of(leaf).ok())?;
                Some((Either::Right(Box::new(stream.into())), Some(id)))
            }
            Err((reason, error)) => {
                counter!("grpc_server_handshakes_failed_total", "reason" => reason).increment(1);
                // A probe that only looks whether somebody listens is no news, nor is each connection of a flood.
                if [verify::BROKEN, "evicted", "too_many"].contains(&reason) {
                    tracing::debug!(reason, error, "a handshake broke off");
                } else {
                    tracing::info!(reason, error, "a peer is not let in");
                }
                None
            }
        }
    }
}

impl std::fmt::Debug for Accept {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Accept").field("tls", &self.tls.is_some()).finish_non_exhaustive()
    }
}

/// Why a connection to a peer could not be made, in a word for a metric. Nothing when TLS has no part in it.
pub(crate) fn handshake_failure(error: &io::Error) -> Option<&'static str> {
    let source = error.get_ref()?;
    if source.is::<ForeignUser>() {
        return Some("peer_user");
    }
    source.downcast_ref::<rustls::Error>()?;
    Some(verify::reason(error))
}
