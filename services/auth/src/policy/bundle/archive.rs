//! Bundles: one gzipped tar with all files of a policy folder.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use drawbridge_config::policy::FILE_BYTES_MAX;
use drawbridge_runtime::bounded;
use flate2::{Compression, GzBuilder, bufread::GzDecoder};
use tar::{Archive, Builder, EntryType, Header};

/// The largest bundle in bytes, packed and unpacked.
pub const BUNDLE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// The most files of a bundle.
pub const FILES_MAX: usize = 10_000;
/// The longest name of a file, in bytes.
const NAME_BYTES_MAX: usize = 100;
/// gzip's number of an unknown operating system, so that bundles do not depend on it.
const ANY_SYSTEM: u8 = 255;

/// Where a file of a policy folder is, and so what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::policy) enum FileKind {
    Policies,
    Schema,
    CatalogSchema,
    Catalog,
    Members,
    Cases,
}

impl FileKind {
    const ALL: [(Self, &'static str, &'static str); 6] = [
        (Self::Policies, "", ".cedar"),
        (Self::Schema, "", ".cedarschema"),
        (Self::CatalogSchema, "catalog/", ".cedarschema"),
        (Self::Catalog, "catalog/", ".entities.json"),
        (Self::Members, "entities/", ".json"),
        (Self::Cases, "tests/", ".json"),
    ];

    /// The kind of the file with this name, relative to the folder. `None` if no such file belongs
    /// into a bundle.
    pub(in crate::policy) fn of(name: &str) -> Option<Self> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let is_stem = |stem: &str| {
            stem.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric() || first == b'_')
                && stem.bytes().all(is_allowed)
        };
        let of = |(kind, folder, suffix): (Self, &str, &str)| {
            let stem = name.strip_prefix(folder)?.strip_suffix(suffix)?;
            is_stem(stem).then_some(kind)
        };
        Self::ALL.into_iter().find_map(of).filter(|_| name.len() <= NAME_BYTES_MAX)
    }
}

/// A bundle cannot be packed or unpacked.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It is not compressed by gzip, or larger than allowed.
    #[error("the bundle cannot be decompressed")]
    Gzip(#[source] io::Error),
    /// It is not a tar.
    #[error("the bundle is not a tar")]
    Tar(#[source] io::Error),
    /// A file has a name that no policy file has.
    #[error(
        "{0:?} does not belong into a bundle (expected NAME.cedar, NAME.cedarschema, \
         catalog/NAME.cedarschema, catalog/NAME.entities.json, entities/NAME.json or \
         tests/NAME.json; a name has letters, digits, `-`, `_` and `.`)"
    )]
    Name(String),
    /// An entry is a link, a folder or another special file.
    #[error("{name:?} is {kind}; a bundle has regular files only")]
    Special {
        /// Its name.
        name: String,
        /// What it is.
        kind: &'static str,
    },
    /// A file cannot be read.
    #[error("{name:?} cannot be read")]
    File {
        /// Its name.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// There are too many files.
    #[error("the bundle has more than {FILES_MAX} files")]
    Files,
    /// It is larger than allowed.
    #[error("the bundle has {bytes} bytes, of at most {BUNDLE_BYTES_MAX}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The same files can be written in a simpler way.
    #[error("the bundle is not as `drawbridge policy bundle` writes it")]
    NotCanonical,
}

/// The files of a policy folder, by name relative to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bundle {
    pub(in crate::policy) files: BTreeMap<String, String>,
}

impl Bundle {
    /// How many files it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether it has no files.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Adds a file.
    pub(in crate::policy) fn add(&mut self, name: &str, text: String) -> Result<(), ArchiveError> {
        FileKind::of(name).ok_or_else(|| ArchiveError::Name(name.to_owned()))?;
        if self.files.len() == FILES_MAX {
            return Err(ArchiveError::Files);
        }
        self.files.insert(name.to_owned(), text);
        Ok(())
    }

