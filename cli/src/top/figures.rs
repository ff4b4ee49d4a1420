//! The figures of scrapes: per tool, and per service.

use std::{
    collections::{BTreeMap, VecDeque},
    time::SystemTime,
};

use drawbridge_runtime::Sample;
use serde::Serialize;

use super::{Round, Scraped};
use crate::{admin::AdminTarget, scrape::Scrape};

/// How long operations of MCP took: the histogram of the edge.
const OPERATIONS_BUCKETS: &str = "mcp_server_operation_duration_seconds_bucket";
const OPERATIONS_COUNT: &str = "mcp_server_operation_duration_seconds_count";
const RPCS_COUNT: &str = "rpc_server_call_duration_seconds_count";
/// The outcome of what succeeded.
const OK: &str = "ok";

/// Over which time latencies and outcomes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Since {
    /// The start of each service.
    Start,
    /// The first round.
    FirstRound,
}

/// What all services do.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Figures {
    pub(super) title: String,
    pub(super) calls_per_second: f64,
    /// Of all tools and methods.
    pub(super) latency: Latency,
    pub(super) sessions: f64,
    pub(super) streams: f64,
    pub(super) queued: f64,
    pub(super) tools: Vec<ToolFigures>,
    pub(super) services: Vec<ServiceFigures>,
}

/// Latencies, in seconds. Absent: nothing was called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Latency {
    pub(super) p50: Option<f64>,
    pub(super) p95: Option<f64>,
}

/// A tool, or a method that calls none.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ToolFigures {
    pub(super) name: String,
    pub(super) calls_per_second: f64,
    pub(super) calls: f64,
    pub(super) latency: Latency,
    /// Outcomes with their counts: `ok`, or why it failed.
    pub(super) outcomes: BTreeMap<String, f64>,
}

impl ToolFigures {
    /// How many calls failed, for whatever reason.
    pub(super) fn failed(&self) -> f64 {
        let failed = self.outcomes.iter().filter(|(outcome, _)| *outcome != OK);
        // The sum of nothing is -0.
        failed.map(|(_, count)| count).sum::<f64>() + 0.0
    }
}

/// A replica of a service.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServiceFigures {
    pub(super) name: String,
    /// `ready`, or what is wrong.
    pub(super) health: String,
    pub(super) is_healthy: bool,
    pub(super) version: String,
    pub(super) calls_per_second: f64,
    /// Calls that run, of an edge or, as its edges see it, of a tool service.
    pub(super) running: f64,
    pub(super) queued: f64,
    pub(super) sessions: Option<f64>,
    pub(super) streams: Option<f64>,
    pub(super) leases: Option<f64>,
    pub(super) memory_bytes: Option<f64>,
    pub(super) uptime_seconds: Option<f64>,
}

impl Figures {
    /// The figures of the last round; rates are those since the first.
    pub(super) fn new(
        title: &str,
        targets: &[AdminTarget],
        rounds: &VecDeque<Round>,
        since: Since,
    ) -> Self {
        let (Some(first), Some(last)) = (rounds.front(), rounds.back()) else {
            return Self { title: title.to_owned(), ..Self::default() };
        };
        let seconds = (last.at - first.at).as_secs_f64();
        let tools = tools(first, last, seconds, since);
        let sum = |name: &str| last.good().filter_map(|scrape| scrape.sum(name)).sum();
        let mut all = Buckets::default();
        add_all(&mut all, first, last, since, |_| true);
        let services = services(targets, first, last, seconds);
        Self {
            title: title.to_owned(),
            calls_per_second: tools.iter().map(|tool| tool.calls_per_second).sum(),
            latency: all.latency(),
            sessions: sum("mcp_server_sessions"),
            streams: sum("mcp_server_streams"),
            queued: sum("edge_calls_waiting") + sum("edge_requests_waiting"),
            tools,
            services,
        }
    }
}

impl Round {
    fn good(&self) -> impl Iterator<Item = &Scrape> {
        self.scraped.iter().filter_map(|scraped| scraped.as_ref().ok())
    }

    /// Each scrape, with the same service's scrape in an earlier round.
    fn pairs<'a>(&'a self, earlier: &'a Self) -> impl Iterator<Item = (&'a Scrape, &'a Scraped)> {
        let pairs = self.scraped.iter().zip(&earlier.scraped);
        pairs.filter_map(|(now, before)| Some((now.as_ref().ok()?, before)))
    }
}

/// The name of what a sample is about: the tool, or else the method.
fn name(sample: &Sample) -> &str {
    match sample.label("gen_ai_tool_name") {
        "" => sample.label("mcp_method_name"),
        tool => tool,
    }
}

