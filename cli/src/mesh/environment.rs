//! The environment variables of services, for a mesh that honours them.

use clap::{Args as _, Command};
use drawbridge_sdk::{apply_environment, credentials::CredentialsConfig};

use super::{MeshConfig, MeshError};

/// What every service of the mesh gets from the mesh.
const OF_ALL: [&str; 9] = [
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

/// What else a service gets from the mesh.
fn of(service: &str) -> &'static [&'static str] {
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

/// Changes what the mesh starts a service with by the variables that the service's own process
/// takes, but for what the mesh decides itself.
pub(super) fn apply<A: clap::Args>(
    config: &MeshConfig,
    service: &'static str,
    mut own: A,
) -> Result<A, MeshError> {
    if !config.environment {
        return Ok(own);
    }
    let credentials = CredentialsConfig::augment_args(Command::new("credentials"));
    let credentials = credentials.get_arguments().filter_map(clap::Arg::get_long);
    let reserved: Vec<_> = OF_ALL.iter().chain(of(service)).copied().chain(credentials).collect();
    for variable in apply_environment(&mut own, service, &reserved)? {
        // These two are honoured for the whole mesh, by `up`.
        if !["DRAWBRIDGE_EDGE_PUBLIC_URL", "DRAWBRIDGE_EDGE_REDIS_URL"].contains(&variable.as_str())
        {
            anstream::eprintln!(
                "warning: {variable} changes nothing here: the mesh sets it itself"
            );
        }
    }
    Ok(own)
}

#[cfg(test)]
mod tests {
    use clap::Args;

    use super::*;

    fn check<A: Args>(service: &str) {
        let command = A::augment_args(Command::new("x"));
        let known: Vec<_> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
        for option in of(service) {
            assert!(known.contains(option), "{service} has no --{option}");
        }
    }

    #[test]
    fn what_the_mesh_decides_are_options_of_the_service() {
        check::<drawbridge_edge::Config>("edge");
        check::<drawbridge_auth::Config>("auth");
        check::<drawbridge_idp::Config>("idp");
        check::<drawbridge_code::Config>("code");
        check::<drawbridge_invoices::Config>("invoices");
        check::<drawbridge_tickets::Config>("tickets");
    }
}