    /// The bytes of the bundle: the same for the same files.
    ///
    /// # Errors
    /// If it is too large.
    pub fn pack(&self) -> Result<Vec<u8>, ArchiveError> {
        let gzip = GzBuilder::new().mtime(0).operating_system(ANY_SYSTEM);
        let mut unpacked = Counted::new(gzip.write(Vec::new(), Compression::best()));
        self.write_tar(&mut unpacked).map_err(ArchiveError::Tar)?;
        let packed = unpacked.writer.finish().map_err(ArchiveError::Gzip)?;
        let bytes = unpacked.bytes.max(packed.len());
        if bytes > BUNDLE_BYTES_MAX { Err(ArchiveError::TooLarge { bytes }) } else { Ok(packed) }
    }

    fn write_tar(&self, writer: impl Write) -> io::Result<()> {
        let mut tar = Builder::new(writer);
        for (name, text) in &self.files {
            let mut header = Header::new_ustar();
            header.set_path(name)?;
            header.set_entry_type(EntryType::Regular);
            header.set_mode(0o644);
            header.set_size(text.len() as u64);
            header.set_mtime(0);
            header.set_uid(0);
            header.set_gid(0);
            header.set_cksum();
            tar.append(&header, text.as_bytes())?;
        }
        tar.into_inner()?.flush()
    }

    /// Reads a bundle, in memory.
    ///
    /// # Errors
    /// If it is too large, has anything but policy files, or is written in another way than
    /// [`Self::pack`] does: another tar could mean other files to another reader.
    pub fn unpack(packed: &[u8]) -> Result<Self, ArchiveError> {
        if packed.len() > BUNDLE_BYTES_MAX {
            return Err(ArchiveError::TooLarge { bytes: packed.len() });
        }
        let mut gzip = GzDecoder::new(packed);
        let tar = bounded::read(&mut gzip, BUNDLE_BYTES_MAX as u64).map_err(ArchiveError::Gzip)?;
        if !gzip.into_inner().is_empty() {
            return Err(ArchiveError::NotCanonical);
        }
        let mut bundle = Self::default();
        // Raw: extensions of the format are entries, and refused like links.
        let mut archive = Archive::new(tar.as_slice());
        for entry in archive.entries().map_err(ArchiveError::Tar)?.raw(true) {
            let entry = entry.map_err(ArchiveError::Tar)?;
            let name = String::from_utf8_lossy(&entry.header().path_bytes()).into_owned();
            if let Some(kind) = special(entry.header().entry_type()) {
                return Err(ArchiveError::Special { name, kind });
            }
            let text = bounded::read_to_string(entry, FILE_BYTES_MAX);
            let text = text.map_err(|source| ArchiveError::File { name: name.clone(), source })?;
            bundle.add(&name, text)?;
        }
        let mut rest = Expected(&tar);
        match bundle.write_tar(&mut rest) {
            Ok(()) if rest.0.is_empty() => Ok(bundle),
            _ => Err(ArchiveError::NotCanonical),
        }
    }
}

/// What an entry is, unless it is a regular file.
fn special(kind: EntryType) -> Option<&'static str> {
    match kind {
        EntryType::Regular => None,
        EntryType::Symlink => Some("a symbolic link"),
        EntryType::Link => Some("a hard link"),
        EntryType::Directory => Some("a folder"),
        _ => Some("a special file or an extension of the tar format"),
    }
}

/// Counts what is written.
struct Counted<W> {
    writer: W,
    bytes: usize,
}

impl<W> Counted<W> {
    fn new(writer: W) -> Self {
        Self { writer, bytes: 0 }
    }
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.writer.write(bytes)?;
        self.bytes += written;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// Bytes that are expected to be written.
struct Expected<'a>(&'a [u8]);

impl Write for Expected<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = self.0.strip_prefix(bytes).ok_or_else(|| io::Error::other("other bytes"))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
