//! An observer of a process's own telemetry.

use std::{fmt::Debug, sync::Arc, time::Duration};

use opentelemetry::Context;
use opentelemetry_sdk::{
    error::OTelSdkResult,
    trace::{Span, SpanData, SpanProcessor},
};

/// Sees spans and log lines of this process, besides the collector and the log.
pub trait Observer: Debug + Send + Sync {
    /// A span of `service` has ended. It may not be sampled.
    fn span(&self, service: &'static str, span: &SpanData);

    /// `service` has logged this line, as JSON with its line end.
    fn log_line(&self, service: &'static str, line: &[u8]);
}

/// Passes ended spans to an observer.
#[derive(Debug)]
pub(super) struct ObservedSpans {
    pub(super) service: &'static str,
    pub(super) observer: Arc<dyn Observer>,
}

impl SpanProcessor for ObservedSpans {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        self.observer.span(self.service, &span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}
