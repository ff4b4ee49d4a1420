//! Reads that never take more than a bound. More is an error, never a truncation.

use std::{
    fs::File,
    io::{self, ErrorKind, Read},
    path::Path,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

/// Reads a source of at most `bytes_max` bytes to its end.
///
/// # Errors
/// When it has more ([`ErrorKind::FileTooLarge`]), or cannot be read.
pub fn read(source: impl Read, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        let reason = format!("it has more than {bytes_max} bytes");
        return Err(io::Error::new(ErrorKind::FileTooLarge, reason));
    }
    Ok(bytes)
}

/// As [`read`], for text.
///
/// # Errors
/// As [`read`], and [`ErrorKind::InvalidData`] when it is not UTF-8.
pub fn read_to_string(source: impl Read, bytes_max: u64) -> io::Result<String> {
    let text = String::from_utf8(read(source, bytes_max)?);
    text.map_err(|error| io::Error::new(ErrorKind::InvalidData, error.utf8_error()))
}

/// Reads a file of at most `bytes_max` bytes.
///
/// # Errors
/// As [`read`], and when it cannot be opened.
pub fn read_file(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    read(File::open(path)?, bytes_max)
}

/// Reads a text file of at most `bytes_max` bytes.
///
/// # Errors
/// As [`read_to_string`], and when it cannot be opened.
pub fn read_file_to_string(path: &Path, bytes_max: u64) -> io::Result<String> {
    read_to_string(File::open(path)?, bytes_max)
}

/// As [`read_file`], without blocking the thread.
///
/// # Errors
/// As [`read_file`].
pub async fn read_file_async(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || read_file(&path, bytes_max)).await?
}

/// The body of an HTTP message could not be read.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It is too large.
    #[error("the body has more than {bytes_max} bytes")]
    TooLarge {
        /// The limit, in bytes.
        bytes_max: usize,
    },
    /// It ended early.
    #[error("the body ended early")]
    Read(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Reads the body of an HTTP message, of at most `bytes_max` bytes.
///
/// # Errors
/// When it has more, or its sender breaks it off.
pub async fn read_body<B>(body: B, bytes_max: usize) -> Result<Bytes, BodyError>
where
    B: hyper::body::Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    match Limited::new(body, bytes_max).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(BodyError::TooLarge { bytes_max }),
        Err(error) => Err(BodyError::Read(error)),
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    #[tokio::test]
    async fn a_source_over_its_bound_is_an_error_and_never_truncated() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "12345").unwrap();
        let too_large = |read: io::Result<()>| {
            let error = read.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::FileTooLarge);
            assert!(error.to_string().contains("more than 4 bytes"), "{error}");
        };
        too_large(read(&b"12345"[..], 4).map(drop));
        too_large(read_to_string(&b"12345"[..], 4).map(drop));
        too_large(read_file(&path, 4).map(drop));
        too_large(read_file_to_string(&path, 4).map(drop));
        too_large(read_file_async(&path, 4).await.map(drop));
        // It has no end, and no length.
        too_large(read_file(Path::new("/dev/zero"), 4).map(drop));
        assert_eq!(read(&b"12345"[..], 5).unwrap(), b"12345");
        assert_eq!(read_file_to_string(&path, 5).unwrap(), "12345");
        assert_eq!(read_file_async(&path, u64::MAX).await.unwrap(), b"12345");
        let error = read_to_string(&b"\xff"[..], 4).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        let missing = read_file_async(&folder.path().join("none"), 4).await.unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn a_body_over_its_bound_is_an_error() {
        let body = || Full::new(Bytes::from_static(b"12345"));
        assert_eq!(read_body(body(), 5).await.unwrap(), "12345");
        let error = read_body(body(), 4).await.unwrap_err();
        assert!(matches!(error, BodyError::TooLarge { bytes_max: 4 }), "{error:?}");
    }
}
