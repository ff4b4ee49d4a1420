//! The `[cache]` table of the config file.

use std::time::Duration;

use drawbridge_config::edge::CacheTable;

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

impl From<&CacheTable> for CacheSettings {
    fn from(table: &CacheTable) -> Self {
        Self {
            enabled: table.enabled,
            bytes_max: table.bytes_max.get(),
            entry_bytes_max: table.entry_bytes_max.get(),
            redis_timeout: Duration::from_millis(table.redis_timeout_ms.get()),
        }
    }
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self::from(&CacheTable::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::testdata;

    fn read(text: &str) -> Result<CacheSettings, String> {
        testdata::read(text, |file, _| CacheSettings::from(&file.cache))
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
        edge.toml:2:13: must be from 1 to 1099511627776
          |
        2 | bytes_max = 0
          |             ^
        edge.toml:2:19: must be from 1 to 16777216
          |
        2 | entry_bytes_max = 16777217
          |                   ^^^^^^^^
        edge.toml:2:20: must be from 1 to 5000
          |
        2 | redis_timeout_ms = 5001
          |                    ^^^^
        edge.toml:2:1: unknown field `size`, expected one of `enabled`, `bytes_max`, `entry_bytes_max`, `redis_timeout_ms`
          |
        2 | size = 1
          | ^^^^
        ");
    }
}
