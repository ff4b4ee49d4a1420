//! The tool services of the mesh: one row each.

use std::{error::Error, sync::Arc};

use clap::{Args, Command};
use drawbridge_credentials::CredentialsConfig;
use drawbridge_runtime::{
    RunningService, ServiceArgs, Telemetry, metric::MetricInfo, service_command,
};
use drawbridge_sdk::ToolServiceConfig;
use futures::future::{BoxFuture, FutureExt as _};
use prost_reflect::{DescriptorError, DescriptorPool};

use super::{
    MeshConfig, MeshError, TRANSACTION_ISSUER, environment,
    plan::Plan,
    sockets::{BoundSocket, Sockets},
};

/// A tool service that every mesh starts.
#[derive(Debug)]
pub struct ToolService {
    /// Its name and namespace.
    pub name: &'static str,
    /// The documented port of its gRPC server. Its admin port is the next one.
    pub port: u16,
    /// What it does, in a few words.
    pub description: &'static str,
    /// Its command line, as a process.
    pub command: fn() -> Command,
    /// The metrics of its own crate.
    pub metrics: &'static [MetricInfo],
    /// Its contract, an encoded `FileDescriptorSet`, if it is in its own folder. Absent: it is in
    /// `drawbridge-proto`.
    pub descriptors: Option<&'static [u8]>,
    /// Configures it.
    prepare: fn(&Wiring<'_>) -> Result<Start, MeshError>,
}

/// Starts a configured service within its own runtime.
pub(super) type Start = Box<dyn FnOnce(Arc<Telemetry>) -> Starting + Send>;
type Starting = BoxFuture<'static, Result<RunningService, Box<dyn Error + Send + Sync>>>;

/// The tool services. `drawbridge up`, its report, the policies' catalog and the tests read this
/// table.
pub const TOOLS: &[ToolService] = &[
    ToolService {
        name: "code",
        port: 7210,
        description: "searches a source tree",
        command: || command::<drawbridge_code::Config>("code"),
        metrics: drawbridge_code::METRICS,
        descriptors: None,
        prepare: code,
    },
    ToolService {
        name: "invoices",
        port: 7220,
        description: "reads, stores and approves invoices",
        command: || {
            let migrate = Command::new("migrate").about("Migrate the database, and exit");
            command::<drawbridge_invoices::Config>("invoices").subcommand(migrate)
        },
        metrics: &[],
        descriptors: None,
        prepare: invoices,
    },
    ToolService {
        name: "tickets",
        port: 7230,
        description: "searches and answers support tickets",
        command: || command::<drawbridge_tickets::Config>("tickets"),
        metrics: drawbridge_tickets::METRICS,
        descriptors: None,
        prepare: tickets,
    },
];

/// The contracts of all services in this build.
///
/// # Errors
/// Never in a build that passed its tests.
pub fn contracts() -> Result<DescriptorPool, DescriptorError> {
    let mut pool = drawbridge_contract::built_in()?;
    for descriptors in TOOLS.iter().filter_map(|tool| tool.descriptors) {
        pool.decode_file_descriptor_set(descriptors)?;
    }
    Ok(pool)
}

/// The command line of a service with this config.
pub(super) fn command<C: Args>(service: &str) -> Command {
    service_command::<ServiceArgs<C>>(service, "")
}

/// Configures the tool services.
pub(super) fn prepare(
    plan: &Plan,
    config: &MeshConfig,
) -> Result<Vec<(&'static str, Start)>, MeshError> {
    let prepare = |(tool, (name, main)): (&ToolService, &(&'static str, BoundSocket))| {
        let admin = config.ports.bind(tool.port + 1)?;
        let sockets = Sockets { main: main.clone(), admin };
        Ok((*name, (tool.prepare)(&Wiring { name, plan, config, sockets })?))
    };
    TOOLS.iter().zip(&plan.tools).map(prepare).collect()
}

/// What the mesh gives a tool service.
struct Wiring<'a> {
    name: &'static str,
    plan: &'a Plan,
    config: &'a MeshConfig,
    sockets: Sockets,
}

/// Options of every tool service that the mesh sets itself.
const TOOL_OPTIONS: [&str; 2] = ["auth-jwks-url", "auth-issuer"];

impl Wiring<'_> {
    /// The options that every tool service has.
    fn service<const PORT: u16>(&self) -> Result<ToolServiceConfig<PORT>, MeshError> {
        Ok(ToolServiceConfig {
            listen: self.sockets.main.listen.clone(),
            admin_listen: self.sockets.admin.listen.clone(),
            auth_jwks_url: self.plan.service_jwks_url()?,
            auth_issuer: TRANSACTION_ISSUER.to_owned(),
            mtls: self.plan.tool_mtls(self.name)?,
            ..ToolServiceConfig::default()
        })
    }

