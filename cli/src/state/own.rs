//! Files and folders that are this user's alone.

use std::{
    fs,
    io::{self, Read as _},
    path::Path,
};

/// Makes a folder that this user alone may enter, unless it is there.
pub(crate) fn create_folder(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// Refuses a folder that another user owns or could write into, and a link to one.
pub(crate) fn check_folder(folder: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(folder)?;
    if !metadata.is_dir() {
        let is = if metadata.is_symlink() { "a symbolic link" } else { "no folder" };
        return Err(refused(folder, &format!("is {is}; a folder of your own is needed")));
    }
    check(folder, &metadata)
}

/// Reads a file, unless another user owns it or could write it.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut options = fs::OpenOptions::new();
    options.read(true);
    no_links(&mut options);
    let mut file = options.open(path)?;
    check(path, &file.metadata()?)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A new or emptied file that this user alone reads.
pub(crate) fn create(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    no_links(&mut options);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(unix)]
fn no_links(options: &mut fs::OpenOptions) {
    let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    std::os::unix::fs::OpenOptionsExt::custom_flags(options, flags);
}

#[cfg(not(unix))]
fn no_links(_: &mut fs::OpenOptions) {}

#[cfg(unix)]
fn check(path: &Path, metadata: &fs::Metadata) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt as _;

    let (owner, user) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner != user {
        return Err(refused(path, &format!("belongs to the user {owner}, and you are {user}")));
    }
    if metadata.mode() & 0o022 != 0 {
        let mode = metadata.mode() & 0o7777;
        return Err(refused(path, &format!("can be written by others (mode {mode:o}); chmod go-w mends it")));
    }
    Ok(())
}

#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "on Unix it can fail")]
fn check(_: &Path, _: &fs::Metadata) -> io::Result<()> {
    Ok(())
}

fn refused(path: &Path, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, format!("{} {why}", path.display()))
}
