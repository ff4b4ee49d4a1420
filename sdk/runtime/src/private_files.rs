//! Files and folders that only this user may access.

use std::{
    ffi::OsString,
    fs,
    io::{self, Write as _},
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::bounded;

/// Creates a folder and its parents, which only this user may enter, unless it exists.
///
/// # Errors
/// When it cannot be created.
pub fn create_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Rejects a folder that another user owns or could write to, and a symbolic link.
///
/// # Errors
/// When the folder is rejected, or is not a folder.
pub fn check_folder(folder: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(folder)?;
    if !metadata.is_dir() {
        let kind = if metadata.is_symlink() { "a symbolic link" } else { "not a folder" };
        return Err(refused(folder, &format!("is {kind}; a folder that you own is required")));
    }
    check_owner(folder, &metadata)
}

/// Reads a file of at most `bytes_max` bytes, unless another user owns it or could write to it.
///
/// # Errors
/// When the file is rejected, is larger, or cannot be read.
pub fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    read_from(open(path)?, path, bytes_max)
}

/// Opens a file for reading, unless another user owns it or could write to it.
///
/// # Errors
/// When the file is rejected, or cannot be opened.
pub fn open(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.read(true);
    set_no_follow(&mut options);
    let file = options.open(path)?;
    check_owner(path, &file.metadata()?)?;
    Ok(file)
}

/// Reads a file with secrets, unless another user owns it, or could read or write it.
///
/// # Errors
/// When the file is rejected, is larger, or cannot be read.
pub fn read_secret(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let file = open(path)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let mode = file.metadata()?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            let why = format!("can be read by others (mode {mode:o}); fix it with chmod 600");
            return Err(refused(path, &why));
        }
    }
    read_from(file, path, bytes_max)
}

/// Reads an open file of at most `bytes_max` bytes to its end.
///
/// # Errors
/// When it is larger, or cannot be read.
pub fn read_from(file: fs::File, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    bounded::read(file, bytes_max)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// Creates or truncates a file that only this user may read.
///
/// # Errors
/// When it cannot be created.
pub fn create(path: &Path) -> io::Result<fs::File> {
    open_private(path, fs::OpenOptions::new().create(true).truncate(true))
}

fn open_private(path: &Path, options: &mut fs::OpenOptions) -> io::Result<fs::File> {
    options.write(true);
    set_no_follow(options);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options.open(path)
}

/// Replaces a file atomically, with access for this user only: a reader finds either the old
/// content or these bytes, even after a power loss. Returns the open file.
///
/// # Errors
/// When it cannot be written. The old content remains.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<fs::File> {
    replace_with(path, bytes, |_| Ok(()))
}

/// As [`replace`], and runs `before` on the new file before it becomes visible.
///
/// # Errors
/// When it cannot be written, or `before` fails.
pub fn replace_with(
    path: &Path,
    bytes: &[u8],
    before: impl FnOnce(&fs::File) -> io::Result<()>,
) -> io::Result<fs::File> {
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    let mut name = path.file_name().map(OsString::from).unwrap_or_default();
    name.push(format!(".{}-{}", std::process::id(), WRITTEN.fetch_add(1, Ordering::Relaxed)));
    let partial = path.with_file_name(name);
    let write = || {
        // An earlier process may have had the same id. Never writes into a file of another user.
        match fs::remove_file(&partial) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = open_private(&partial, fs::OpenOptions::new().create_new(true))?;
        before(&file)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&partial, path)?;
        Ok(file)
    };
    let written = write();
    if written.is_err() {
        // It may not exist.
        let _ = fs::remove_file(&partial);
    }
    written
}

#[cfg(unix)]
fn set_no_follow(options: &mut fs::OpenOptions) {
    let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    std::os::unix::fs::OpenOptionsExt::custom_flags(options, flags);
}

#[cfg(not(unix))]
fn set_no_follow(_: &mut fs::OpenOptions) {}

#[cfg(unix)]
fn check_owner(path: &Path, metadata: &fs::Metadata) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt as _;

    let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner != user {
        return Err(refused(path, &format!("belongs to user {owner}, but you are user {user}")));
    }
    if metadata.mode() & 0o022 != 0 {
        let mode = metadata.mode() & 0o7777;
        return Err(refused(
            path,
            &format!("can be written by others (mode {mode:o}); fix it with chmod go-w"),
        ));
    }
    Ok(())
}

#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "on Unix it can fail")]
fn check_owner(_: &Path, _: &fs::Metadata) -> io::Result<()> {
    Ok(())
}

fn refused(path: &Path, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, format!("{} {why}", path.display()))
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_is_replaced_atomically_and_only_its_user_may_access_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.json");
        for text in ["first", "second"] {
            replace(&path, text.as_bytes()).unwrap();
            assert_eq!(read(&path, 6).unwrap(), text.as_bytes());
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let failed = replace_with(&path, b"third", |_| Err(io::Error::other("no")));
        assert!(failed.is_err());
        assert!(read(&path, 5).unwrap_err().to_string().contains("more than 5 bytes"));
        assert_eq!(read(&path, 6).unwrap(), b"second");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no partial file is left");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o620)).unwrap();
        assert!(
            read(&path, 6).unwrap_err().to_string().contains("can be written by others (mode 620)")
        );
    }
}
