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

/// Applies a service's environment variables to its config, except for `managed_options` and those
/// that the mesh sets for every service.
pub(super) fn apply<A: clap::Args>(
    config: &MeshConfig,
    service: &'static str,
    managed_options: &[&'static str],
    mut args: A,
) -> Result<A, MeshError> {
    if !config.environment {
        return Ok(args);
    }
    let credentials = CredentialsConfig::augment_args(Command::new("credentials"));
    let credentials = credentials.get_arguments().filter_map(clap::Arg::get_long);
    let reserved: Vec<_> =
        MANAGED_FOR_ALL.iter().chain(managed_options).copied().chain(credentials).collect();
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
pub(super) mod tests {
    use super::*;

    /// Checks that a service has the options that the mesh manages.
    pub(crate) fn check_managed<A: clap::Args>(service: &str, managed_options: &[&str]) {
        let command = A::augment_args(Command::new("x"));
        let known: Vec<_> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
        for option in managed_options {
            assert!(known.contains(option), "{service} has no --{option}");
        }
    }
}
