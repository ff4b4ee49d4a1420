//! Where and how a signal is exported, by flags and the variables of OpenTelemetry.

use std::{collections::BTreeMap, io, path::PathBuf, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;
use reqwest::{Certificate, ClientBuilder, Identity};
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::Signal;
use crate::{bounded, private_files, urls::parse_url};

/// The prefix of the variables that all signals share. The variables of one signal have its name
/// after it.
const PREFIX: &str = "OTEL_EXPORTER_OTLP_";
/// The default of `OTEL_EXPORTER_OTLP_TIMEOUT`.
const TIMEOUT_DEFAULT_MS: u64 = 10_000;
/// The most bytes of a file with certificates.
const PEM_BYTES_MAX: u64 = 1024 * 1024;

/// The protocol of the collector, as `OTEL_EXPORTER_OTLP_PROTOCOL` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OtlpProtocol {
    /// OTLP over gRPC, by default at port 4317.
    #[value(name = "grpc")]
    Grpc,
    /// OTLP over HTTP with protobuf, by default at port 4318.
    #[value(name = "http/protobuf")]
    Http,
}

/// The settings of an exporter cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OtlpConfigError {
    /// A variable has a value that is not one of its values.
    #[error("{variable} must be {expected}")]
    Variable {
        /// The variable.
        variable: String,
        /// What it must be.
        expected: &'static str,
    },
    /// TLS over gRPC.
    #[error("{endpoint} needs OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf: gRPC has no TLS here")]
    GrpcTls {
        /// The collector.
        endpoint: Url,
    },
    /// The endpoint is no URI of HTTP.
    #[error("the endpoint cannot be used")]
    Endpoint(#[from] http::uri::InvalidUri),
    /// A file with certificates cannot be read.
    #[error("cannot read {file} of {variable}")]
    File {
        /// The variable that names it.
        variable: String,
        /// The file.
        file: PathBuf,
        /// Why it cannot be read.
        source: io::Error,
    },
    /// Certificates or keys cannot be used.
    #[error("cannot use the certificates for the collector")]
    Tls(#[from] reqwest::Error),
}

/// The variables `OTEL_…` that have no flags, by name. Values may be secrets: headers are.
#[derive(Clone, Debug, Default)]
pub struct OtlpVariables(BTreeMap<String, SecretString>);

impl OtlpVariables {
    /// Those of this process.
    #[must_use]
    pub fn of_process() -> Self {
        let named = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok().filter(|name| name.starts_with("OTEL_"))?;
            // The specification treats an empty value as an absent one.
            let value = value.into_string().ok().filter(|value| !value.trim().is_empty())?;
            Some((name, value.trim().into()))
        });
        Self(named.collect())
    }

    /// With another variable.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.0.insert(name.to_owned(), value.into());
        self
    }

    /// Whether nothing is to be exported.
    pub(crate) fn is_disabled(&self) -> bool {
        self.get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// Whether a signal has an endpoint of its own.
    pub(crate) fn has_endpoint(&self, signal: Signal) -> bool {
        self.get(&format!("{PREFIX}{}_ENDPOINT", signal.variable())).is_some()
    }

    /// A positive number.
    pub(crate) fn number(&self, name: &str, default: usize) -> usize {
        let value = self.get(name).and_then(|value| value.parse().ok());
        value.filter(|number| *number > 0).unwrap_or(default)
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(SecretString::expose_secret)
    }

    /// A variable of a signal, or else the one that all signals share: its name and value.
    fn of_signal(&self, signal: Signal, setting: &str) -> Option<(String, &str)> {
        let own = format!("{PREFIX}{}_{setting}", signal.variable());
        [own, format!("{PREFIX}{setting}")].into_iter().find_map(|name| {
            let value = self.get(&name)?;
            Some((name, value))
        })
    }
}

/// Where and how one signal is exported.
#[derive(Debug)]
pub struct OtlpSettings {
    pub(super) endpoint: Url,
    pub(super) protocol: OtlpProtocol,
    pub(super) headers: HeaderMap,
    pub(super) timeout: Duration,
    pub(super) tls: OtlpTls,
}

/// The certificates for a collector at https.
#[derive(Debug, Default)]
pub(super) struct OtlpTls {
    authorities: Option<Vec<u8>>,
    identity: Option<SecretString>,
}

impl OtlpSettings {
    /// The settings of a signal: its own variables, or else those of all signals. Of the latter,
    /// `endpoint` and `protocol` are flags.
    ///
    /// # Errors
    /// When a variable has a value that is not one of its values, or a file cannot be read.
    pub fn new(
        signal: Signal,
        endpoint: Option<&Url>,
        protocol: OtlpProtocol,
        variables: &OtlpVariables,
    ) -> Result<Self, OtlpConfigError> {
        let own = |setting: &str| {
            let name = format!("{PREFIX}{}_{setting}", signal.variable());
            variables.get(&name).map(|value| (name, value))
        };
        let protocol = match own("PROTOCOL") {
            Some((_, "grpc")) => OtlpProtocol::Grpc,
            Some((_, "http/protobuf")) => OtlpProtocol::Http,
            Some((variable, _)) => {
                let expected = "grpc or http/protobuf";
                return Err(OtlpConfigError::Variable { variable, expected });
            }
            None => protocol,
        };
        let endpoint = match (own("ENDPOINT"), protocol) {
            (Some((variable, own)), _) => {
                let expected = "a URL, for example http://localhost:4318/v1/traces";
                parse_url(own).map_err(|_| OtlpConfigError::Variable { variable, expected })?
            }
            (None, OtlpProtocol::Grpc) => base(endpoint, "http://localhost:4317")?,
            (None, OtlpProtocol::Http) => {
                let base = base(endpoint, "http://localhost:4318")?;
                let at = format!("{}/{}", base.as_str().trim_end_matches('/'), signal.path());
                parse(&at)?
            }
        };
        let none = |(variable, value): (String, &str)| match value {
            "none" => Ok(()),
            _ => Err(OtlpConfigError::Variable { variable, expected: "none" }),
        };
        variables.of_signal(signal, "COMPRESSION").map_or(Ok(()), none)?;
        Ok(Self {
            endpoint,
            protocol,
            headers: headers(variables.of_signal(signal, "HEADERS"))?,
            timeout: timeout(variables.of_signal(signal, "TIMEOUT"))?,
            tls: OtlpTls::read(signal, variables)?,
        })
    }

