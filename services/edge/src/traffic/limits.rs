//! Rate limits: how often who may do what, over all replicas.
//!
//! A request takes from all the limits that count it or, where one of them refuses, from none. The buckets lie
//! in Redis; without it each replica has buckets of its own.

use std::sync::Arc;

use arc_swap::ArcSwap;
use redis::RedisError;
use secrecy::SecretString;

use self::{
    gcra::Answer,
    limit::{Ask, WithoutRedis},
    local::Local,
    shared::Shared,
};
use crate::refusal::Refusal;

pub(crate) use self::{
    address::{Anybody, address, pass_anybody},
    config::{LimitEntry, Rules, Settings},
    limit::{CalledTool, Counted, network},
    standing::{RATE_LIMIT, RATE_LIMIT_POLICY, Standing},
};

mod address;
mod config;
mod gcra;
mod limit;
mod local;
mod shared;
mod standing;

#[derive(Debug)]
pub(crate) struct Limits {
    rules: ArcSwap<Rules>,
    local: Local,
    shared: Option<Arc<Shared>>,
}

impl Limits {
    /// No limits yet. Without Redis they will be this replica's alone.
    pub(crate) fn new(redis_url: Option<&SecretString>) -> Result<Self, RedisError> {
        Ok(Self {
            rules: ArcSwap::default(),
            local: Local::new(),
            shared: redis_url.map(Shared::new).transpose()?.map(Arc::new),
        })
    }

    /// These limits hold from now on. What was taken under the same name stays taken.
    pub(crate) async fn set(&self, rules: Rules) {
        if !rules.is_empty()
            && let Some(shared) = &self.shared
        {
            shared.begin().await;
        }
        self.local.keep(|name| rules.has(name));
        self.rules.store(Arc::new(rules));
    }

    /// Whether there are any.
    pub(crate) fn is_empty(&self) -> bool {
        self.rules.load().is_empty()
    }

    /// Takes what a request costs. Says how the caller stands, where a limit is the caller's own.
    pub(crate) async fn take(&self, counted: &Counted<'_>) -> Result<Option<Standing>, Refusal> {
        let (asks, within) = {
            let rules = self.rules.load();
            (rules.asks(counted), rules.redis_timeout)
        };
        if asks.is_empty() {
            return Ok(None);
        }
        let answers = match &self.shared {
            None => self.local.take(&asks),
            Some(shared) => match shared.take(&asks, within).await {
                Some(answers) => answers,
                None => self.without_redis(&asks)?,
            },
        };
        judge(&asks, &answers)
    }

    fn without_redis(&self, asks: &[Ask]) -> Result<Vec<Answer>, Refusal> {
        match asks.iter().find(|ask| ask.limit.without_redis == WithoutRedis::Closed) {
            Some(ask) => Err(Refusal::LimitClosed { limit: ask.limit.name.clone() }),
            None => Ok(self.local.take(asks)),
        }
    }
}

fn judge(asks: &[Ask], answers: &[Answer]) -> Result<Option<Standing>, Refusal> {
    let both = || asks.iter().zip(answers);
    let refusing = both().filter(|(_, answer)| answer.wait_micros > 0);
    let mut longest: Option<(&Ask, &Answer)> = None;
    for (ask, answer) in refusing {
        metrics::counter!("edge_rate_limited_total", "limit" => ask.limit.name.clone())
            .increment(1);
        if longest.is_none_or(|(_, longest)| longest.wait_micros < answer.wait_micros) {
            longest = Some((ask, answer));
        }
    }
    if let Some((ask, answer)) = longest {
        return Err(Refusal::Limited(Standing::refused(ask, answer)));
    }
    let own = both().filter(|(ask, _)| ask.limit.is_own());
    Ok(own
        .map(|(ask, answer)| Standing::admitted(ask, answer))
        .min_by_key(|standing| standing.remaining))
}
