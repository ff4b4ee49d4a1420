use clap::Parser;

mod environment;

pub use environment::{EnvironmentError, apply_environment};

/// Parses the command line of a service. Every `--long-name` is also the environment variable
/// `DRAWBRIDGE_<SERVICE>_LONG_NAME`, unless the argument names another.
///
/// Prints help or a clear error and exits when the arguments are not right.
pub fn parse_args<A: Parser>(service: &str) -> A {
    let command = with_env(A::command(), service);
    let mut matches = command.get_matches();
    A::from_arg_matches_mut(&mut matches).unwrap_or_else(|error| error.exit())
}

fn with_env(command: clap::Command, service: &str) -> clap::Command {
    let prefix = format!("DRAWBRIDGE_{}_", service.to_uppercase());
    command.mut_args(|argument| match argument.get_long() {
        Some(long) if argument.get_env().is_none() && argument.get_action().takes_values() => {
            let name = format!("{prefix}{}", long.replace('-', "_").to_uppercase());
            argument.env(name)
        }
        _ => argument,
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[derive(Parser)]
    struct Sample {
        #[arg(long)]
        public_url: Option<String>,
        #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
        otlp_endpoint: Option<String>,
    }

    #[test]
    fn every_argument_has_an_environment_variable_named_after_the_service() {
        let command = with_env(Sample::command(), "edge");
        let names: Vec<_> =
            command.get_arguments().filter_map(|argument| argument.get_env()?.to_str()).collect();
        assert_eq!(names, ["DRAWBRIDGE_EDGE_PUBLIC_URL", "OTEL_EXPORTER_OTLP_ENDPOINT"]);
    }
}
