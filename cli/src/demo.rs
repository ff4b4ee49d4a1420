//! The files of the demo mesh, embedded so that `drawbridge` works outside a checkout.

use std::{fs, io, path::Path};

include!(concat!(env!("OUT_DIR"), "/policies.rs"));

/// The users of the development authorization server.
pub(crate) const USERS: &str = include_str!("../../services/idp/users.toml");

/// Writes the demo's policies, with their schema, catalog and tests, below a folder.
pub(crate) fn write_policies(folder: &Path) -> io::Result<()> {
    for (name, content) in POLICIES {
        write(&folder.join(name), content)?;
    }
    Ok(())
}

/// Writes a new file, and the folders above it.
///
/// # Errors
/// Also when the file exists.
pub(crate) fn write(path: &Path, content: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    io::Write::write_all(&mut fs::File::create_new(path)?, content.as_bytes())
}
