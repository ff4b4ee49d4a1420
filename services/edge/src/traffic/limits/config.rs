//! The rate limits of the config file.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use drawbridge_config::{
    Mistakes,
    edge::{LIMIT_RATE_PER_SECOND_MAX, LIMIT_SECONDS_MAX, LimitBy, LimitEntry, LimitsTable},
};
use http::HeaderValue;

use super::{
    gcra::Quota,
    limit::{Charge, Limit, Subject},
};

const LIMITS_MAX: usize = 64;
const MICROS_PER_SECOND: u64 = 1_000_000;

/// The configured limits.
#[derive(Debug, Default)]
pub(crate) struct LimitRules {
    limits: Vec<Arc<Limit>>,
    pub(super) redis_timeout: Duration,
}

impl LimitRules {
    /// The limits of the config file.
    pub(crate) fn new(
        table: &LimitsTable,
        entries: &[LimitEntry],
        mistakes: &mut Mistakes<'_>,
    ) -> Self {
        if let Some(entry) = entries.get(LIMITS_MAX) {
            mistakes.push(entry.name.span(), format!("there are more than {LIMITS_MAX} limits"));
        }
        let mut names = BTreeSet::new();
        let mut limits = Vec::with_capacity(entries.len());
        for entry in entries {
            if !names.insert(entry.name.as_str()) {
                mistakes
                    .push(entry.name.span(), format!("the limit {} is given twice", *entry.name));
            }
            limits.push(Arc::new(limit(entry, table.replicas.get(), mistakes)));
        }
        let redis_timeout = Duration::from_millis(table.redis_timeout_ms.get());
        Self { limits, redis_timeout }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.limits.is_empty()
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.limits.iter().any(|limit| limit.name == name)
    }

    pub(super) fn closed_without_redis(&self) -> Option<&str> {
        self.limits.iter().find(|limit| limit.is_closed_to_all()).map(|limit| limit.name.as_str())
    }

    /// The charges of a request, one for each limit that counts it.
    pub(super) fn charges(&self, subject: &Subject<'_>) -> Vec<Charge> {
        self.limits.iter().filter_map(|limit| limit.charge(subject)).collect()
    }
}

