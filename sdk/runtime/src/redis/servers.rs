//! Parses the URLs of Redis servers.

use std::borrow::Cow;

use ::redis::{
    Client, ConnectionInfo, ErrorKind, IntoConnectionInfo as _, RedisConnectionInfo, RedisError,
    RedisResult, TlsMode, cluster::ClusterClient, sentinel::SentinelNodeConnectionInfo,
};
use url::{Url, form_urlencoded};

/// The default port of sentinels.
const SENTINEL_PORT: u16 = 26_379;
/// How often a command is retried on a cluster whose slots have moved.
const RETRIES: u32 = 3;
const RETRY_WAIT_MS: u64 = 100;

pub(super) enum Servers {
    One(Client),
    /// The master of this name, which the sentinels monitor.
    Sentinels {
        sentinels: Vec<ConnectionInfo>,
        master: String,
        settings: SentinelNodeConnectionInfo,
    },
    Cluster(Box<ClusterClient>),
}

impl Servers {
    /// Parses a URL. Errors do not contain the URL, because it may contain a password.
    pub(super) fn parse(url: &str) -> RedisResult<Self> {
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err(invalid_url("the scheme is missing: write `redis://` and the host"));
        };
        match scheme {
            "redis-cluster" | "rediss-cluster" => MultiServerUrl::parse(scheme, rest)?.cluster(),
            "redis-sentinel" | "rediss-sentinel" => {
                MultiServerUrl::parse(scheme, rest)?.sentinels()
            }
            _ => Client::open(url).map(Self::One),
        }
    }
}

/// The parts of a URL of several servers.
struct MultiServerUrl<'a> {
    tls: bool,
    /// Empty, or up to and including the `@`.
    user: &'a str,
    hosts: Vec<&'a str>,
    path: Cow<'a, str>,
    query: &'a str,
}

impl<'a> MultiServerUrl<'a> {
    fn parse(scheme: &str, rest: &'a str) -> RedisResult<Self> {
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = authority.split_at(authority.rfind('@').map_or(0, |at| at + 1));
        let path = percent_encoding::percent_decode_str(path).decode_utf8();
        Ok(Self {
            tls: scheme.starts_with("rediss"),
            user,
            hosts: hosts.split(',').collect(),
            path: path.map_err(|_| invalid_url("its path is not UTF-8"))?,
            query,
        })
    }

    /// The URL of one host.
    fn url(&self, user: &str, host: &str) -> RedisResult<Url> {
        let scheme = if self.tls { "rediss" } else { "redis" };
        let url: Url =
            format!("{scheme}://{user}{host}").parse().map_err(|_| invalid_url("invalid host"))?;
        if url.host().is_none() || !url.path().is_empty() {
            return Err(invalid_url("invalid host"));
        }
        Ok(url)
    }

    fn cluster(&self) -> RedisResult<Servers> {
        if !self.path.is_empty() || !self.query.is_empty() {
            return Err(invalid_url("a cluster URL must not have a database or settings"));
        }
        let nodes: Vec<_> =
            self.hosts.iter().map(|host| self.url(self.user, host)).collect::<RedisResult<_>>()?;
        let client = ClusterClient::builder(nodes)
            .retries(RETRIES)
            .min_retry_wait(RETRY_WAIT_MS / 10)
            .max_retry_wait(RETRY_WAIT_MS)
            .build()?;
        Ok(Servers::Cluster(Box::new(client)))
    }