    /// Applies the service's environment variables. The mesh sets the options `managed` itself.
    fn apply_environment<C: Args>(
        &self,
        managed: &[&'static str],
        config: C,
    ) -> Result<C, MeshError> {
        environment::apply(self.config, self.name, &[managed, &TOOL_OPTIONS].concat(), config)
    }
}

/// Options that the mesh sets itself.
const CODE_OPTIONS: &[&str] = &["root"];

fn code(wiring: &Wiring<'_>) -> Result<Start, MeshError> {
    let root = wiring.config.code_root.clone();
    let code = drawbridge_code::Config::new(root, wiring.service()?);
    let code = wiring.apply_environment(CODE_OPTIONS, code)?;
    Ok(Box::new(|telemetry| {
        async move { Ok(drawbridge_code::start(code, &telemetry).await?) }.boxed()
    }))
}

/// Options that the mesh sets itself.
const INVOICES_OPTIONS: &[&str] = &["database-url"];

fn invoices(wiring: &Wiring<'_>) -> Result<Start, MeshError> {
    let (database, auth) = (wiring.config.invoices_database_url.clone(), wiring.plan.auth_url()?);
    let vault = wiring.config.vault.as_ref().map(|vault| vault.config.clone());
    let credentials = CredentialsConfig { vault, ..CredentialsConfig::new(auth.clone()) };
    let invoices = drawbridge_invoices::Config {
        credentials: CredentialsConfig::placeholder(&auth),
        ..drawbridge_invoices::Config::new(database, auth, wiring.service()?)
    };
    let invoices = wiring.apply_environment(INVOICES_OPTIONS, invoices)?;
    let invoices = drawbridge_invoices::Config { credentials, ..invoices };
    Ok(Box::new(|telemetry| {
        async move { Ok(drawbridge_invoices::start(invoices, &telemetry).await?) }.boxed()
    }))
}

/// Options that the mesh sets itself.
const TICKETS_OPTIONS: &[&str] = &["sample-helpdesk", "helpdesk-url"];

fn tickets(wiring: &Wiring<'_>) -> Result<Start, MeshError> {
    let auth = wiring.plan.auth_url()?;
    let credentials = CredentialsConfig::new(auth.clone());
    let tickets = drawbridge_tickets::Config {
        sample_helpdesk: true,
        credentials: CredentialsConfig::placeholder(&auth),
        ..drawbridge_tickets::Config::new(auth, wiring.service()?)
    };
    let tickets = wiring.apply_environment(TICKETS_OPTIONS, tickets)?;
    let tickets = drawbridge_tickets::Config { credentials, ..tickets };
    Ok(Box::new(|telemetry| {
        async move { Ok(drawbridge_tickets::start(tickets, &telemetry).await?) }.boxed()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::tests::check_managed;

    #[test]
    fn every_option_that_the_mesh_manages_exists() {
        check_managed::<drawbridge_code::Config>("code", CODE_OPTIONS);
        check_managed::<drawbridge_invoices::Config>("invoices", INVOICES_OPTIONS);
        check_managed::<drawbridge_tickets::Config>("tickets", TICKETS_OPTIONS);
        check_managed::<ToolServiceConfig>("a tool service", &TOOL_OPTIONS);
    }
}
