//! Finds and books meeting rooms.

use drawbridge_sdk::{RunningService, Telemetry, ToolServiceConfig, ToolServiceError};

use self::{
    api::Api,
    contract::{DESCRIPTORS, {{name}}::v1::{{name}}_service_server::{{Camel}}ServiceServer},
};

mod api;
mod bookings;
mod contract {
    drawbridge_sdk::include_contract!();
}

/// The options of the service: those that every tool service has. For options of your own, flatten
/// it into a struct that derives `drawbridge_sdk::clap::Args`.
pub type Config = ToolServiceConfig<{{port}}>;

/// Starts the service.
///
/// # Errors
/// When its certificate is unusable, or an address cannot be bound.
pub async fn start(
    config: Config,
    telemetry: &Telemetry,
) -> Result<RunningService, ToolServiceError> {
    let service = {{Camel}}ServiceServer::new(Api::default());
    config.prepare("{{name}}", telemetry)?.descriptors(DESCRIPTORS).serve(service)
}