fn tools(first: &Round, last: &Round, seconds: f64, since: Since) -> Vec<ToolFigures> {
    let mut tools: BTreeMap<String, ToolFigures> = BTreeMap::new();
    for (now, before) in last.pairs(first) {
        for sample in now.samples(OPERATIONS_COUNT) {
            let tool = tools.entry(name(sample).to_owned()).or_default();
            let grown = growth(sample, before);
            tool.calls_per_second += rate(grown, seconds);
            let count = if since == Since::Start { sample.value } else { grown };
            tool.calls += count;
            let outcome = Some(sample.label("error_type")).filter(|outcome| !outcome.is_empty());
            *tool.outcomes.entry(outcome.unwrap_or(OK).to_owned()).or_default() += count;
        }
    }
    let with_latency = |(name, tool): (String, ToolFigures)| {
        let mut buckets = Buckets::default();
        add_all(&mut buckets, first, last, since, |sample| self::name(sample) == name);
        let outcomes = tool.outcomes.into_iter().filter(|(_, count)| *count > 0.0).collect();
        ToolFigures { latency: buckets.latency(), name, outcomes, ..tool }
    };
    tools.into_iter().map(with_latency).collect()
}

/// How much a counter has grown. A service that has restarted began at zero.
fn growth(sample: &Sample, before: &Scraped) -> f64 {
    let before = before.as_ref().ok().and_then(|before| before.same(sample));
    match before {
        Some(before) if before <= sample.value => sample.value - before,
        Some(_) => sample.value,
        // A series appears with its first event; without an earlier scrape, nothing is known.
        None => sample.value,
    }
}

fn rate(grown: f64, seconds: f64) -> f64 {
    if seconds > 0.0 { grown / seconds } else { 0.0 }
}

/// Cumulative buckets of a histogram: counts by upper bound.
#[derive(Debug, Default)]
struct Buckets(Vec<(f64, f64)>);

fn add_all(
    buckets: &mut Buckets,
    first: &Round,
    last: &Round,
    since: Since,
    is_wanted: impl Fn(&Sample) -> bool,
) {
    for (now, before) in last.pairs(first) {
        for sample in now.samples(OPERATIONS_BUCKETS).filter(|sample| is_wanted(sample)) {
            let Ok(bound) = sample.label("le").parse() else { continue };
            let count = if since == Since::Start { sample.value } else { growth(sample, before) };
            buckets.add(bound, count);
        }
    }
}

impl Buckets {
    fn add(&mut self, bound: f64, count: f64) {
        match self.0.binary_search_by(|(other, _)| other.total_cmp(&bound)) {
            Ok(at) => self.0[at].1 += count,
            Err(at) => self.0.insert(at, (bound, count)),
        }
    }

    fn latency(&self) -> Latency {
        Latency { p50: self.quantile(0.5), p95: self.quantile(0.95) }
    }

    /// As Prometheus's `histogram_quantile`: linear within a bucket, and the highest finite bound
    /// for what is above it.
    fn quantile(&self, quantile: f64) -> Option<f64> {
        let total = self.0.last()?.1;
        if total <= 0.0 {
            return None;
        }
        let rank = quantile * total;
        let at = self.0.iter().position(|(_, count)| *count >= rank)?;
        let (bound, count) = self.0[at];
        let (lower, before) = if at == 0 { (0.0, 0.0) } else { self.0[at - 1] };
        if bound.is_infinite() {
            return Some(lower);
        }
        Some(lower + (bound - lower) * (rank - before) / (count - before).max(1.0))
    }
}

fn services(
    targets: &[AdminTarget],
    first: &Round,
    last: &Round,
    seconds: f64,
) -> Vec<ServiceFigures> {
    let scraped = targets.iter().zip(last.scraped.iter().zip(&first.scraped));
    let mut services: Vec<_> = scraped
        .map(|(target, (now, before))| match now {
            Ok(now) => service(&target.name, now, before, seconds),
            Err(error) => ServiceFigures {
                name: target.name.clone(),
                health: format!("no answer: {error}"),
                ..ServiceFigures::default()
            },
        })
        .collect();
    for row in &mut services {
        let (running, queued) = (
            seen_by_edges(last, "edge_calls_running", &row.name),
            seen_by_edges(last, "edge_calls_waiting", &row.name),
        );
        row.running += running;
        row.queued += queued;
    }
    services
}

/// The sum of a gauge that edges have for each tool service.
fn seen_by_edges(round: &Round, gauge: &str, service: &str) -> f64 {
    let samples = round.good().flat_map(|scrape| scrape.samples(gauge));
    samples.filter(|it| it.label("service") == service).map(|it| it.value).sum()
}

