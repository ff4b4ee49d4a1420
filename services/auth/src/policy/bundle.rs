//! Signed bundles of policies: how many replicas get the same policies from one server.
//!
//! A bundle is one gzipped tar of a policy folder, with its tests. Beside it is a signed note that
//! names its digest and revision. Auth takes a bundle whole or not at all: enough trusted keys must
//! have signed it, its revision must not fall, the policies must be valid together, and its cases
//! must pass.

use std::{io, path::PathBuf};

use bytes::Bytes;
use drawbridge_audit::note;
use drawbridge_config::ConfigError;
use drawbridge_runtime::error_chain;

pub(super) use self::{
    archive::FileKind,
    follow::{BundleFollower, Expiry},
};
pub use self::{
    archive::{ArchiveError, BUNDLE_BYTES_MAX, Bundle, FILES_MAX},
    follow::{BundleConfig, POLL_SECONDS},
    inspect::{InspectedBundle, inspect},
    keys::TrustedKeys,
    location::{BundleLocation, LocationError, OciReference, PolicyLocation},
    note::{KeyError, NOTE_BYTES_MAX, Note, NoteError, SigningKey, VerificationKey},
    release::{Release, ReleaseError, is_name},
    remote::push,
    session::{RemoteConfig, RemoteError},
};
use super::{
    PolicyError, PolicyWorkspace,
    case::{Checked, case_files},
    load::{Loaded, Loader},
    source::{PolicySource, PolicySources},
};

mod archive;
mod cache;
mod follow;
mod inspect;
mod keys;
mod location;
mod registry;
mod release;
mod remote;
mod session;

/// A bundle is not taken.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// Bundles are not trusted without keys.
    #[error(
        "policies from {0} need the public keys that sign them: name a file with --policy-keys"
    )]
    NoKeys(String),
    /// Options of bundles are given with a folder.
    #[error(
        "{0} is a folder; --policy-keys and --policy-cache are for bundles (https:// or oci://)"
    )]
    Folder(String),
    /// The file of keys is invalid.
    #[error("cannot use the policy keys")]
    Keys(#[from] ConfigError),
    /// The folder of the last good bundle cannot be used.
    #[error("cannot use the policy cache {path:?}")]
    Cache {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The server does not have it.
    #[error("cannot fetch the policy bundle")]
    Remote(#[from] RemoteError),
    /// It is not what was signed.
    #[error(
        "the bundle is not the one that its signature is about (the SHA-256 differs); it was \
         changed, or is being uploaded"
    )]
    Digest,
    /// Its note is invalid.
    #[error("invalid signature of the policy bundle")]
    Note(#[from] NoteError),
    /// Too few keys have signed it.
    #[error(
        "{wanted} of the trusted keys must sign the bundle; it has the signatures of {all}, of \
         which trusted: {trusted}"
    )]
    Signers {
        /// How many must.
        wanted: usize,
        /// The trusted keys that did.
        trusted: String,
        /// All keys that did.
        all: String,
    },
    /// It is for another environment.
    #[error("the bundle has the name {is:?}; the policy keys are for bundles named {wanted:?}")]
    Name {
        /// The name that the keys are for.
        wanted: String,
        /// The name of the bundle.
        is: String,
    },
    /// It may not replace the policies in force.
    #[error(transparent)]
    Release(#[from] ReleaseError),
    /// It cannot be unpacked.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The policies are invalid, or a case fails.
    #[error(transparent)]
    Policies(#[from] PolicyError),
}

impl BundleError {
    /// Whether the same bundle may be accepted later.
    pub(super) fn is_transient(&self) -> bool {
        matches!(self, Self::Remote(_) | Self::Digest)
    }

    /// The error without any text of a policy, for readers of the admin port.
    pub(super) fn brief(&self) -> String {
        match self {
            Self::Policies(error) => error.brief(),
            error => error_chain(error),
        }
    }
}

/// A bundle as it was received, with its verified note.
#[derive(Clone, Debug)]
pub(super) struct SignedBundle {
    note: Bytes,
    release: Release,
    pub(super) packed: Bytes,
}

impl SignedBundle {
    /// A bundle, if it is the one that the note is about.
    fn new(note: Bytes, release: Release, packed: Bytes) -> Result<Self, BundleError> {
        if Release::digest(&packed) != release.sha256 {
            return Err(BundleError::Digest);
        }
        Ok(Self { note, release, packed })
    }

    /// The names of those of the keys that have signed it.
    fn signers(&self, keys: &TrustedKeys) -> Vec<String> {
        keys.signers(&self.note)
    }

    /// What its note says.
    pub(super) fn release(&self) -> &Release {
        &self.release
    }
}

impl Bundle {
    /// Reads a policy folder whose policies are valid and whose cases pass. Returns the number of
    /// cases, too.
    ///
    /// # Errors
    /// If it has a problem, or a file that does not belong into a bundle.
    pub fn read(root: &std::path::Path) -> Result<(Self, usize), BundleError> {
        let (mut bundle, sources) = (Self::default(), PolicySources::read(root)?);
        let files = case_files(root)?;
        for source in sources.all().chain(&files) {
            let name = source.path.strip_prefix(root).unwrap_or(&source.path);
            bundle.add(&name.to_string_lossy(), source.text.clone())?;
        }
        let Checked { cases, .. } =
            PolicyWorkspace::check(sources, &files, &mut Loader::default())?;
        Ok((bundle, cases))
    }

    /// Its files, by what they are.
    fn into_sources(self) -> (PolicySources, Vec<PolicySource>) {
        let (mut sources, mut cases) = (PolicySources::default(), Vec::new());
        // A schema of the catalog builds on those of the folder, so it comes after them.
        let mut catalog_schemas = Vec::new();
        for (name, text) in self.files {
            let kind = FileKind::of(&name);
            let source = PolicySource { path: name.into(), text };
            match kind {
                Some(FileKind::Policies) => sources.policies.push(source),
                Some(FileKind::Schema) => sources.schemas.push(source),
                Some(FileKind::CatalogSchema) => catalog_schemas.push(source),
                Some(FileKind::Catalog) => sources.catalog.push(source),
                Some(FileKind::Members) => sources.members.push(source),
                Some(FileKind::Cases) => cases.push(source),
                // INVARIANT: a bundle has no other files.
                None => {}
            }
        }
        sources.schemas.extend(catalog_schemas);
        (sources, cases)
    }
}

/// Builds the policies of a bundle, after all of its checks.
pub(super) fn load(packed: &[u8], loader: &mut Loader) -> Result<Loaded, BundleError> {
    let (sources, cases) = Bundle::unpack(packed)?.into_sources();
    let Checked { workspace, .. } = PolicyWorkspace::check(sources, &cases, loader)?;
    Ok(workspace.into_loaded())
}
