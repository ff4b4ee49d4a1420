//! Why telemetry does not start.

use std::{io, path::PathBuf};

use crate::otlp::OtlpConfigError;

/// Telemetry could not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The log filter is invalid.
    #[error("invalid log filter {filter:?}")]
    Filter {
        /// The text.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// A file cannot be used.
    #[error("cannot read {what} in {file}")]
    File {
        /// What the file has.
        what: &'static str,
        /// The file.
        file: PathBuf,
        /// Why it cannot be used.
        source: io::Error,
    },
    /// The exporter could not be built.
    #[error("cannot export {signal}")]
    Exporter {
        /// What it exports.
        signal: &'static str,
        /// Why it cannot.
        source: OtlpConfigError,
    },
    /// The process already has telemetry.
    #[error("telemetry is already installed")]
    Installed,
    /// The operating system could not create threads.
    #[error("cannot start the service's threads")]
    Runtime(#[source] io::Error),
}
