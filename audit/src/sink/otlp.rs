//! A receiver of OpenTelemetry's log records: a collector.

use std::env;

use axum::http::StatusCode;
use clap::ValueEnum as _;
use drawbridge_runtime::{
    error_chain,
    otlp::{OtlpClient, OtlpError, OtlpProtocol, OtlpSettings, OtlpVariables, Signal},
    parse_url,
};
use tonic::Code;

use super::{
    backlog::Batch,
    delivery::{Delivered, SendError},
};
use crate::SinkConfig;

mod request;

/// The endpoint of logs alone.
const LOGS_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT";
/// The protocol of logs alone.
const LOGS_PROTOCOL: &str = "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL";

/// The collector by the options, or else by the variables of OpenTelemetry.
pub(super) fn settings(config: &SinkConfig) -> Result<OtlpSettings, String> {
    let mut variables = OtlpVariables::of_process();
    let shared = |name: &str| env::var(name).ok().filter(|value| !value.trim().is_empty());
    let protocol = match config.audit_otlp_protocol {
        Some(protocol) => {
            let name = protocol.to_possible_value();
            let name = name.as_ref().map_or("grpc", |value| value.get_name());
            variables = variables.with(LOGS_PROTOCOL, name);
            protocol
        }
        None => match shared("OTEL_EXPORTER_OTLP_PROTOCOL") {
            Some(text) => OtlpProtocol::from_str(text.trim(), false)
                .map_err(|_| "OTEL_EXPORTER_OTLP_PROTOCOL must be grpc or http/protobuf")?,
            None => OtlpProtocol::Grpc,
        },
    };
    let endpoint = match &config.audit_otlp_endpoint {
        // The option is more specific than a variable of all log lines.
        Some(endpoint) => {
            let path = if protocol == OtlpProtocol::Http { "/v1/logs" } else { "" };
            let whole = format!("{}{path}", endpoint.as_str().trim_end_matches('/'));
            variables = variables.with(LOGS_ENDPOINT, &whole);
            Some(endpoint.clone())
        }
        None => shared("OTEL_EXPORTER_OTLP_ENDPOINT")
            .map(|text| parse_url(&text))
            .transpose()
            .map_err(|error| format!("OTEL_EXPORTER_OTLP_ENDPOINT: {error}"))?,
    };
    OtlpSettings::new(Signal::Logs, endpoint.as_ref(), protocol, &variables)
        .map_err(|error| error_chain(&error))
}

/// Sends batches by OTLP. An answer acknowledges a batch, but for what it says was rejected.
#[derive(Debug)]
pub(super) struct OtlpReceiver(OtlpClient);

impl OtlpReceiver {
    /// Must be called within a runtime.
    pub(super) fn new(settings: OtlpSettings) -> Result<Self, String> {
        OtlpClient::new(settings).map(Self).map_err(|error| error_chain(&error))
    }

    pub(super) async fn send(&self, log: &str, batch: &Batch) -> Result<Delivered, SendError> {
        let sent = self.0.export(request::request(log, batch)).await;
        let rejected = sent.map_err(|error| SendError {
            is_too_large: matches!(
                &error,
                OtlpError::Status(StatusCode::PAYLOAD_TOO_LARGE)
                    | OtlpError::Grpc { code: Code::ResourceExhausted | Code::OutOfRange, .. }
            ),
            ..SendError::new(error_chain(&error))
        })?;
        Ok(Delivered { rejected: rejected.min(batch.lines.len() as u64) })
    }
}
