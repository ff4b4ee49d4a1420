//! Unix-domain sockets, over which services on one host connect in plaintext: the file's mode and
//! the peer's user id replace mTLS.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use url::Url;

#[cfg(unix)]
pub use self::unix::{UnixStream, bind, connect};

#[cfg(test)]
mod tests;
#[cfg(unix)]
mod unix;

/// The longest path of a socket, in bytes: the size of `sun_path` without its NUL (unix(7)).
const PATH_BYTES_MAX: usize = 107;

/// The path of a Unix-domain socket, written as gRPC names it: `unix:/absolute/path` or
/// `unix:///absolute/path`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SocketPath(PathBuf);

/// A text or a URL does not name a Unix-domain socket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SocketPathError {
    /// It has another form.
    #[error("invalid Unix-domain socket {text} (expected unix:/absolute/path)")]
    Form {
        /// The text.
        text: String,
    },
    /// The path is too long for the system.
    #[error(
        "the socket's path {} has {} bytes; at most {PATH_BYTES_MAX} are allowed",
        path.display(), path.as_os_str().len()
    )]
    Long {
        /// The path.
        path: PathBuf,
    },
}

impl SocketPath {
    /// The path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Whether a text has the scheme of a socket.
    pub fn has_scheme(text: &str) -> bool {
        text.get(..5).is_some_and(|scheme| scheme.eq_ignore_ascii_case("unix:"))
    }
}

impl TryFrom<&Url> for SocketPath {
    type Error = SocketPathError;

    fn try_from(url: &Url) -> Result<Self, SocketPathError> {
        let form = || SocketPathError::Form { text: url.to_string() };
        let is_bare = url.scheme() == "unix"
            && url.host_str().unwrap_or_default().is_empty()
            && url.query().is_none()
            && url.fragment().is_none();
        // A name must follow the last slash.
        if !is_bare || url.cannot_be_a_base() || url.path().ends_with('/') {
            return Err(form());
        }
        let path =
            percent_encoding::percent_decode_str(url.path()).decode_utf8().map_err(|_| form())?;
        if path.contains('\0') || !path.starts_with('/') {
            return Err(form());
        }
        let path = PathBuf::from(path.into_owned());
        if path.as_os_str().len() > PATH_BYTES_MAX {
            return Err(SocketPathError::Long { path });
        }
        Ok(Self(path))
    }
}

impl FromStr for SocketPath {
    type Err = SocketPathError;

    fn from_str(text: &str) -> Result<Self, SocketPathError> {
        let form = |_| SocketPathError::Form { text: text.to_owned() };
        Self::try_from(&Url::parse(text).map_err(form)?)
    }
}

impl fmt::Display for SocketPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "unix:{}", self.0.display())
    }
}

/// The process at the other end of a socket belongs to another user.
#[derive(Debug, thiserror::Error)]
#[error(
    "the process at the other end of the socket belongs to user {peer}; \
     only user {own} and root are accepted"
)]
pub struct ForeignUser {
    peer: u32,
    own: u32,
}

/// Checks that a process of the user `own` may accept one of the user `peer`.
///
/// # Errors
/// When it is not.
pub fn check_user(peer: u32, own: u32) -> Result<(), ForeignUser> {
    if peer == own || peer == 0 { Ok(()) } else { Err(ForeignUser { peer, own }) }
}

/// Other systems have no Unix-domain sockets.
#[cfg(not(unix))]
pub type UnixStream = tokio::net::TcpStream;

#[cfg(not(unix))]
#[expect(clippy::unused_async, reason = "it awaits on Unix")]
pub async fn connect(_: &SocketPath) -> std::io::Result<UnixStream> {
    Err(std::io::ErrorKind::Unsupported.into())
}

#[cfg(not(unix))]
pub fn bind(
    _: &SocketPath,
) -> std::io::Result<futures::stream::Empty<std::io::Result<UnixStream>>> {
    Err(std::io::ErrorKind::Unsupported.into())
}
