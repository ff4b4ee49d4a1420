//! The concurrency limits of the config file.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use drawbridge_config::{Bounded, Mistakes, Namespace, closest, edge::ConcurrencyTable};

/// Requests in progress while the replica is overloaded.
const REQUESTS_MIN: usize = 64;

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
        Self::from(&ConcurrencyTable::default())
    }
}

impl From<&ConcurrencyTable> for QueueRules {
    fn from(table: &ConcurrencyTable) -> Self {
        let requests_max = count(&table.requests_max);
        let services = table.service.iter();
        Self {
            calls_per_principal: count(&table.calls_per_principal),
            calls_per_service: count(&table.calls_per_service),
            services: services.map(|(name, calls)| (name.to_string(), count(calls))).collect(),
            waiting_per_principal: count(&table.waiting_per_principal),
            waiting_per_service: count(&table.waiting_per_service),
            wait: Duration::from_millis(table.wait_ms.get()),
            requests_max,
            requests_min: table.requests_min.as_ref().map_or(REQUESTS_MIN.min(requests_max), count),
            requests_waiting: count(&table.requests_waiting),
        }
    }
}

fn count<const MIN: u64, const MAX: u64>(number: &Bounded<MIN, MAX>) -> usize {
    usize::try_from(number.get()).unwrap_or(usize::MAX)
}

impl QueueRules {
    /// The rules of the config file. It may name only services of these namespaces, or any.
    pub(crate) fn new(
        table: &ConcurrencyTable,
        services: Option<&BTreeSet<Namespace>>,
        mistakes: &mut Mistakes<'_>,
    ) -> Self {
        let services = services.filter(|_| mistakes.is_complete("services"));
        let is_unknown = |name: &str| services.filter(|services| !services.contains(name));
        for (name, services) in
            table.service.keys().filter_map(|name| Some((name, is_unknown(name)?)))
        {
            let problem = format!("no service has the namespace {:?}", name.as_str());
            let suggested = closest(name, services.iter().map(Namespace::as_str));
            let help = suggested.map(|name| format!("did you mean `{name}`?"));
            mistakes.push_with_help(name.span(), problem, help);
        }
        let rules = Self::from(table);
        let min = table.requests_min.as_ref();
        if let Some(min) = min.filter(|_| rules.requests_min > rules.requests_max) {
            mistakes.push_combined(min.span(), "requests_min must not be above requests_max");
        }
        rules
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::testdata;

    fn read(text: &str) -> Result<QueueRules, String> {
        let services = ["code".parse().unwrap()].into();
        testdata::read(text, |file, mistakes| {
            QueueRules::new(&file.concurrency, Some(&services), mistakes)
        })
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
        edge.toml:2:23: must be from 1 to 100000
          |
        2 | calls_per_principal = 0
          |                       ^
        edge.toml:2:11: must be from 1 to 60000
          |
        2 | wait_ms = 60001
          |           ^^^^^
        edge.toml:2:13: no service has the namespace "cod"
          |
        2 | service = { cod = 3 }
          |             ^^^
          = help: did you mean `code`?
        edge.toml:3:16: requests_min must not be above requests_max
          |
        3 | requests_min = 11
          |                ^^
        edge.toml:2:1: unknown field `calls`, expected one of `calls_per_principal`, `calls_per_service`, `service`, `waiting_per_principal`, `waiting_per_service`, `wait_ms`, `requests_max`, `requests_min`, `requests_waiting`
          |
        2 | calls = 1
          | ^^^^^
          = help: did you mean `calls_per_service`?
        "#);
    }
}
