//! Checkpoints: the state of a log, signed (C2SP tlog-checkpoint).

use std::fmt;

use crate::{
    merkle::Hash,
    note::{Note, NoteError, SigningKey, VerificationKey},
};

/// The origin of checkpoints begins with this.
const ORIGIN: &str = "drawbridge";

/// The origin of a log in checkpoints, `drawbridge/<mesh>/<service>/<replica>/<start>`.
pub(crate) fn origin(mesh: &str, log: &str) -> String {
    format!("{ORIGIN}/{mesh}/{log}")
}

/// The log of an origin, as records name it. Absent: it is no origin of an audit log.
pub(crate) fn log_of(origin: &str) -> Option<&str> {
    origin.strip_prefix(ORIGIN)?.strip_prefix('/')?.split_once('/').map(|(_, log)| log)
}

/// The state of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log.
    pub origin: String,
    /// The number of its lines.
    pub size: u64,
    /// The root of its Merkle tree.
    pub root: Hash,
}

/// A checkpoint is not usable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// It is not a signed note, or a signature is wrong.
    #[error(transparent)]
    Note(#[from] NoteError),
    /// Its text is not that of a checkpoint.
    #[error("not a checkpoint: expected the lines origin, size and Base64 of a root")]
    Format,
    /// The expected key did not sign it.
    #[error("it is not signed by the key of its log, {0}")]
    Unsigned(String),
}

impl Checkpoint {
    /// Signs it.
    ///
    /// # Errors
    /// When the origin has control characters.
    pub fn sign(&self, key: &SigningKey) -> Result<String, NoteError> {
        let mut note = Note::new(self.to_string())?;
        note.sign(key);
        Ok(note.to_string())
    }

    /// Parses a signed checkpoint, and verifies the signature of this key.
    ///
    /// # Errors
    /// When it is not a checkpoint, or the key did not sign it.
    pub fn open(note: &str, key: &VerificationKey) -> Result<Self, CheckpointError> {
        let note = Note::parse(note.as_bytes())?;
        if note.signers(std::slice::from_ref(key))?.is_empty() {
            return Err(CheckpointError::Unsigned(key.name().to_owned()));
        }
        Self::parse(note.text()).ok_or(CheckpointError::Format)
    }

    /// Parses a signed checkpoint without verifying a signature.
    pub(crate) fn peek(note: &str) -> Option<Self> {
        Self::parse(Note::parse(note.as_bytes()).ok()?.text())
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.split('\n');
        let (origin, size, root) = (lines.next()?, lines.next()?, lines.next()?);
        let is_canonical = !size.starts_with('0') || size == "0";
        let size = size.parse().ok().filter(|_| is_canonical && !size.starts_with('+'))?;
        let root = Hash::parse(root)?;
        (!origin.is_empty()).then(|| Self { origin: origin.to_owned(), size, root })
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { origin, size, root } = self;
        write!(formatter, "{origin}\n{size}\n{root}\n")
    }
}
