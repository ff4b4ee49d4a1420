//! A service's environment variables, for who starts it in code.

use std::env;

use clap::{Arg, ArgAction, Command, builder::BoolishValueParser};

/// A variable that the service's own process would take cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the environment variables of {service}: {problem}")]
pub struct EnvironmentError {
    /// Which service.
    pub service: &'static str,
    /// What is wrong, and with which variable.
    pub problem: String,
}

/// Changes a config as the service's own process would by its variables `DRAWBRIDGE_<SERVICE>_…`.
/// Those of the options that are `reserved` change nothing. Gives the names of those of them that
/// are set.
///
/// # Errors
/// When a variable holds no value of its option.
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
            command = command.arg(alone(option));
            continue;
        };
        if reserved.contains(&long) {
            let is_set = env::var_os(variable).is_some();
            ignored.extend(is_set.then(|| variable.to_string_lossy().into_owned()));
            command = command.arg(alone(option));
        } else {
            names.push((long.to_owned(), variable.to_string_lossy().into_owned()));
            command = command.arg(alone(option).env(variable.to_owned()));
        }
    }
    if names.iter().all(|(_, variable)| env::var_os(variable).is_none()) {
        return Ok(ignored);
    }
    let failed = |error: clap::Error| {
        let mut problem = error.to_string().trim_start_matches("error: ").trim_end().to_owned();
        // What a person has set is the variable.
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

/// An option without a default, and without others that it needs: the config has all that.
fn alone(option: &Arg) -> Arg {
    let alone = Arg::new(option.get_id().clone());
    // A flag has a default of its own, which is that it is not set.
    let mut alone = match option.get_action() {
        ArgAction::SetTrue => alone.action(ArgAction::Set).value_parser(BoolishValueParser::new()),
        action => alone.action(action.clone()).value_parser(option.get_value_parser().clone()),
    };
    if let Some(long) = option.get_long() {
        alone = alone.long(long.to_owned());
    }
    if let Some(delimiter) = option.get_value_delimiter() {
        alone = alone.value_delimiter(delimiter);
    }
    match option.get_value_names() {
        Some(names) => alone.value_names(names.iter().cloned()),
        None => alone,
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
        #[arg(long, env = "OF_ITS_OWN")]
        file: Option<String>,
        #[arg(long, env = "A_FLAG")]
        flag: bool,
    }

    /// No test sets a variable of its own process, which others read at the same time: `PATH` is
    /// set anyway.
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
    fn a_config_without_variables_stays_as_it_is() {
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
    fn a_variable_that_is_no_value_is_named() {
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
