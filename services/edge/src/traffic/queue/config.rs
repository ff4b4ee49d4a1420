//! The concurrency limits of the config file.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use drawbridge_runtime::{ConfigText, ConfigTextError};
use serde::Deserialize;
use toml::Spanned;

use crate::namespace::Namespace;

/// The largest value of any limit.
const MAX: u64 = 100_000;
const WAIT_MS_MAX: u64 = 60_000;

/// `[concurrency]`, on this replica.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConcurrencyTable {
    /// Calls of one principal that run at once, on all tool services.
    calls_per_principal: Option<Spanned<u64>>,
    /// Calls that run at once on one tool service.
    calls_per_service: Option<Spanned<u64>>,
    /// Overrides `calls_per_service`, by namespace.
    #[serde(default)]
    service: BTreeMap<String, Spanned<u64>>,
    /// Calls of one principal that wait.
    waiting_per_principal: Option<Spanned<u64>>,
    /// Calls that wait for one tool service.
    waiting_per_service: Option<Spanned<u64>>,
    /// How long a call waits at most, and before it a request, in milliseconds.
    wait_ms: Option<Spanned<u64>>,
    /// Requests in progress at once while this replica is not overloaded.
    requests_max: Option<Spanned<u64>>,
    /// Requests in progress at once while this replica is overloaded.
    requests_min: Option<Spanned<u64>>,
    /// Requests that wait for a permit.
    requests_waiting: Option<Spanned<u64>>,
}

/// The concurrency limits of this replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QueueRules {
    pub(super) calls_per_principal: usize,
    pub(super) calls_per_service: usize,
    pub(super) services: BTreeMap<String, usize>,
    pub(super) waiting_per_principal: usize,
    pub(super) waiting_per_service: usize,
    pub(super) wait: Duration,
    pub(super) requests_max: usize,
    pub(super) requests_min: usize,
    pub(super) requests_waiting: usize,
}

impl Default for QueueRules {
    fn default() -> Self {
        Self {
            calls_per_principal: 64,
            calls_per_service: 512,
            services: BTreeMap::new(),
            waiting_per_principal: 64,
            waiting_per_service: 1024,
            wait: Duration::from_secs(1),
            requests_max: 4096,
            requests_min: 64,
            requests_waiting: 1024,
        }
    }
}

impl QueueRules {
    /// Reads the table of this text. It may name only services of these namespaces.
    pub(crate) fn new(
        text: &ConfigText,
        table: &ConcurrencyTable,
        services: &BTreeSet<Namespace>,
    ) -> Result<Self, ConfigTextError> {
        let defaults = Self::default();
        let count = |given: &Option<Spanned<u64>>, name, default: usize| {
            let given = text.check_bounds(given.as_ref(), name, default as u64, 1..=MAX)?;
            Ok(usize::try_from(given).unwrap_or(usize::MAX))
        };
        let mut of_services = BTreeMap::new();
        for (namespace, calls) in &table.service {
            if !services.contains(namespace.as_str()) {
                let problem = format!("no service has the namespace {namespace:?}");
                return Err(text.error_at(calls.span().start, problem));
            }
            of_services.insert(namespace.clone(), count(&Some(calls.clone()), namespace, 1)?);
        }
        let wait_ms =
            text.check_bounds(table.wait_ms.as_ref(), "wait_ms", 1000, 1..=WAIT_MS_MAX)?;
        let requests_max = count(&table.requests_max, "requests_max", defaults.requests_max)?;
        let requests_min =
            count(&table.requests_min, "requests_min", defaults.requests_min.min(requests_max))?;
        if requests_min > requests_max {
            let place = table.requests_min.as_ref().map_or(0, |given| given.span().start);
            return Err(text.error_at(place, "requests_min must not be above requests_max"));
        }
        Ok(Self {
            calls_per_principal: count(
                &table.calls_per_principal,
                "calls_per_principal",
                defaults.calls_per_principal,
            )?,
            calls_per_service: count(
                &table.calls_per_service,
                "calls_per_service",
                defaults.calls_per_service,
            )?,
            services: of_services,
            waiting_per_principal: count(
                &table.waiting_per_principal,
                "waiting_per_principal",
                defaults.waiting_per_principal,
            )?,
            waiting_per_service: count(
                &table.waiting_per_service,
                "waiting_per_service",
                defaults.waiting_per_service,
            )?,
            wait: Duration::from_millis(wait_ms),
            requests_max,
            requests_min,
            requests_waiting: count(
                &table.requests_waiting,
                "requests_waiting",
                defaults.requests_waiting,
            )?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct QueueTables {
        #[serde(default)]
        concurrency: ConcurrencyTable,
    }

    fn read(text: &str) -> Result<QueueRules, String> {
        let services = ["code".parse().unwrap()].into();
        let text = ConfigText::new("edge.toml", text);
        let tables = text.parse::<QueueTables>();
        tables
            .and_then(|tables| QueueRules::new(&text, &tables.concurrency, &services))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_service_may_override_the_limit_of_calls() {
        let rules = read("[concurrency]\ncalls_per_service = 9\nservice = { code = 3 }\n").unwrap();
        assert_eq!((rules.services["code"], rules.calls_per_service), (3, 9));
        assert_eq!(read("").unwrap(), QueueRules::default());
        assert_eq!(read("[concurrency]\nrequests_max = 5\n").unwrap().requests_min, 5);
    }

    #[test]
    fn an_invalid_setting_is_reported_with_its_position() {
        let mistakes = [
            "[concurrency]\ncalls_per_principal = 0\n",
            "[concurrency]\nwait_ms = 60001\n",
            "[concurrency]\nservice = { cod = 3 }\n",
            "[concurrency]\nrequests_max = 10\nrequests_min = 11\n",
            "[concurrency]\ncalls = 1\n",
        ];
        let errors: Vec<_> = mistakes.iter().map(|text| read(text).unwrap_err()).collect();
        insta::assert_snapshot!(errors.join("\n"), @r#"
        edge.toml:2: calls_per_principal must be from 1 to 100000
        edge.toml:2: wait_ms must be from 1 to 60000
        edge.toml:2: no service has the namespace "cod"
        edge.toml:3: requests_min must not be above requests_max
        edge.toml: TOML parse error at line 2, column 1
          |
        2 | calls = 1
          | ^^^^^
        unknown field `calls`, expected one of `calls_per_principal`, `calls_per_service`, `service`, `waiting_per_principal`, `waiting_per_service`, `wait_ms`, `requests_max`, `requests_min`, `requests_waiting`
        "#);
    }
}
