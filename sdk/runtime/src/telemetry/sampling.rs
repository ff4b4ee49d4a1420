//! Which traces are exported: those that the sampler chooses, and of the others the part in this
//! process where something failed.

use std::{
    collections::{HashMap, hash_map::RandomState},
    hash::BuildHasher as _,
    sync::{Mutex, MutexGuard, PoisonError},
};

use opentelemetry::{
    Context, KeyValue,
    trace::{Link, SpanContext, SpanKind, Status, TraceFlags, TraceId},
};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, SamplingResult, ShouldSample, SpanData};

/// How many traces that are not sampled may be pending in a shard, and how many spans each may have.
const PENDING_TRACES_MAX: usize = 256;
const PENDING_SPANS_MAX: usize = 256;
const SHARDS: usize = 16;

/// The sampler of `OTEL_TRACES_SAMPLER`, as OpenTelemetry's specification names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum TracesSampler {
    /// Every trace.
    #[value(name = "always_on")]
    AlwaysOn,
    /// No trace.
    #[value(name = "always_off")]
    AlwaysOff,
    /// A ratio of the traces, by their ids.
    #[value(name = "traceidratio")]
    TraceIdRatio,
    /// What the caller decided; traces that begin here, all.
    #[value(name = "parentbased_always_on")]
    ParentBasedAlwaysOn,
    /// What the caller decided; traces that begin here, none.
    #[value(name = "parentbased_always_off")]
    ParentBasedAlwaysOff,
    /// What the caller decided; of the traces that begin here, a ratio by their ids.
    #[value(name = "parentbased_traceidratio")]
    ParentBasedTraceIdRatio,
}

/// A sampler that records what it does not sample, so that it can still be exported if it fails.
#[derive(Clone, Debug)]
pub(super) struct RecordingSampler {
    sampler: Sampler,
    is_recording: bool,
}

impl RecordingSampler {
    pub(super) fn new(sampler: TracesSampler, ratio: f64) -> Self {
        let parent_based = |sampler| Sampler::ParentBased(Box::new(sampler));
        let sampler_of_sdk = match sampler {
            TracesSampler::AlwaysOn => Sampler::AlwaysOn,
            TracesSampler::AlwaysOff => Sampler::AlwaysOff,
            TracesSampler::TraceIdRatio => Sampler::TraceIdRatioBased(ratio),
            TracesSampler::ParentBasedAlwaysOn => parent_based(Sampler::AlwaysOn),
            TracesSampler::ParentBasedAlwaysOff => parent_based(Sampler::AlwaysOff),
            TracesSampler::ParentBasedTraceIdRatio => {
                parent_based(Sampler::TraceIdRatioBased(ratio))
            }
        };
        // Who turns tracing off wants no spans, not even of failures.
        let is_recording =
            !matches!(sampler, TracesSampler::AlwaysOff | TracesSampler::ParentBasedAlwaysOff);
        Self { sampler: sampler_of_sdk, is_recording }
    }
}

impl ShouldSample for RecordingSampler {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let mut result = self.sampler.should_sample(parent, trace, name, kind, attributes, links);
        if self.is_recording && result.decision == SamplingDecision::Drop {
            result.decision = SamplingDecision::RecordOnly;
        }
        result
    }
}

/// The ended spans of traces that are not sampled, until all spans of the trace in this process have
/// ended: then it is known whether one failed.
#[derive(Debug, Default)]
pub(super) struct PendingTraces {
    shards: [Mutex<HashMap<TraceId, PendingTrace>>; SHARDS],
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct PendingTrace {
    open: usize,
    is_failed: bool,
    spans: Vec<SpanData>,
}

impl PendingTraces {
    /// A span that is not sampled begins.
    pub(super) fn begin(&self, context: &SpanContext) {
        let mut pending = self.shard(context.trace_id());
        if let Some(trace) = pending.get_mut(&context.trace_id()) {
            trace.open += 1;
        } else if pending.len() < PENDING_TRACES_MAX {
            let trace = PendingTrace { open: 1, ..PendingTrace::default() };
            pending.insert(context.trace_id(), trace);
        }
    }

    /// A span that is not sampled ended. Returns the spans to export: all those of its trace, if it
    /// was the last one and one of them failed.
    pub(super) fn end(&self, span: SpanData) -> Vec<SpanData> {
        let id = span.span_context.trace_id();
        let mut pending = self.shard(id);
        // Absent: there were too many when it began.
        let Some(trace) = pending.get_mut(&id) else { return Vec::new() };
        trace.open = trace.open.saturating_sub(1);
        trace.is_failed |= matches!(span.status, Status::Error { .. });
        if trace.spans.len() < PENDING_SPANS_MAX {
            trace.spans.push(span);
        }
        if trace.open > 0 {
            return Vec::new();
        }
        match pending.remove(&id) {
            Some(PendingTrace { is_failed: true, spans, .. }) => {
                spans.into_iter().map(sampled).collect()
            }
            _ => Vec::new(),
        }
    }

    fn shard(&self, id: TraceId) -> MutexGuard<'_, HashMap<TraceId, PendingTrace>> {
        #[expect(clippy::cast_possible_truncation, reason = "any bits of a hash do")]
        let shard = self.hasher.hash_one(id) as usize % SHARDS;
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The same span with the flag that lets exporters send it.
fn sampled(mut span: SpanData) -> SpanData {
    let context = &span.span_context;
    span.span_context = SpanContext::new(
        context.trace_id(),
        context.span_id(),
        context.trace_flags() | TraceFlags::SAMPLED,
        context.is_remote(),
        context.trace_state().clone(),
    );
    span
}
