use std::{io, sync::Arc};

use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector, TlsStream,
    rustls::{ClientConfig, pki_types::ServerName},
};
use tokio_util::either::Either;

use drawbridge_runtime::Plaintext;

/// A connection between services, in plaintext or by TLS.
pub(crate) type MaybeTls = Either<Plaintext, Box<TlsStream<TcpStream>>>;

/// How to connect to a service.
#[derive(Clone)]
pub(crate) enum Connector {
    Plaintext,
    Tls {
        config: Arc<ClientConfig>,
        /// For a proxy in between; the server is identified by its SPIFFE id.
        name: ServerName<'static>,
    },
}

impl Connector {
    /// Performs the handshake on an open connection.
    pub(crate) async fn connect(&self, stream: TcpStream) -> io::Result<MaybeTls> {
        stream.set_nodelay(true)?;
        match self {
            Self::Plaintext => Ok(Either::Left(Either::Left(stream))),
            Self::Tls { config, name } => {
                let connecting =
                    TlsConnector::from(Arc::clone(config)).connect(name.clone(), stream);
                Ok(Either::Right(Box::new(connecting.await?.into())))
            }
        }
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(if matches!(self, Self::Plaintext) { "Plaintext" } else { "Tls" })
    }
}