    fn sentinels(&self) -> RedisResult<Servers> {
        if self.path.is_empty() || self.path.contains('/') {
            return Err(invalid_url(
                "the name of the master is missing: redis-sentinel://host:port,…/name",
            ));
        }
        let of_sentinels = self.sentinel_user()?;
        let mut sentinels = Vec::with_capacity(self.hosts.len());
        for host in &self.hosts {
            let mut url = self.url("", host)?;
            if url.port().is_none() {
                url.set_port(Some(SENTINEL_PORT)).map_err(|()| invalid_url("invalid host"))?;
            }
            sentinels.push(url.into_connection_info()?.set_redis_settings(of_sentinels.clone()));
        }
        let of_master = self.url(self.user, "master")?.into_connection_info()?;
        let mut settings = SentinelNodeConnectionInfo::default()
            .set_redis_connection_info(of_master.redis_settings().clone());
        if self.tls {
            settings = settings.set_tls_mode(TlsMode::Secure);
        }
        Ok(Servers::Sentinels { sentinels, master: self.path.clone().into_owned(), settings })
    }

    /// The credentials of the sentinels themselves, which may differ from the master's.
    fn sentinel_user(&self) -> RedisResult<RedisConnectionInfo> {
        let mut settings = RedisConnectionInfo::default();
        for (name, value) in form_urlencoded::parse(self.query.as_bytes()) {
            settings = match name.as_ref() {
                "sentinel_username" => settings.set_username(value),
                "sentinel_password" => settings.set_password(value),
                _ => {
                    return Err(invalid_url(
                        "unknown setting (expected sentinel_username or sentinel_password)",
                    ));
                }
            };
        }
        Ok(settings)
    }
}

fn invalid_url(problem: &'static str) -> RedisError {
    RedisError::from((ErrorKind::InvalidClientConfig, "a URL of Redis", problem.to_owned()))
}

#[cfg(test)]
mod tests {
    use ::redis::ConnectionAddr;

    use super::*;

    #[test]
    fn sentinels_do_not_get_the_password_of_their_master() {
        let url =
            "redis-sentinel://user:p%40ss@one,[::1]:7000/the%20master?sentinel_password=other";
        let Servers::Sentinels { sentinels, master, settings } = Servers::parse(url).unwrap()
        else {
            panic!("not sentinels")
        };
        assert_eq!(master, "the master");
        let hosts: Vec<_> = sentinels.iter().map(ConnectionInfo::addr).collect();
        let tcp = |host: &str, port| ConnectionAddr::Tcp(host.to_owned(), port);
        assert_eq!(hosts, [&tcp("one", SENTINEL_PORT), &tcp("::1", 7000)]);
        for sentinel in &sentinels {
            let settings = sentinel.redis_settings();
            assert_eq!((settings.username(), settings.password()), (None, Some("other")));
        }
        let settings = format!("{settings:?}");
        assert!(settings.contains("user") && !settings.contains("other"), "{settings}");
    }

    #[test]
    fn the_scheme_selects_the_kind_of_servers() {
        let kind = |url: &str| match Servers::parse(url).unwrap() {
            Servers::One(_) => "one",
            Servers::Sentinels { .. } => "sentinels",
            Servers::Cluster(_) => "cluster",
        };
        for tls in ["redis", "rediss"] {
            assert_eq!(kind(&format!("{tls}://:password@localhost:6379/1")), "one");
            assert_eq!(kind(&format!("{tls}-sentinel://one:26379,two/main")), "sentinels");
            assert_eq!(
                kind(&format!("{tls}-cluster://:password@one:6379,two,[::1]:6379")),
                "cluster"
            );
        }
        assert_eq!(kind("redis+unix:///run/redis.sock"), "one");
    }

    #[test]
    fn the_error_of_an_invalid_url_does_not_contain_its_password() {
        for url in [
            "localhost:6379",
            "http://:secret@localhost",
            "redis-cluster://",
            "redis-cluster://:secret@",
            "redis-cluster://:secret@one,,two",
            "redis-cluster://:secret@one/1",
            "redis-sentinel://:secret@one",
            "redis-sentinel://:secret@one/",
            "redis-sentinel://:secret@one/main?sentinel_pasword=secret",
            "redis-sentinel://:secret@one:port/main",
        ] {
            let Err(error) = Servers::parse(url) else { panic!("{url} is accepted") };
            assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");
        }
    }
}
