//! A service's environment variables, for callers that start the service in code.

use std::env;

use clap::{Arg, ArgAction, Command, builder::BoolishValueParser};

/// An environment variable of a service is invalid.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the environment variables of {service}: {problem}")]
pub struct EnvironmentError {
    /// The service.
    pub service: &'static str,
    /// What is wrong, with the name of the variable.
    pub problem: String,
}

/// Applies the variables `DRAWBRIDGE_<SERVICE>_…` to a config, as the service's own process would.
/// Variables of `reserved` options are ignored; returns the names of those that are set.
///
/// # Errors
/// When a variable's value is invalid for its option.
pub fn apply_environment<A: clap::Args>(
    config: &mut A,
    service: &'static str,
    reserved: &[&str],
) -> Result<Vec<String>, EnvironmentError> {
    let options = super::with_env(A::augment_args(Command::new(service)), service);
    let mut command = Command::new(service).no_binary_name(true);
    let (mut ignored, mut names) = (Vec::new(), Vec::new());
    for option in options.get_arguments() {
        let Some((long, variable)) = option.get_long().zip(option.get_env()) else {
            command = command.arg(bare_option(option));
            continue;
        };
        if reserved.contains(&long) {
            let is_set = env::var_os(variable).is_some();
            ignored.extend(is_set.then(|| variable.to_string_lossy().into_owned()));
            command = command.arg(bare_option(option));
        } else {
            names.push((long.to_owned(), variable.to_string_lossy().into_owned()));
            command = command.arg(bare_option(option).env(variable.to_owned()));
        }
    }
    if names.iter().all(|(_, variable)| env::var_os(variable).is_none()) {
        return Ok(ignored);
    }
    let failed = |error: clap::Error| {
        let mut problem = error.to_string().trim_start_matches("error: ").trim_end().to_owned();
        // The operator has set the variable, so the message names the variable.
        for (long, variable) in &names {
            problem = problem.replace(&format!("--{long} "), &format!("{variable} "));
        }
        let first = problem.split("\n\n").next().unwrap_or_default().to_owned();
        EnvironmentError { service, problem: first }
    };
    let mut matches = command.try_get_matches_from([""; 0]).map_err(failed)?;
    config.update_from_arg_matches_mut(&mut matches).map_err(failed)?;
    Ok(ignored)
}

/// The option without its default and without its requirements: the config provides both.
fn bare_option(option: &Arg) -> Arg {
    let bare_option = Arg::new(option.get_id().clone());
    // A flag defaults to false.
    let mut bare_option = match option.get_action() {
        ArgAction::SetTrue => {
            bare_option.action(ArgAction::Set).value_parser(BoolishValueParser::new())
        }
        action => {
            bare_option.action(action.clone()).value_parser(option.get_value_parser().clone())
        }
    };
    if let Some(long) = option.get_long() {
        bare_option = bare_option.long(long.to_owned());
    }
    if let Some(delimiter) = option.get_value_delimiter() {
        bare_option = bare_option.value_delimiter(delimiter);
    }
    match option.get_value_names() {
        Some(names) => bare_option.value_names(names.iter().cloned()),
        None => bare_option,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, clap::Args)]
    struct Sample {
        #[arg(long, required = true, requires = "file")]
        url: String,
        #[arg(long, required_unless_present = "url")]
        issuer: Option<String>,
        #[arg(long, default_value_t = 5)]
        sessions_max: u32,
        #[arg(long, value_delimiter = ',', default_values = ["a"])]
        scopes: Vec<String>,
        #[arg(long, env = "CUSTOM_NAME")]
        file: Option<String>,
        #[arg(long, env = "A_FLAG")]
        flag: bool,
    }

    /// No test sets a variable of its own process, because other tests read them concurrently.
    /// `PATH` is set anyway.
    #[test]
    fn a_variable_changes_its_option_and_nothing_else_changes() {
        #[derive(Debug, PartialEq, clap::Args)]
        struct WithPath {
            #[arg(long, env = "PATH")]
            path: String,
            #[arg(long, default_value_t = 5)]
            sessions_max: u32,
        }
        let path = env::var("PATH").unwrap();
        let before = || WithPath { path: "before".to_owned(), sessions_max: 7 };
        let mut config = before();
        assert!(apply_environment(&mut config, "sample", &[]).unwrap().is_empty());
        assert_eq!(config, WithPath { path, sessions_max: 7 });
        let mut config = before();
        assert_eq!(apply_environment(&mut config, "sample", &["path"]).unwrap(), ["PATH"]);
        assert_eq!(config, before());
    }

    #[test]
    fn a_config_is_unchanged_when_no_variable_is_set() {
        let before = || Sample {
            url: "x".to_owned(),
            issuer: None,
            sessions_max: 7,
            scopes: vec!["b".to_owned()],
            file: Some("f".to_owned()),
            flag: true,
        };
        let mut config = before();
        assert!(
            apply_environment(&mut config, "sample-without-variables", &["url"])
                .unwrap()
                .is_empty()
        );
        assert_eq!(config, before());
    }

    #[test]
    fn an_invalid_variable_is_named_in_the_error() {
        #[derive(Debug, clap::Args)]
        struct Number {
            #[arg(long, env = "PATH")]
            sessions_max: u32,
        }
        let error = apply_environment(&mut Number { sessions_max: 1 }, "sample", &[])
            .unwrap_err()
            .to_string();
        assert!(
            error.starts_with("cannot use the environment variables of sample: invalid value "),
            "{error}"
        );
        assert!(error.contains("for 'PATH <SESSIONS_MAX>'"), "{error}");
    }
}
