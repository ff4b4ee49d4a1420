use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use futures::{Stream, StreamExt as _};
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with},
};
use tokio::net::UnixListener;
pub use tokio::net::UnixStream;
use tokio_stream::wrappers::UnixListenerStream;

use super::{SocketPath, check_user};
use crate::{handshakes::count_failed_handshake, private_files};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// Connects to a socket, if its listener belongs to this user or to root.
///
/// # Errors
/// When nothing listens, or the listener belongs to another user.
pub async fn connect(socket: &SocketPath) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(socket.path()).await?;
    check_peer(&stream)?;
    Ok(stream)
}

/// Listens for processes of this user and of root. The file, of mode 0600, is removed with the
/// stream. Must be called within a runtime.
///
/// # Errors
/// When others could write to the folder, another process listens there, or the file is not a
/// socket.
pub fn bind(socket: &SocketPath) -> io::Result<impl Stream<Item = io::Result<UnixStream>> + use<>> {
    let path = socket.path();
    let folder = path.parent().unwrap_or(Path::new("/"));
    private_files::check_folder(folder)?;
    // Two services that replace one stale socket would each remove the other's, so one locks the
    // folder until it listens.
    let folder = fs::File::open(folder)?;
    folder.lock()?;
    remove_stale(path)?;
    let listener = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags(), None)?;
    rustix::net::bind(&listener, &SocketAddrUnix::new(path)?)?;
    let file = SocketFile::new(path)?;
    // Set before it listens, so that no peer can have connected with a looser mode.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    rustix::net::listen(&listener, BACKLOG)?;
    folder.unlock()?;
    let listener = UnixListener::from_std(listener.into())?;
    Ok(UnixListenerStream::new(listener).filter_map(move |accepted| {
        let _until_the_stream_ends = &file;
        std::future::ready(accepted.map(accept).transpose())
    }))
}

/// A connection, unless it belongs to another user.
fn accept(stream: UnixStream) -> Option<UnixStream> {
    match check_peer(&stream) {
        Ok(()) => Some(stream),
        Err(error) => {
            count_failed_handshake("peer_user");
            tracing::warn!(%error, "rejected a connection of another user");
            None
        }
    }
}

fn check_peer(stream: &UnixStream) -> io::Result<()> {
    let own = rustix::process::geteuid().as_raw();
    check_user(stream.peer_cred()?.uid(), own)
        .map_err(|error| io::Error::new(io::ErrorKind::PermissionDenied, error))
}

fn flags() -> SocketFlags {
    SocketFlags::CLOEXEC | SocketFlags::NONBLOCK
}

/// Removes a socket on which nothing listens, and nothing else.
fn remove_stale(path: &Path) -> io::Result<()> {
    let refused = |kind, why| io::Error::new(kind, format!("{} {why}", path.display()));
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            let why = "exists and is not a socket: choose another path, or remove it";
            return Err(refused(io::ErrorKind::AlreadyExists, why));
        }
        Ok(_) => {}
    }
    // Non-blocking, because a listener that accepts nothing would make it wait.
    let probe = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags(), None)?;
    match rustix::net::connect(&probe, &SocketAddrUnix::new(path)?) {
        Err(Errno::CONNREFUSED) => {
            tracing::info!(path = %path.display(), "replacing a stale socket");
            fs::remove_file(path)
        }
        Ok(()) | Err(Errno::AGAIN) => {
            Err(refused(io::ErrorKind::AddrInUse, "is in use: another process listens there"))
        }
        Err(error) => Err(error.into()),
    }
}

/// The file of a socket, removed at the end, unless it was replaced.
struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), inode: inode(path)? })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|inode| inode == self.inode)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket's file");
        }
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}
