//! The rate limits of the config file.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use drawbridge_runtime::{ConfigText, ConfigTextError};
use http::HeaderValue;
use serde::Deserialize;
use toml::Spanned;

use super::{
    gcra::Quota,
    limit::{By, Charge, Limit, Subject, ToolFilter, WithoutRedis},
};

const LIMITS_MAX: usize = 64;
const REPLICAS_MAX: u64 = 10_000;
const REDIS_TIMEOUT_MS: u64 = 50;
const REDIS_TIMEOUT_MS_MAX: u64 = 5000;
const NAME_BYTES_MAX: usize = 64;
/// A unit takes a whole number of microseconds, rounded up. At this rate the error is a tenth at
/// most.
const RATE_PER_SECOND_MAX: u64 = 100_000;
/// A year: times stay exact in Redis, whose Lua has floating-point numbers only.
const SECONDS_MAX: u64 = 366 * 24 * 3600;
const MICROS_PER_SECOND: u64 = 1_000_000;

/// `[limits]`: settings of all limits.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LimitsTable {
    /// The number of replicas of the edge. Each enforces its share while Redis is unavailable.
    replicas: Option<Spanned<u64>>,
    /// How long a request waits for Redis, in milliseconds.
    redis_timeout_ms: Option<Spanned<u64>>,
}

/// `[[limit]]`: one limit.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LimitEntry {
    name: Spanned<String>,
    by: Spanned<By>,
    rate: Spanned<u64>,
    per_seconds: Option<Spanned<u64>>,
    burst: Option<Spanned<u64>>,
    only: Option<ToolFilter>,
    #[serde(default)]
    cost: BTreeMap<String, Spanned<u64>>,
    #[serde(default)]
    without_redis: WithoutRedis,
}

/// The configured limits.
#[derive(Debug, Default)]
pub(crate) struct LimitRules {
    limits: Vec<Arc<Limit>>,
    pub(super) redis_timeout: Duration,
}

impl LimitRules {
    /// Reads the limits of this text.
    pub(crate) fn new(
        text: &ConfigText,
        table: &LimitsTable,
        entries: &[LimitEntry],
    ) -> Result<Self, ConfigTextError> {
        let replicas =
            text.check_bounds(table.replicas.as_ref(), "replicas", 1, 1..=REPLICAS_MAX)?;
        let timeout = table.redis_timeout_ms.as_ref();
        let timeout = text.check_bounds(
            timeout,
            "redis_timeout_ms",
            REDIS_TIMEOUT_MS,
            1..=REDIS_TIMEOUT_MS_MAX,
        )?;
        let mut names = BTreeSet::new();
        let mut limits = Vec::with_capacity(entries.len());
        for entry in entries {
            let error = |problem| text.error_at(entry.name.span().start, problem);
            if limits.len() == LIMITS_MAX {
                return Err(error(format!("there are more than {LIMITS_MAX} limits")));
            }
            if !names.insert(entry.name.get_ref()) {
                return Err(error(format!("the limit {:?} is given twice", entry.name.get_ref())));
            }
            limits.push(Arc::new(limit(text, entry, replicas)?));
        }
        Ok(Self { limits, redis_timeout: Duration::from_millis(timeout) })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.limits.is_empty()
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.limits.iter().any(|limit| limit.name == name)
    }

    /// The charges of a request, one for each limit that counts it.
    pub(super) fn charges(&self, subject: &Subject<'_>) -> Vec<Charge> {
        self.limits.iter().filter_map(|limit| limit.charge(subject)).collect()
    }
}

