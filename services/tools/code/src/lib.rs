//! Searches and reads one source tree, and nothing outside it.

use std::{io, path::PathBuf};

use drawbridge_proto::code::v1::code_service_server::CodeServiceServer;
use drawbridge_sdk::{
    RunningService, Telemetry, ToolServiceConfig, ToolServiceError, metric, parse_defaults,
};

pub use self::metrics::METRICS;
use self::{api::CodeApi, query::SearchLimits, secrets::Secrets, tree::Tree};

mod api;
mod error;
mod lines;
mod links;
mod list;
mod metrics;
mod query;
mod read;
mod resource;
#[cfg(test)]
mod sample;
mod search;
mod secrets;
mod tree;
mod walk;

/// The largest request, in bytes. A query, a glob and a path are short.
const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// The service's configuration.
#[derive(Clone, Debug, clap::Args)]
pub struct Config {
    /// The root folder of the source tree.
    #[arg(long, default_value = ".")]
    pub root: PathBuf,

    /// The largest file that is searched or read, in bytes. gRPC clients commonly accept messages
    /// of up to 4 MiB.
    #[arg(long, default_value_t = 1024 * 1024)]
    pub file_bytes_max: u64,

    /// More files that may hold keys, in addition to the built-in list: globs in `.gitignore`
    /// syntax, comma-separated, for example `*.secret,!ca.pem`. The last match decides; a glob that
    /// starts with `!` exempts a file. Such files are not found, listed or read.
    #[arg(long, value_delimiter = ',', value_name = "GLOB")]
    pub secret_glob: Vec<String>,

    /// The longest query of a search, in bytes.
    #[arg(long, default_value_t = 4096)]
    pub query_bytes_max: usize,

    /// The longest glob of a search or a listing, in bytes.
    #[arg(long, default_value_t = 1024)]
    pub glob_bytes_max: usize,

    /// How much of a line is searched, in bytes. A search cannot be cancelled within a line.
    #[arg(long, default_value_t = 16 * 1024)]
    pub line_bytes_max: usize,

    /// The maximum number of concurrent calls. Further calls queue until their deadlines.
    #[arg(long, default_value_t = 64)]
    pub jobs_max: usize,

    /// What every tool service has.
    #[command(flatten)]
    pub service: ToolServiceConfig<7210>,
}

impl Config {
    /// A config for this source tree, with defaults otherwise.
    #[must_use]
    pub fn new(root: PathBuf, service: ToolServiceConfig<7210>) -> Self {
        Self { root, service, ..parse_defaults(&[]) }
    }
}

/// The service could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The root is missing, not a folder, or not readable.
    #[error("cannot open the source tree {}", root.display())]
    Root {
        /// The configured root.
        root: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A configured glob is invalid.
    #[error("invalid glob `{glob}` in --secret-glob")]
    SecretGlob {
        /// The glob.
        glob: String,
        /// The cause.
        source: ignore::Error,
    },
    /// What every tool service needs failed.
    #[error(transparent)]
    Service(#[from] ToolServiceError),
}

/// Starts the service.
///
/// # Errors
/// When the root is not a folder that can be opened, or an address cannot be bound.
pub async fn start(config: Config, telemetry: &Telemetry) -> Result<RunningService, StartError> {
    metric::describe(METRICS);
    let secrets = Secrets::new(&config.secret_glob)
        .map_err(|(glob, source)| StartError::SecretGlob { glob, source })?;
    let tree = Tree::open(&config.root, config.file_bytes_max, secrets)
        .map_err(|source| StartError::Root { root: config.root, source })?;
    let limits = SearchLimits {
        query_bytes_max: config.query_bytes_max,
        glob_bytes_max: config.glob_bytes_max,
        line_bytes_max: config.line_bytes_max,
    };
    let service = CodeServiceServer::new(CodeApi::new(tree, limits, config.jobs_max));
    let builder = config.service.prepare("code", telemetry)?;
    Ok(builder.request_bytes_max(REQUEST_BYTES_MAX).serve(service)?)
}
