//! The tool services of the mesh: one row each.

use std::{error::Error, sync::Arc};

use drawbridge_credentials::CredentialsConfig;
use drawbridge_runtime::{RunningService, Telemetry};
use futures::future::{BoxFuture, FutureExt as _};

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
    /// Configures it.
    prepare: fn(&Plan, &MeshConfig, Sockets) -> Result<Start, MeshError>,
}

/// Starts a configured service within its own runtime.
pub(super) type Start = Box<dyn FnOnce(Arc<Telemetry>) -> Starting + Send>;
type Starting = BoxFuture<'static, Result<RunningService, Box<dyn Error + Send + Sync>>>;

/// The tool services. `drawbridge up`, its report, the policies' catalog and the tests read this
/// table.
pub const TOOLS: &[ToolService] = &[
    ToolService { name: "code", port: 7210, description: "searches a source tree", prepare: code },
    ToolService {
        name: "invoices",
        port: 7220,
        description: "reads, stores and approves invoices",
        prepare: invoices,
    },
    ToolService {
        name: "tickets",
        port: 7230,
        description: "searches and answers support tickets",
        prepare: tickets,
    },
];

/// Configures the tool services.
pub(super) fn prepare(
    plan: &Plan,
    config: &MeshConfig,
) -> Result<Vec<(&'static str, Start)>, MeshError> {
    let prepare = |(tool, (name, main)): (&ToolService, &(&'static str, BoundSocket))| {
        let admin = config.ports.bind(tool.port + 1)?;
        let sockets = Sockets { main: main.clone(), admin };
        Ok((*name, (tool.prepare)(plan, config, sockets)?))
    };
    TOOLS.iter().zip(&plan.tools).map(prepare).collect()
}

/// Options that the mesh sets itself.
const CODE_OPTIONS: &[&str] = &["root", "auth-jwks-url", "auth-issuer"];

fn code(plan: &Plan, config: &MeshConfig, sockets: Sockets) -> Result<Start, MeshError> {
    let code = drawbridge_code::Config {
        listen: sockets.main.listen,
        admin_listen: sockets.admin.listen,
        auth_issuer: TRANSACTION_ISSUER.to_owned(),
        mtls: plan.tool_mtls("code")?,
        ..drawbridge_code::Config::new(config.code_root.clone(), plan.service_jwks_url()?)
    };
    let code = environment::apply(config, "code", CODE_OPTIONS, code)?;
    Ok(Box::new(|telemetry| {
        async move { Ok(drawbridge_code::start(code, &telemetry).await?) }.boxed()
    }))
}

/// Options that the mesh sets itself.
const INVOICES_OPTIONS: &[&str] = &["database-url", "auth-jwks-url", "auth-issuer"];

fn invoices(plan: &Plan, config: &MeshConfig, sockets: Sockets) -> Result<Start, MeshError> {
    let (auth, jwks_url) = (plan.auth_url()?, plan.service_jwks_url()?);
    let vault = config.vault.as_ref().map(|vault| vault.config.clone());
    let credentials = CredentialsConfig { vault, ..CredentialsConfig::new(auth.clone()) };
    let invoices = drawbridge_invoices::Config {
        listen: sockets.main.listen,
        admin_listen: sockets.admin.listen,
        auth_issuer: TRANSACTION_ISSUER.to_owned(),
        mtls: plan.tool_mtls("invoices")?,
        credentials: CredentialsConfig::placeholder(&auth),
        ..drawbridge_invoices::Config::new(config.invoices_database_url.clone(), auth, jwks_url)
    };
    let invoices = environment::apply(config, "invoices", INVOICES_OPTIONS, invoices)?;
    let invoices = drawbridge_invoices::Config { credentials, ..invoices };
    Ok(Box::new(|telemetry| {
        async move { Ok(drawbridge_invoices::start(invoices, &telemetry).await?) }.boxed()
    }))
}

/// Options that the mesh sets itself.
const TICKETS_OPTIONS: &[&str] =
    &["sample-helpdesk", "helpdesk-url", "auth-jwks-url", "auth-issuer"];

fn tickets(plan: &Plan, config: &MeshConfig, sockets: Sockets) -> Result<Start, MeshError> {
    let (auth, jwks_url) = (plan.auth_url()?, plan.service_jwks_url()?);
    let own = drawbridge_tickets::Config::new(auth.clone(), jwks_url);
    let credentials = own.credentials.clone();
    let tickets = drawbridge_tickets::Config {
        listen: sockets.main.listen,
        admin_listen: sockets.admin.listen,
        sample_helpdesk: true,
        mtls: plan.tool_mtls("tickets")?,
        auth_issuer: TRANSACTION_ISSUER.to_owned(),
        credentials: CredentialsConfig::placeholder(&auth),
        ..own
    };
    let tickets = environment::apply(config, "tickets", TICKETS_OPTIONS, tickets)?;
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
    }
}
