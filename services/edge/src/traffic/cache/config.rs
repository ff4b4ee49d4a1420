//! `[cache]`, as it stands in the config file.

use std::time::Duration;

use drawbridge_sdk::{ConfigText, ConfigTextError};
use serde::Deserialize;
use toml::Spanned;

const BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Far more than a replica should have: a mistake in the unit is noticed.
const BYTES_MAX_MAX: u64 = 1 << 40;
const ENTRY_BYTES_MAX: u64 = 256 * 1024;
const ENTRY_BYTES_MAX_MAX: u64 = 16 * 1024 * 1024;
const REDIS_TIMEOUT_MS: u64 = 50;
const REDIS_TIMEOUT_MS_MAX: u64 = 5000;

/// `[cache]` of the file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CacheTable {
    enabled: Option<bool>,
    bytes_max: Option<Spanned<u64>>,
    entry_bytes_max: Option<Spanned<u64>>,
    redis_timeout_ms: Option<Spanned<u64>>,
}

/// How the cache is set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(super) enabled: bool,
    /// Of all that this process keeps.
    pub(super) bytes_max: u64,
    /// Of one result.
    pub(super) entry_bytes_max: u64,
    /// How long Redis may take.
    pub(super) redis_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            enabled: true,
            bytes_max: BYTES_MAX,
            entry_bytes_max: ENTRY_BYTES_MAX,
            redis_timeout: Duration::from_millis(REDIS_TIMEOUT_MS),
        }
    }
}

impl Settings {
    /// Reads what this text sets.
    pub(crate) fn new(text: &ConfigText, table: &CacheTable) -> Result<Self, ConfigTextError> {
        let number = |given: &Option<Spanned<u64>>, name, absent, max| {
            text.within(given.as_ref(), name, absent, 1..=max)
        };
        let timeout = number(
            &table.redis_timeout_ms,
            "redis_timeout_ms",
            REDIS_TIMEOUT_MS,
            REDIS_TIMEOUT_MS_MAX,
        )?;
        Ok(Self {
            enabled: table.enabled.unwrap_or(true),
            bytes_max: number(&table.bytes_max, "bytes_max", BYTES_MAX, BYTES_MAX_MAX)?,
            entry_bytes_max: number(
                &table.entry_bytes_max,
                "entry_bytes_max",
                ENTRY_BYTES_MAX,
                ENTRY_BYTES_MAX_MAX,
            )?,
            redis_timeout: Duration::from_millis(timeout),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Services, parse};

    fn read(text: &str) -> Result<Settings, String> {
        let text = ConfigText::new("edge.toml", text);
        parse(&text, &Services::new())
            .map(|said| said.duties.cache)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_not_set_has_its_default() {
        assert_eq!(read(""), Ok(Settings::default()));
        let set = read(
            "[cache]\nenabled = false\nbytes_max = 1000\nentry_bytes_max = 10\nredis_timeout_ms = 7\n",
        );
        let redis_timeout = Duration::from_millis(7);
        assert_eq!(
            set,
            Ok(Settings { enabled: false, bytes_max: 1000, entry_bytes_max: 10, redis_timeout })
        );
    }

    #[test]
    fn a_mistake_is_told_with_its_place() {
        let mistakes =
            ["bytes_max = 0", "entry_bytes_max = 16777217", "redis_timeout_ms = 5001", "size = 1"];
        let told: Vec<_> =
            mistakes.iter().map(|line| read(&format!("[cache]\n{line}\n")).unwrap_err()).collect();
        insta::assert_snapshot!(told.join("\n"), @"
        edge.toml:2: bytes_max must be from 1 to 1099511627776
        edge.toml:2: entry_bytes_max must be from 1 to 16777216
        edge.toml:2: redis_timeout_ms must be from 1 to 5000
        edge.toml: TOML parse error at line 2, column 1
          |
        2 | size = 1
          | ^^^^
        unknown field `size`, expected one of `enabled`, `bytes_max`, `entry_bytes_max`, `redis_timeout_ms`
        ");
    }
}
