//! What each service of the mesh is, for the reference pages and the tests.

use clap::Command;
use drawbridge_runtime::metric::MetricInfo;

use super::{
    sockets::{AUTH_PORT, EDGE_PORT, IDP_PORT},
    tools::{TOOLS, command},
};

/// A service of the mesh.
#[derive(Clone, Copy, Debug)]
pub struct ServiceInfo {
    /// Its name.
    pub name: &'static str,
    /// The documented port of its server. Its admin port is the next one.
    pub port: u16,
    /// What it serves.
    pub serves: &'static str,
    /// Its command line, as a process.
    pub command: fn() -> Command,
    /// The metrics of its own crate.
    pub metrics: &'static [MetricInfo],
}

/// The services of a mesh, by port.
pub fn services() -> impl Iterator<Item = ServiceInfo> {
    let core = [
        ServiceInfo {
            name: "idp",
            port: IDP_PORT,
            serves: "HTTP: OAuth 2.1, for development",
            command: || command::<drawbridge_idp::Config>("idp"),
            metrics: &[],
        },
        ServiceInfo {
            name: "auth",
            port: AUTH_PORT,
            serves: "gRPC, with `/.well-known/jwks.json`, which is on the admin port too",
            command: || command::<drawbridge_auth::Config>("auth"),
            metrics: drawbridge_auth::METRICS,
        },
        ServiceInfo {
            name: "edge",
            port: EDGE_PORT,
            serves: "HTTP: `/mcp`, `/mcp/<namespace>`, `/.well-known/oauth-protected-resource`",
            command: || command::<drawbridge_edge::Config>("edge"),
            metrics: drawbridge_edge::METRICS,
        },
    ];
    let tools = TOOLS.iter().map(|tool| ServiceInfo {
        name: tool.name,
        port: tool.port,
        serves: "gRPC",
        command: tool.command,
        metrics: tool.metrics,
    });
    core.into_iter().chain(tools)
}

/// The metrics of the crates that services share, by the name of the crate, and then those of the
/// services.
pub fn metric_tables() -> impl Iterator<Item = (&'static str, &'static [MetricInfo])> {
    let shared = [
        ("runtime", drawbridge_runtime::METRICS),
        ("audit", drawbridge_audit::METRICS),
        ("transport", drawbridge_transport::METRICS),
        ("credentials", drawbridge_credentials::METRICS),
    ];
    let own = services().map(|service| (service.name, service.metrics));
    shared.into_iter().chain(own).filter(|(_, metrics)| !metrics.is_empty())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::{Args, FromArgMatches as _};
    use drawbridge_runtime::{
        ServiceArgs, TelemetryConfig,
        metric::{MetricKind, Unit},
    };
    use url::Url;

    use super::*;

    /// <https://prometheus.io/docs/practices/naming/>
    #[test]
    fn metrics_are_named_as_prometheus_recommends_and_described_in_a_sentence() {
        let mut names = BTreeSet::new();
        for info in metric_tables().flat_map(|(_, metrics)| metrics) {
            let name = info.name.strip_suffix("_total");
            assert_eq!(name.is_some(), info.kind == MetricKind::Counter, "{}", info.name);
            let name = name.unwrap_or(info.name);
            let has_unit = |unit: &str| name.split('_').any(|word| word == unit);
            match info.unit {
                Unit::Seconds => assert!(name.ends_with("_seconds"), "{name}"),
                Unit::Bytes => assert!(name.ends_with("_bytes"), "{name}"),
                Unit::Count => assert!(!has_unit("seconds") && !has_unit("bytes"), "{name}"),
                other => panic!("{name}: {other:?} is no base unit of Prometheus"),
            }
            let is_snake = |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            assert!(is_snake(name) && info.labels.iter().all(|label| is_snake(label)), "{name}");
            assert!(info.help.ends_with('.') && info.help.len() > 10, "{name}: {}", info.help);
            assert!(names.insert(name), "{name} is in two tables");
        }
        assert!(names.len() > 60, "{}", names.len());
    }

    /// Configs that code builds once had other defaults than the command lines.
    #[test]
    fn a_config_built_in_code_has_the_defaults_of_the_command_line() {
        let url: Url = "http://127.0.0.1:1".parse().unwrap();
        let name = "http://127.0.0.1:1";
        let built_in_code = [
            ("idp", format!("{:?}", drawbridge_idp::Config::default())),
            ("auth", format!("{:?}", drawbridge_auth::Config::new(name.into(), vec![name.into()]))),
            (
                "edge",
                format!(
                    "{:?}",
                    drawbridge_edge::Config::new(url.clone(), name.into(), url.clone())
                ),
            ),
            ("code", format!("{:?}", drawbridge_code::Config::new(".".into(), Default::default()))),
            (
                "invoices",
                format!(
                    "{:?}",
                    drawbridge_invoices::Config::new(name.into(), url.clone(), Default::default())
                ),
            ),
            ("tickets", format!("{:?}", drawbridge_tickets::Config::new(url, Default::default()))),
        ];
        fn parsed<C: Args + std::fmt::Debug>(service: &str, arguments: &[&str]) -> String {
            let arguments = ["x"].iter().chain(arguments);
            let matches = command::<C>(service).try_get_matches_from(arguments).unwrap();
            format!("{:?}", ServiceArgs::<C>::from_arg_matches(&matches).unwrap().config)
        }
        let (issuer, audience) = ("--issuer=http://127.0.0.1:1", "--audience=http://127.0.0.1:1");
        let auth_url = "--auth-url=http://127.0.0.1:1";
        let from_arguments = [
            parsed::<drawbridge_idp::Config>("idp", &[]),
            parsed::<drawbridge_auth::Config>("auth", &[issuer, audience]),
            parsed::<drawbridge_edge::Config>(
                "edge",
                &[
                    "--public-url=http://127.0.0.1:1",
                    "--authorization-server=http://127.0.0.1:1",
                    auth_url,
                ],
            ),
            parsed::<drawbridge_code::Config>("code", &[]),
            parsed::<drawbridge_invoices::Config>("invoices", &[auth_url, "--database-url=x"]),
            parsed::<drawbridge_tickets::Config>("tickets", &[auth_url]),
        ];
        for ((service, built), parsed) in built_in_code.into_iter().zip(from_arguments) {
            assert_eq!(built, parsed, "{service}");
        }
        let telemetry = command::<drawbridge_code::Config>("code").get_matches_from(["x"]);
        let telemetry = ServiceArgs::<drawbridge_code::Config>::from_arg_matches(&telemetry);
        assert_eq!(
            format!("{:?}", TelemetryConfig::default()),
            format!("{:?}", telemetry.unwrap().telemetry)
        );
    }

    #[test]
    fn every_service_has_a_port_and_an_admin_port_of_its_own() {
        let ports: BTreeSet<_> =
            services().flat_map(|service| [service.port, service.port + 1]).collect();
        assert_eq!(ports.len(), 2 * services().count());
    }
}
