//! Redis: whether it answers, and whether it retains what replicas store in it.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use drawbridge_runtime::{Redis, error_chain};
use redis::RedisError;
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::check::{Check, Finding};

/// The oldest version with what the rate limits' scripts need.
const MAJOR_MIN: u32 = 6;

/// A Redis.
#[derive(Clone, Debug)]
pub(super) struct RedisTarget {
    /// The service that uses it.
    pub(super) used_by: String,
    pub(super) url: SecretString,
    /// Whether it ends with the mesh that uses it.
    pub(super) is_temporary: bool,
}

impl RedisTarget {
    pub(super) fn check(self, limit: Duration) -> Check {
        let Self { used_by, url, is_temporary } = self;
        let subject = match shown(&url) {
            Some(shown) => format!("{shown} of {used_by}"),
            None => format!("Redis of {used_by}"),
        };
        Check::new("redis", subject, async move { inspect(&url, limit, is_temporary).await })
    }
}

/// The URL without user, password and parameters.
fn shown(url: &SecretString) -> Option<String> {
    let mut url = Url::parse(url.expose_secret()).ok()?;
    url.set_username("").and_then(|()| url.set_password(None)).ok()?;
    url.set_query(None);
    Some(url.to_string())
}

async fn inspect(url: &SecretString, limit: Duration, is_temporary: bool) -> Vec<Finding> {
    let redis = match Redis::open(url, limit) {
        Ok(redis) => redis,
        Err(error) => {
            return vec![Finding::failed(
                format!("its URL is invalid: {}", text(&error)),
                "write redis://, rediss://, redis-sentinel:// or redis-cluster:// \
                 (docs/how-to/redis.md)",
            )];
        }
    };
    let began = Instant::now();
    while let Err(error) = redis.ping().await {
        // To connect has a limit of its own, which is made for calls.
        if !error.is_timeout() || began.elapsed() > limit / 2 {
            return vec![judge_error(&error)];
        }
    }
    let mut findings = Vec::new();
    match redis::cmd("INFO").query_async::<String>(&mut redis.clone()).await {
        Ok(info) => judge(&parse(&info), &mut findings),
        // Nodes of a cluster answer one by one, and a user may lack the permission.
        Err(_) => findings.push(Finding::ok("it answers; INFO is not available")),
    }
    if !is_temporary && persists(&redis).await == Some(false) {
        findings.push(Finding::warning(
            "it persists nothing: after a restart revoked tokens are valid again",
            "set `appendonly yes` in redis.conf",
        ));
    }
    findings
}

/// Whether it writes to its disk. `None`: the user may not ask for it.
async fn persists(redis: &Redis) -> Option<bool> {
    let is_saving = !setting(redis, "save").await?.is_empty();
    Some(is_saving || setting(redis, "appendonly").await? == "yes")
}

async fn setting(redis: &Redis, name: &str) -> Option<String> {
    let mut get = redis::cmd("CONFIG");
    get.arg("GET").arg(name);
    get.query_async::<Vec<String>>(&mut redis.clone()).await.ok()?.into_iter().nth(1)
}

fn judge_error(error: &RedisError) -> Finding {
    let is_authentication = error.kind() == redis::ErrorKind::AuthenticationFailed
        || ["NOAUTH", "WRONGPASS"].iter().any(|code| error.code() == Some(*code));
    if is_authentication {
        Finding::failed(
            "it refuses user or password",
            "correct user and password in the URL: redis://user:password@host",
        )
    } else {
        Finding::failed(
            format!("it cannot be reached: {}", text(error)),
            "see whether it runs, and that the firewall and its `bind` let the services reach it",
        )
    }
}

/// The error without the kind in Rust's debug format at its end.
fn text(error: &RedisError) -> String {
    error_chain(error).replace(&format!(" - {:?}", error.kind()), "")
}

fn parse(info: &str) -> HashMap<&str, &str> {
    info.lines().filter_map(|line| line.trim_end().split_once(':')).collect()
}

fn judge(info: &HashMap<&str, &str>, findings: &mut Vec<Finding>) {
    let get = |key: &str| info.get(key).copied().unwrap_or_default();
    let version = get("redis_version");
    let major: Option<u32> = version.split('.').next().and_then(|major| major.parse().ok());
    findings.push(match major {
        Some(major) if major < MAJOR_MIN => Finding::failed(
            format!("its version is {version}"),
            format!("upgrade it to {MAJOR_MIN} or newer"),
        ),
        _ => Finding::ok(format!("version {version}, {}", get("role"))),
    });
    let policy = get("maxmemory_policy");
    if !matches!(policy, "" | "noeviction") && get("maxmemory") != "0" {
        findings.push(Finding::warning(
            format!("it evicts by {policy} when its memory is full: sessions and revocations too"),
            "set `maxmemory-policy noeviction`, and `maxmemory` above what is in use",
        ));
    }
    if get("rdb_last_bgsave_status") == "err" || get("aof_last_write_status") == "err" {
        findings.push(Finding::failed(
            "its last write to disk failed",
            "free space on its disk, and see its log",
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::{super::check::Level, *};

    fn levels(info: &str) -> Vec<Level> {
        let mut findings = Vec::new();
        judge(&parse(info), &mut findings);
        findings.iter().map(|finding| finding.level).collect()
    }

    #[test]
    fn an_old_redis_one_that_evicts_and_one_with_a_full_disk_are_found() {
        use Level::{Failed, Ok, Warning};
        let good = "# Server\r\nredis_version:7.2.4\r\nrole:master\r\nmaxmemory:0\r\n\
                    maxmemory_policy:noeviction\r\nrdb_last_bgsave_status:ok\r\n";
        assert_eq!(levels(good), [Ok]);
        assert_eq!(levels(&good.replace("7.2.4", "5.0.14")), [Failed]);
        let evicts = good.replace("noeviction", "allkeys-lru");
        assert_eq!(levels(&evicts), [Ok], "it has no limit");
        assert_eq!(levels(&evicts.replace("maxmemory:0", "maxmemory:1000")), [Ok, Warning]);
        assert_eq!(levels(&good.replace("status:ok", "status:err")), [Ok, Failed]);
    }

    #[test]
    fn no_output_shows_the_password_of_redis() {
        let shown = shown(&"redis://edge:hunter2@redis.internal:6379/0?x=hunter2".into());
        assert_eq!(shown.as_deref(), Some("redis://redis.internal:6379/0"));
    }
}
