//! The `[cache]` table of the config file.

use std::time::Duration;

use drawbridge_runtime::{ConfigText, ConfigTextError};
use serde::Deserialize;
use toml::Spanned;

const BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Far more than a replica should have, to catch a mistake in the unit.
const BYTES_MAX_MAX: u64 = 1 << 40;
const ENTRY_BYTES_MAX: u64 = 256 * 1024;
const ENTRY_BYTES_MAX_MAX: u64 = 16 * 1024 * 1024;
const REDIS_TIMEOUT_MS: u64 = 50;
const REDIS_TIMEOUT_MS_MAX: u64 = 5000;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CacheTable {
    enabled: Option<bool>,
    bytes_max: Option<Spanned<u64>>,
    entry_bytes_max: Option<Spanned<u64>>,
    redis_timeout_ms: Option<Spanned<u64>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CacheSettings {
    pub(super) enabled: bool,
    /// Of all entries in the memory of this process.
    pub(super) bytes_max: u64,
    /// Of one result.
    pub(super) entry_bytes_max: u64,
    /// How long a call waits for Redis.
    pub(super) redis_timeout: Duration,
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            bytes_max: BYTES_MAX,
            entry_bytes_max: ENTRY_BYTES_MAX,
            redis_timeout: Duration::from_millis(REDIS_TIMEOUT_MS),
        }
    }
}

impl CacheSettings {
    /// Reads the table, with defaults for what it does not set.
    pub(crate) fn new(text: &ConfigText, table: &CacheTable) -> Result<Self, ConfigTextError> {
        let number = |value: &Option<Spanned<u64>>, name, default, max| {
            text.check_bounds(value.as_ref(), name, default, 1..=max)
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

    #[derive(Deserialize)]
    struct CacheTables {
        #[serde(default)]
        cache: CacheTable,
    }

    fn read(text: &str) -> Result<CacheSettings, String> {
        let text = ConfigText::new("edge.toml", text);
        let tables = text.parse::<CacheTables>();
        tables
            .and_then(|tables| CacheSettings::new(&text, &tables.cache))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn an_unset_cache_setting_has_its_default() {
        assert_eq!(read(""), Ok(CacheSettings::default()));
        let set = read(
            "[cache]\nenabled = false\nbytes_max = 1000\nentry_bytes_max = 10\n\
             redis_timeout_ms = 7\n",
        );
        let redis_timeout = Duration::from_millis(7);
        assert_eq!(
            set,
            Ok(CacheSettings {
                enabled: false,
                bytes_max: 1000,
                entry_bytes_max: 10,
                redis_timeout
            })
        );
    }

    #[test]
    fn an_invalid_cache_setting_is_reported_with_its_line() {
        let invalid =
            ["bytes_max = 0", "entry_bytes_max = 16777217", "redis_timeout_ms = 5001", "size = 1"];
        let messages: Vec<_> =
            invalid.iter().map(|line| read(&format!("[cache]\n{line}\n")).unwrap_err()).collect();
        insta::assert_snapshot!(messages.join("\n"), @"
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
