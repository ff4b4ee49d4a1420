//! Applies the services' environment variables to the mesh.

use clap::{Args as _, Command};
use drawbridge_credentials::CredentialsConfig;
use drawbridge_runtime::apply_environment;

use super::{MeshConfig, MeshError};

/// Options that the mesh sets for every service.
const MANAGED_FOR_ALL: [&str; 9] = [
    "listen",
    "admin-listen",
    "redis-url",
    "auth-url",
    "auth-spiffe-id",
    "mtls-certificate-file",
    "mtls-key-file",
    "mtls-trust-bundle-file",
    "mtls-allow",
];

/// Further options that the mesh sets for a service.
fn managed_options(service: &str) -> &'static [&'static str] {
    match service {
        "edge" => &["public-url", "authorization-server"],
        "auth" => &[
            "issuer",
            "issuer-tenants",
            "issuers",
            "allow-private-addresses",
            "audience",
            "internal-audience",
            "policies",
            "transaction-issuer",
            "revocations-file",
            "mtls-allow-edge",
        ],
        "idp" => {
            &["issuer", "resources", "internal-resources", "auth-audience", "users", "state-file"]
        }
        "code" => &["root", "auth-jwks-url", "auth-issuer"],
        "invoices" => &["database-url", "auth-jwks-url", "auth-issuer"],
        "tickets" => &["sample-helpdesk", "helpdesk-url", "auth-jwks-url", "auth-issuer"],
        _ => &[],
    }
}

/// Applies a service's environment variables to its config, except for options that the mesh sets
/// itself.
pub(super) fn apply<A: clap::Args>(
    config: &MeshConfig,
    service: &'static str,
    mut args: A,
) -> Result<A, MeshError> {
    if !config.environment {
        return Ok(args);
    }
    let credentials = CredentialsConfig::augment_args(Command::new("credentials"));
    let credentials = credentials.get_arguments().filter_map(clap::Arg::get_long);
    let reserved: Vec<_> = MANAGED_FOR_ALL
        .iter()
        .chain(managed_options(service))
        .copied()
        .chain(credentials)
        .collect();
    for variable in apply_environment(&mut args, service, &reserved)? {
        // `up` applies these two to the whole mesh.
        if !["DRAWBRIDGE_EDGE_PUBLIC_URL", "DRAWBRIDGE_EDGE_REDIS_URL"].contains(&variable.as_str())
        {
            anstream::eprintln!("warning: {variable} is ignored: the mesh sets this option itself");
        }
    }
    Ok(args)
}

#[cfg(test)]
mod tests {
    use clap::Args;

    use super::*;

    fn check<A: Args>(service: &str) {
        let command = A::augment_args(Command::new("x"));
        let known: Vec<_> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
        for option in managed_options(service) {
            assert!(known.contains(option), "{service} has no --{option}");
        }
    }

    #[test]
    fn every_option_that_the_mesh_manages_exists() {
        check::<drawbridge_edge::Config>("edge");
        check::<drawbridge_auth::Config>("auth");
        check::<drawbridge_idp::Config>("idp");
        check::<drawbridge_code::Config>("code");
        check::<drawbridge_invoices::Config>("invoices");
        check::<drawbridge_tickets::Config>("tickets");
    }
}
