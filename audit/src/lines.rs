//! The lines of a file.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

/// The longest line, in bytes.
pub(crate) const LINE_BYTES_MAX: u64 = 1 << 20;
/// `prev` of the first line of a log.
pub(crate) const FIRST_PREV: &str =
    "0000000000000000000000000000000000000000000000000000000000000000";

/// The hash of a line without its newline, as `prev` has it.
#[must_use]
pub(crate) fn line_hash(line: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(line))
}

/// What a reader needs of a record without its event.
#[derive(Debug, Deserialize)]
pub(crate) struct RecordHead<'a> {
    #[serde(borrow)]
    pub(crate) time: Cow<'a, str>,
    #[serde(borrow)]
    pub(crate) event: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(crate) trace_id: Cow<'a, str>,
}

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Its number in the file, from 1.
    pub(crate) number: u64,
    /// Its bytes without the newline.
    pub(crate) bytes: Vec<u8>,
    /// Whether a newline ends it.
    pub(crate) is_complete: bool,
}

/// The lines of a file, read one by one.
#[derive(Debug)]
pub(crate) struct Lines {
    source: BufReader<File>,
    path: PathBuf,
    number: u64,
}

impl Lines {
    /// Opens a file.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path).map_err(|error| named(path, &error))?;
        let source = BufReader::with_capacity(1 << 17, file);
        Ok(Self { source, path: path.to_owned(), number: 0 })
    }
}

impl Iterator for Lines {
    type Item = io::Result<Line>;

    fn next(&mut self) -> Option<io::Result<Line>> {
        let mut bytes = Vec::new();
        let mut source = (&mut self.source).take(LINE_BYTES_MAX + 1);
        match source.read_until(b'\n', &mut bytes) {
            Ok(0) => return None,
            Err(error) => return Some(Err(named(&self.path, &error))),
            Ok(_) => self.number += 1,
        }
        let is_complete = bytes.last() == Some(&b'\n');
        if is_complete {
            bytes.pop();
        } else if bytes.len() as u64 > LINE_BYTES_MAX {
            let problem = format!(
                "{}:{}: the line has more than {LINE_BYTES_MAX} bytes",
                self.path.display(),
                self.number
            );
            return Some(Err(io::Error::new(io::ErrorKind::InvalidData, problem)));
        }
        Some(Ok(Line { number: self.number, bytes, is_complete }))
    }
}

pub(crate) fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot read {}: {error}", path.display()))
}