fn limit(entry: &LimitEntry, replicas: u64, mistakes: &mut Mistakes<'_>) -> Limit {
    let name = &*entry.name;
    let by = *entry.by;
    if by == LimitBy::Address && (entry.only.is_some() || !entry.cost.is_empty()) {
        let problem =
            "a limit by address counts unauthenticated requests: it has no `only` and no `cost`";
        mistakes.push(entry.by.span(), problem);
    }
    if entry.only.as_ref().is_some_and(|only| only.tools.is_empty() && only.classes.is_empty()) {
        mistakes.push_combined(entry.name.span(), format!("the limit {name} selects no tools"));
    }
    let (rate, seconds) = (entry.rate.get(), entry.per_seconds.get());
    if rate > LIMIT_RATE_PER_SECOND_MAX * seconds {
        let problem =
            format!("a limit may have at most {LIMIT_RATE_PER_SECOND_MAX} requests per second");
        mistakes.push_combined(entry.rate.span(), problem);
    }
    let unit_micros = (seconds * MICROS_PER_SECOND).div_ceil(rate);
    // An empty bucket fills within a year.
    let burst_max = LIMIT_SECONDS_MAX * MICROS_PER_SECOND / unit_micros;
    let burst = entry.burst.as_ref().map_or(rate, |burst| burst.get());
    if let Some(given) = entry.burst.as_ref().filter(|_| burst > burst_max) {
        mistakes.push_combined(given.span(), format!("burst must be from 1 to {burst_max}"));
    }
    for (tool, cost) in entry.cost.iter().filter(|(_, cost)| ***cost > burst) {
        let problem =
            format!("{tool:?} costs more than the burst of {burst}: it could never be called");
        mistakes.push_combined(cost.span(), problem);
    }
    let cost: BTreeMap<_, _> =
        entry.cost.iter().map(|(tool, cost)| (tool.clone(), **cost)).collect();
    let cost_max = cost.values().copied().max().unwrap_or(1).max(1);
    let policy = HeaderValue::try_from(format!("\"{name}\";q={rate};w={seconds}"));
    let policy = policy.unwrap_or_else(|error| {
        mistakes.push(entry.name.span(), error.to_string());
        HeaderValue::from_static("")
    });
    Limit {
        name: name.to_string(),
        by,
        only: entry.only.clone(),
        cost,
        quota: Quota { unit_micros, burst },
        share: Quota {
            unit_micros: unit_micros.saturating_mul(replicas),
            burst: (burst / replicas).max(cost_max),
        },
        without_redis: entry.without_redis,
        policy,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::traffic::testdata;

    fn read(text: &str) -> Result<LimitRules, String> {
        testdata::read(text, |file, mistakes| LimitRules::new(&file.limits, &file.limit, mistakes))
    }

    pub(in crate::traffic::limits) fn rules(text: &str) -> LimitRules {
        read(text).unwrap()
    }

    #[test]
    fn each_replica_enforces_its_share_of_a_limit() {
        let rules = rules(
            r#"
            [limits]
            replicas = 4
            [[limit]]
            name = "each-person"
            by = "principal"
            rate = 60
            per_seconds = 60
            burst = 20
            cost = { code_search = 7 }
            "#,
        );
        let limit = &rules.limits[0];
        assert_eq!(limit.quota, Quota { unit_micros: 1_000_000, burst: 20 });
        // The most expensive tool can still be called.
        assert_eq!(limit.share, Quota { unit_micros: 4_000_000, burst: 7 });
        assert_eq!(limit.policy, "\"each-person\";q=60;w=60");
        assert_eq!(rules.redis_timeout, Duration::from_millis(50));
    }

    #[test]
    fn an_invalid_limit_is_reported_with_its_position() {
        let limit = "[[limit]]\nname = \"a\"\nby = \"principal\"\n";
        let rated = format!("{limit}rate = 1\n");
        let mistakes = [
            limit.to_owned(),
            format!("{limit}rate = 0\n"),
            format!("{limit}rate = 100001\n"),
            format!("{rated}per_seconds = 0\n"),
            format!("{rated}burst = 0\n"),
            format!("{rated}per = 1\n"),
            format!("{rated}cost = {{ code_search = 2 }}\n"),
            format!("{rated}only = {{}}\n"),
            format!("{rated}without_redis = \"open\"\n"),
            format!("{rated}{rated}"),
            rated.replace("principal", "person"),
            rated.replace("\"a\"", "\"a b\""),
            format!(
                "{}only = {{ tools = [\"code_search\"] }}\n",
                rated.replace("principal", "address")
            ),
            "[limits]\nreplicas = 0\n".to_owned(),
        ];
        let errors: Vec<_> = mistakes.iter().map(|text| read(text).unwrap_err()).collect();
        insta::assert_snapshot!(errors.join("\n"), @r#"
        edge.toml:1:1: missing field `rate`
          |
        1 | [[limit]]
          | ^^^^^^^^^
        edge.toml:4:8: must be from 1 to 3162240000000
          |
        4 | rate = 0
          |        ^
        edge.toml:4:8: a limit may have at most 100000 requests per second
          |
        4 | rate = 100001
          |        ^^^^^^
        edge.toml:5:15: must be from 1 to 31622400
          |
        5 | per_seconds = 0
          |               ^
        edge.toml:5:9: must be at least 1
          |
        5 | burst = 0
          |         ^
        edge.toml:5:1: unknown field `per`, expected one of `name`, `by`, `rate`, `per_seconds`, `burst`, `only`, `cost`, `without_redis`
          |
        5 | per = 1
          | ^^^
          = help: did you mean `per_seconds`?
        edge.toml:5:24: "code_search" costs more than the burst of 1: it could never be called
          |
        5 | cost = { code_search = 2 }
          |                        ^
        edge.toml:2:8: the limit a selects no tools
          |
        2 | name = "a"
          |        ^^^
        edge.toml:5:17: unknown variant `open`, expected `local` or `closed`
          |
        5 | without_redis = "open"
          |                 ^^^^^^
        edge.toml:6:8: the limit a is given twice
          |
        6 | name = "a"
          |        ^^^
        edge.toml:3:6: unknown variant `person`, expected one of `principal`, `tenant`, `client`, `tool`, `tool_class`, `address`, `global`
          |
        3 | by = "person"
          |      ^^^^^^^^
        edge.toml:2:8: invalid name: expected 1 to 64 of the characters A-Z a-z 0-9 _ -
          |
        2 | name = "a b"
          |        ^^^^^
        edge.toml:3:6: a limit by address counts unauthenticated requests: it has no `only` and no `cost`
          |
        3 | by = "address"
          |      ^^^^^^^^^
        edge.toml:2:12: must be from 1 to 10000
          |
        2 | replicas = 0
          |            ^
        "#);
    }
}
