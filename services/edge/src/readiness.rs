//! What the edge needs to be ready (docs/reference/readiness.md). Nothing here depends on the
//! readiness of another service: only on whether it can be reached.

use std::{future::ready, sync::Arc, time::Duration};

use drawbridge_runtime::{Effect, Redis, ServiceBuilder};
use redis::RedisError;
use secrecy::SecretString;
use tokio::sync::watch;

use crate::{authorizer::Authorizer, catalog::Catalogs, traffic::limits::RateLimiter};

const REDIS_TIMEOUT: Duration = Duration::from_millis(500);

/// Watches what the edge needs as a whole. Discovery watches the tool services.
///
/// # Errors
/// When the URL of Redis is invalid.
pub(crate) fn watch(
    builder: &ServiceBuilder,
    authorizer: &Authorizer,
    catalogs: &Arc<Catalogs>,
    limits: &Arc<RateLimiter>,
    redis_url: Option<&SecretString>,
) -> Result<(), RedisError> {
    let (readiness, stopping) = (builder.readiness(), builder.stopping());
    // Nothing is allowed without it.
    let auth = readiness.condition("auth", Effect::Required);
    let replicas = authorizer.replicas();
    let check = move || {
        let is_live = replicas.borrow().live > 0;
        ready(is_live.then_some(()).ok_or_else(|| "no replica can be asked".to_owned()))
    };
    builder.spawn(auth.monitor(check, stopping.clone()));

    let catalog = readiness.condition("catalog", Effect::Required);
    let catalogs = Arc::clone(catalogs);
    let check = move || {
        let is_loaded = catalogs.load().is_loaded();
        let reason = || "no contract of a tool service has been read yet".to_owned();
        ready(is_loaded.then_some(()).ok_or_else(reason))
    };
    builder.spawn(catalog.monitor(check, stopping.clone()));

    match redis_url {
        Some(url) => watch_redis(builder, limits, url),
        None => Ok(()),
    }
}

/// Without Redis the edge serves what it can: its own sessions and caches, and limits per replica.
/// It cannot serve when a limit of every request is `closed` without Redis.
fn watch_redis(
    builder: &ServiceBuilder,
    limits: &Arc<RateLimiter>,
    url: &SecretString,
) -> Result<(), RedisError> {
    let (readiness, stopping) = (builder.readiness(), builder.stopping());
    let redis = Redis::open(url, REDIS_TIMEOUT)?;
    let (sender, reachable) = watch::channel(Ok(()));
    let sender = Arc::new(sender);
    let check = move || {
        let (redis, sender) = (redis.clone(), Arc::clone(&sender));
        async move {
            // The error may name hosts; the parts that use Redis log it.
            let pinged = redis.ping().await.map_err(|_| "cannot be reached".to_owned());
            drop(sender.send_replace(pinged.clone()));
            pinged
        }
    };
    let condition = readiness.condition("redis", Effect::Degrading);
    builder.spawn(condition.monitor(check, stopping.clone()));

    let limits = Arc::clone(limits);
    let check = move || {
        let closed = reachable.borrow().is_err().then(|| limits.closed_without_redis()).flatten();
        let reason = |limit| Err(format!("the limit {limit} is closed while Redis is away"));
        ready(closed.map_or(Ok(()), reason))
    };
    let condition = readiness.condition("rate_limits", Effect::Required);
    builder.spawn(condition.monitor(check, stopping));
    Ok(())
}