    /// Where to.
    pub(crate) fn into_endpoint(self) -> Url {
        self.endpoint
    }
}

impl OtlpSettings {
    /// Where it is exported to. It may have secrets.
    #[must_use]
    pub fn endpoint(&self) -> &Url {
        &self.endpoint
    }
}

/// The endpoint of all signals.
fn base(endpoint: Option<&Url>, default: &str) -> Result<Url, OtlpConfigError> {
    endpoint.map_or_else(|| parse(default), |endpoint| Ok(endpoint.clone()))
}

fn parse(url: &str) -> Result<Url, OtlpConfigError> {
    let variable = format!("{PREFIX}ENDPOINT");
    url.parse().map_err(|_| OtlpConfigError::Variable { variable, expected: "a URL" })
}

/// Headers as `name=value,…`, with values in percent-encoding.
fn headers(variable: Option<(String, &str)>) -> Result<HeaderMap, OtlpConfigError> {
    let Some((variable, text)) = variable else { return Ok(HeaderMap::new()) };
    let mut headers = HeaderMap::new();
    for pair in text.split(',').filter(|pair| !pair.trim().is_empty()) {
        let header = pair.split_once('=').and_then(|(name, value)| {
            let name = HeaderName::try_from(name.trim().to_lowercase()).ok()?;
            let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
            let mut value = HeaderValue::try_from(&*value).ok()?;
            value.set_sensitive(true);
            Some((name, value))
        });
        let Some((name, value)) = header else {
            return Err(OtlpConfigError::Variable { variable, expected: "name=value,…" });
        };
        headers.insert(name, value);
    }
    Ok(headers)
}

fn timeout(variable: Option<(String, &str)>) -> Result<Duration, OtlpConfigError> {
    let timeout_ms = match variable {
        None => TIMEOUT_DEFAULT_MS,
        Some((variable, text)) => match text.parse() {
            Ok(0) | Err(_) => {
                let expected = "a positive number of milliseconds";
                return Err(OtlpConfigError::Variable { variable, expected });
            }
            Ok(timeout_ms) => timeout_ms,
        },
    };
    Ok(Duration::from_millis(timeout_ms))
}

impl OtlpTls {
    fn read(signal: Signal, variables: &OtlpVariables) -> Result<Self, OtlpConfigError> {
        let read = |setting: &str| {
            let Some((variable, file)) = variables.of_signal(signal, setting) else {
                return Ok(None);
            };
            let file = PathBuf::from(file);
            let is_secret = setting == "CLIENT_KEY";
            let read = if is_secret { private_files::read_secret } else { bounded::read_file };
            let text = read(&file, PEM_BYTES_MAX).and_then(|bytes| {
                String::from_utf8(bytes)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.utf8_error()))
            });
            match text {
                Ok(text) => Ok(Some(SecretString::from(text))),
                Err(source) => Err(OtlpConfigError::File { variable, file, source }),
            }
        };
        let (certificate, key) = (read("CLIENT_CERTIFICATE")?, read("CLIENT_KEY")?);
        let identity = match (certificate, key) {
            (Some(certificate), Some(key)) => {
                Some(format!("{}\n{}", key.expose_secret(), certificate.expose_secret()).into())
            }
            (None, None) => None,
            _ => {
                let variable = format!("{PREFIX}CLIENT_KEY");
                let expected = "set together with the CLIENT_CERTIFICATE";
                return Err(OtlpConfigError::Variable { variable, expected });
            }
        };
        let authorities = read("CERTIFICATE")?.map(|pem| pem.expose_secret().as_bytes().to_vec());
        Ok(Self { authorities, identity })
    }

    /// Trusts these authorities and no others, if there are any, and presents the identity.
    pub(super) fn apply(&self, mut client: ClientBuilder) -> reqwest::Result<ClientBuilder> {
        if let Some(authorities) = &self.authorities {
            client = client.tls_certs_only(Certificate::from_pem_bundle(authorities)?);
        }
        if let Some(identity) = &self.identity {
            client = client.identity(Identity::from_pem(identity.expose_secret().as_bytes())?);
        }
        Ok(client)
    }
}

impl Signal {
    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Metrics => "metrics",
            Self::Logs => "logs",
        }
    }

    /// Its name in variables.
    fn variable(self) -> &'static str {
        match self {
            Self::Traces => "TRACES",
            Self::Metrics => "METRICS",
            Self::Logs => "LOGS",
        }
    }

    /// Its path at a collector over HTTP.
    fn path(self) -> &'static str {
        match self {
            Self::Traces => "v1/traces",
            Self::Metrics => "v1/metrics",
            Self::Logs => "v1/logs",
        }
    }
}

#[cfg(test)]
mod tests;