fn limit(text: &ConfigText, entry: &LimitEntry, replicas: u64) -> Result<Limit, ConfigTextError> {
    let name = entry.name.get_ref();
    let error = |place: usize, problem: String| Err(text.error_at(place, problem));
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if !(1..=NAME_BYTES_MAX).contains(&name.len()) || !name.bytes().all(allowed) {
        let problem =
            format!("a limit's name has 1 to {NAME_BYTES_MAX} of the characters A-Z a-z 0-9 _ -");
        return error(entry.name.span().start, problem);
    }
    let by = *entry.by.get_ref();
    if by == By::Address && (entry.only.is_some() || !entry.cost.is_empty()) {
        let problem =
            "a limit by address counts unauthenticated requests: it has no `only` and no `cost`";
        return error(entry.by.span().start, problem.to_owned());
    }
    if entry.only.as_ref().is_some_and(|only| only.tools.is_empty() && only.classes.is_empty()) {
        return error(entry.name.span().start, format!("the limit {name:?} selects no tools"));
    }
    let seconds =
        text.check_bounds(entry.per_seconds.as_ref(), "per_seconds", 1, 1..=SECONDS_MAX)?;
    let rate =
        text.check_bounds(Some(&entry.rate), "rate", 1, 1..=RATE_PER_SECOND_MAX * seconds)?;
    let unit_micros = (seconds * MICROS_PER_SECOND).div_ceil(rate);
    // An empty bucket fills within a year.
    let burst_max = SECONDS_MAX * MICROS_PER_SECOND / unit_micros;
    let burst = text.check_bounds(entry.burst.as_ref(), "burst", rate, 1..=burst_max)?;
    for (tool, cost) in &entry.cost {
        if *cost.get_ref() > burst {
            let problem =
                format!("{tool:?} costs more than the burst of {burst}: it could never be called");
            return error(cost.span().start, problem);
        }
    }
    let cost: BTreeMap<_, _> =
        entry.cost.iter().map(|(tool, cost)| (tool.clone(), *cost.get_ref())).collect();
    let cost_max = cost.values().copied().max().unwrap_or(1).max(1);
    let policy = HeaderValue::try_from(format!("\"{name}\";q={rate};w={seconds}"));
    Ok(Limit {
        name: name.clone(),
        by,
        only: entry.only.clone(),
        cost,
        quota: Quota { unit_micros, burst },
        share: Quota {
            unit_micros: unit_micros * replicas,
            burst: (burst / replicas).max(cost_max),
        },
        without_redis: entry.without_redis,
        policy: policy
            .map_err(|error| text.error_at(entry.name.span().start, error.to_string()))?,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct LimitTables {
        #[serde(default)]
        limits: LimitsTable,
        #[serde(default)]
        limit: Vec<LimitEntry>,
    }

    fn read(text: &str) -> Result<LimitRules, String> {
        let text = ConfigText::new("edge.toml", text);
        let tables = text.parse::<LimitTables>();
        tables
            .and_then(|tables| LimitRules::new(&text, &tables.limits, &tables.limit))
            .map_err(|error| error.to_string())
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
        edge.toml: TOML parse error at line 1, column 1
          |
        1 | [[limit]]
          | ^^^^^^^^^
        missing field `rate`

        edge.toml:4: rate must be from 1 to 100000
        edge.toml:4: rate must be from 1 to 100000
        edge.toml:5: per_seconds must be from 1 to 31622400
        edge.toml:5: burst must be from 1 to 31622400
        edge.toml: TOML parse error at line 5, column 1
          |
        5 | per = 1
          | ^^^
        unknown field `per`, expected one of `name`, `by`, `rate`, `per_seconds`, `burst`, `only`, `cost`, `without_redis`

        edge.toml:5: "code_search" costs more than the burst of 1: it could never be called
        edge.toml:2: the limit "a" selects no tools
        edge.toml: TOML parse error at line 5, column 17
          |
        5 | without_redis = "open"
          |                 ^^^^^^
        unknown variant `open`, expected `local` or `closed`

        edge.toml:6: the limit "a" is given twice
        edge.toml: TOML parse error at line 3, column 6
          |
        3 | by = "person"
          |      ^^^^^^^^
        unknown variant `person`, expected one of `principal`, `tenant`, `client`, `tool`, `tool_class`, `address`, `global`

        edge.toml:2: a limit's name has 1 to 64 of the characters A-Z a-z 0-9 _ -
        edge.toml:3: a limit by address counts unauthenticated requests: it has no `only` and no `cost`
        edge.toml:2: replicas must be from 1 to 10000
        "#);
    }
}
