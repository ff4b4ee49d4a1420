//! Channels to the services that mTLS authenticates.

use drawbridge_runtime::is_loopback;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::transport::Channel;
use url::Url;

use super::{BalancedChannel, ChannelError, ReplicaFollower, connect_with, replica::Follow};
use crate::mtls::{Connector, Peers, SpiffeId};

impl Peers {
    /// A channel that connects on first use, stays connected, and reconnects when the connection
    /// breaks. The server must be `id`, by default the sibling `service` of this service.
    ///
    /// # Errors
    /// When gRPC cannot use the URL, or it needs TLS or plaintext that is not available.
    pub fn connect(
        &self,
        url: &Url,
        service: &str,
        id: Option<&SpiffeId>,
    ) -> Result<Channel, ChannelError> {
        connect_with(url, self.connector(url, service, id)?)
    }

    /// A channel to all replicas of a service, each of which must be `id`, by default the sibling
    /// `service` of this service.
    ///
    /// # Errors
    /// As [`Self::connect`], and when there is no URL.
    pub fn balanced(
        &self,
        urls: &[Url],
        service: &str,
        id: Option<&SpiffeId>,
    ) -> Result<BalancedChannel, ChannelError> {
        self.balanced_with(urls, service, id, &Follow::Connected)
    }

    /// As [`Self::balanced`], to the replicas that `follower` finds to be live.
    ///
    /// # Errors
    /// As [`Self::balanced`].
    pub fn followed(
        &self,
        urls: &[Url],
        id: Option<&SpiffeId>,
        follower: ReplicaFollower,
    ) -> Result<BalancedChannel, ChannelError> {
        self.balanced_with(urls, follower.service(), id, &Follow::Live(follower.clone()))
    }

    fn balanced_with(
        &self,
        urls: &[Url],
        service: &str,
        id: Option<&SpiffeId>,
        follow: &Follow,
    ) -> Result<BalancedChannel, ChannelError> {
        let connector = |url| self.connector(url, service, id).map(|connector| (url, connector));
        BalancedChannel::with_connectors(
            &urls.iter().map(connector).collect::<Result<Vec<_>, _>>()?,
            follow,
        )
    }

    /// Whether this URL is reached over TLS.
    #[must_use]
    pub(crate) fn uses_tls(&self, url: &Url) -> bool {
        self.identity().is_some() && url.scheme() == "https"
    }

    /// The connector for this URL.
    pub(crate) fn connector(
        &self,
        url: &Url,
        service: &str,
        id: Option<&SpiffeId>,
    ) -> Result<Connector, ChannelError> {
        match (url.scheme(), self.identity()) {
            ("https", Some(identity)) => {
                let peer = id.cloned().unwrap_or_else(|| identity.id.sibling(service));
                let form = || ChannelError::Form { url: url.clone() };
                let name = url
                    .host_str()
                    .map(|host| host.trim_matches(['[', ']']).to_owned())
                    .ok_or_else(form)?;
                let name = ServerName::try_from(name).map_err(|_| form())?;
                Ok(Connector::Tls { config: identity.client(peer)?, name })
            }
            // The socket's mode and the peer's user id authenticate it.
            ("unix", _) => Ok(Connector::Plaintext),
            ("https", None) => Err(ChannelError::NoCertificate { url: url.clone() }),
            _ => {
                self.check_plaintext_allowed(url)?;
                Ok(Connector::Plaintext)
            }
        }
    }

    /// Checks that plaintext to this URL stays on this machine, unless plaintext is allowed.
    pub(crate) fn check_plaintext_allowed(&self, url: &Url) -> Result<(), ChannelError> {
        if self.allows_plaintext() || is_loopback(url) {
            Ok(())
        } else {
            Err(ChannelError::Plaintext { url: url.clone() })
        }
    }
}