fn service(name: &str, now: &Scrape, before: &Scraped, seconds: f64) -> ServiceFigures {
    let down: Vec<_> = now
        .samples("drawbridge_dependency_up")
        .filter(|sample| sample.value == 0.0)
        .map(|sample| sample.label("dependency").to_owned())
        .collect();
    let is_ready = now.sum("drawbridge_ready").is_none_or(|ready| ready > 0.0);
    let health = match (is_ready, down.is_empty()) {
        (true, true) => "ready".to_owned(),
        (true, false) => format!("degraded: {}", down.join(", ")),
        (false, true) => "not ready".to_owned(),
        (false, false) => format!("not ready: {}", down.join(", ")),
    };
    let calls = [OPERATIONS_COUNT, RPCS_COUNT].into_iter().find(|name| now.sum(name).is_some());
    let grown: f64 = calls
        .into_iter()
        .flat_map(|calls| now.samples(calls))
        .map(|sample| growth(sample, before))
        .sum();
    let started = now.sum("process_start_time_seconds");
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    ServiceFigures {
        name: name.to_owned(),
        is_healthy: is_ready && down.is_empty(),
        health,
        version: now
            .samples("drawbridge_build_info")
            .next()
            .map(|sample| sample.label("version").to_owned())
            .unwrap_or_default(),
        calls_per_second: rate(grown, seconds),
        running: now.sum("edge_requests_running").unwrap_or_default(),
        queued: now.sum("edge_requests_waiting").unwrap_or_default(),
        sessions: now.sum("mcp_server_sessions").or_else(|| now.sum("credentials_sessions")),
        streams: now.sum("mcp_server_streams"),
        leases: now.sum("credentials_leases"),
        memory_bytes: now.sum("process_resident_memory_bytes"),
        uptime_seconds: started.map(|started| (clock.as_secs_f64() - started).max(0.0)),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    /// Two rounds, ten seconds apart, of an edge, a tool service, and a service that is down.
    pub(in crate::top) fn figures(since: Since) -> Figures {
        let target = |name: &str| AdminTarget {
            name: name.to_owned(),
            url: "http://127.0.0.1:1".parse().unwrap(),
        };
        let targets = ["edge", "code", "auth"].map(target);
        let at = Instant::now();
        let (edge, later) = (include_str!("edge.prom"), include_str!("edge-later.prom"));
        let code = "drawbridge_ready 1\n\
                    rpc_server_call_duration_seconds_count{rpc_method=\"a\"} 5\n\
                    drawbridge_dependency_up{dependency=\"auth_keys\",effect=\"required\"} 1\n\
                    drawbridge_dependency_up{dependency=\"vault\",effect=\"degrading\"} 0\n\
                    credentials_leases 2\ncredentials_sessions 1\n";
        let round = |at, edge: &str| Round {
            at,
            scraped: vec![
                Ok(Scrape::parse(edge)),
                Ok(Scrape::parse(code)),
                Err("Connection refused".to_owned()),
            ],
        };
        let rounds = [round(at, edge), round(at + Duration::from_secs(10), later)];
        Figures::new("mesh 7180", &targets, &VecDeque::from(rounds), since)
    }

    #[test]
    fn a_tool_has_its_rate_latencies_and_outcomes() {
        let figures = figures(Since::FirstRound);
        let search = figures.tools.iter().find(|tool| tool.name == "code_search").unwrap();
        assert_eq!((search.calls, search.calls_per_second), (20.0, 2.0));
        let outcomes: Vec<_> =
            search.outcomes.iter().map(|(name, n)| (name.as_str(), *n)).collect();
        assert_eq!(outcomes, [("ok", 18.0), ("tool_error", 2.0)]);
        assert_eq!(search.failed(), 2.0);
        assert_eq!(search.latency.p50.map(|p50| (p50 * 1000.0).round()), Some(10.0));
        assert_eq!(search.latency.p95.map(|p95| (p95 * 1000.0).round()), Some(47.0));
        let since_start = super::tests::figures(Since::Start);
        let search = since_start.tools.iter().find(|tool| tool.name == "code_search").unwrap();
        assert_eq!((search.calls, search.calls_per_second), (30.0, 2.0));
    }

    #[test]
    fn a_service_has_its_health_and_what_edges_see_of_it() {
        let services = figures(Since::FirstRound).services;
        let health: Vec<_> =
            services.iter().map(|row| (row.health.as_str(), row.is_healthy)).collect();
        assert_eq!(
            health,
            [("ready", true), ("degraded: vault", false), ("no answer: Connection refused", false)]
        );
        assert_eq!((services[1].running, services[1].queued), (3.0, 1.0));
        assert_eq!((services[1].leases, services[1].sessions), (Some(2.0), Some(1.0)));
        assert_eq!(services[0].sessions, Some(4.0));
    }

    #[test]
    fn a_restarted_service_begins_at_zero() {
        let before = Ok(Scrape::parse("a 100\n"));
        let now = Scrape::parse("a 3\n");
        assert_eq!(growth(now.samples("a").next().unwrap(), &before), 3.0);
    }

    #[test]
    fn quantiles_are_those_of_prometheus() {
        let mut buckets = Buckets::default();
        assert_eq!(buckets.quantile(0.5), None);
        for (bound, count) in [(f64::INFINITY, 100.0), (0.1, 50.0), (0.2, 90.0)] {
            buckets.add(bound, count);
        }
        assert_eq!(buckets.quantile(0.5), Some(0.1));
        assert_eq!(buckets.quantile(0.7).map(|it| (it * 1000.0).round()), Some(150.0));
        assert_eq!(buckets.quantile(0.95), Some(0.2), "the highest finite bound");
    }
}
