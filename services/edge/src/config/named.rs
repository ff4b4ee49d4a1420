use std::path::{Path, PathBuf};

use drawbridge_config::{ConfigError, ConfigText, Namespace};
use drawbridge_transport::SpiffeId;
use url::Url;

use super::{ServiceAddress, file, from_flags};

/// What flags and a config file name, for a program that starts an edge and reports what it offers.
#[derive(Clone, Debug, Default)]
pub struct NamedServices {
    /// The tool services: their namespace, where they are, and who they must be.
    pub services: Vec<(Namespace, Vec<Url>, Option<SpiffeId>)>,
    /// The virtual servers.
    pub servers: Vec<Namespace>,
    /// The catalog lock.
    pub lock: Option<PathBuf>,
}

/// Reads which tool services and virtual servers flags and a config file name.
///
/// # Errors
/// When the file cannot be used.
pub fn named_services(
    flags: &[ServiceAddress],
    config: Option<&Path>,
) -> Result<NamedServices, ConfigError> {
    let text = config.map(ConfigText::read).transpose()?;
    let flags = from_flags(flags);
    let parsed = match &text {
        Some(text) => file::parse(text, &flags.into())?,
        None => super::ParsedConfig { services: flags, ..super::ParsedConfig::default() },
    };
    let services = parsed.services.into_iter();
    Ok(NamedServices {
        services: services
            .map(|(namespace, settings)| (namespace, settings.urls, settings.spiffe_id))
            .collect(),
        servers: parsed.overlay.servers.keys().cloned().collect(),
        lock: text.as_ref().and_then(file::lock_path),
    })
}
