//! The log: what is logged, in which form, and where to.

use std::{
    fs::File,
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use tracing::{Metadata, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterExt as _, filter_fn},
    fmt::MakeWriter,
    layer::Filter,
    registry::LookupSpan,
    reload,
};

use super::{
    Observer, TelemetryError,
    json::JsonLines,
    otlp_logs::{OtlpLogs, is_exported},
};
use crate::{
    bounded,
    follow::FileFollower,
    metric::Counter,
    operator_acts::{OperatorActKind, OperatorActs},
};

/// Targets that are not logged, whatever the filter: the library logs every connection and the end
/// of each stream, even as errors, and writes whole requests with their sensitive data.
const NOISY_TARGET: &str = "rmcp";
/// The most bytes of a file with a filter.
const FILTER_BYTES_MAX: u64 = 64 * 1024;

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Pretty on a terminal, JSON elsewhere.
    Auto,
    /// One JSON object per line.
    Json,
    /// For people.
    Pretty,
}

/// The sink of log lines.
#[derive(Clone, Debug, Default)]
pub enum LogSink {
    /// The process's standard error.
    #[default]
    Stderr,
    /// An open file.
    File(Arc<File>),
    /// A buffer, for tests that read it.
    Memory(Arc<Mutex<Vec<u8>>>),
}

impl<'a> MakeWriter<'a> for LogSink {
    type Writer = Box<dyn io::Write + 'a>;

    fn make_writer(&'a self) -> Self::Writer {
        match self {
            Self::Stderr => Box::new(io::stderr()),
            Self::File(file) => Box::new(&**file),
            Self::Memory(buffer) => Box::new(MemoryWriter(buffer)),
        }
    }
}

struct MemoryWriter<'a>(&'a Mutex<Vec<u8>>);

impl io::Write for MemoryWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A sink that counts the lines that cannot be written.
#[derive(Clone)]
pub(super) struct CountedSink {
    pub(super) sink: LogSink,
    pub(super) lost: Counter,
}

impl<'a> MakeWriter<'a> for CountedSink {
    type Writer = CountedWriter<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        CountedWriter { writer: self.sink.make_writer(), lost: &self.lost }
    }
}

pub(super) struct CountedWriter<'a> {
    writer: Box<dyn io::Write + 'a>,
    lost: &'a Counter,
}

impl io::Write for CountedWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writer.write(bytes).inspect_err(|_| self.lost.increment(1))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// Passes log lines to an observer.
struct ObserverWriter<'a>(&'static str, &'a dyn Observer);

impl io::Write for ObserverWriter<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.1.log_line(self.0, line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct ObserverSink(&'static str, Arc<dyn Observer>);

impl<'a> MakeWriter<'a> for ObserverSink {
    type Writer = ObserverWriter<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        ObserverWriter(self.0, &*self.1)
    }
}

/// Replaces a filter.
type SetFilter = Arc<dyn Fn(EnvFilter) + Send + Sync>;

/// The filters of the log's layers, which a file can replace while the service runs.
#[derive(Clone, Default)]
pub(super) struct LogFilters(Vec<SetFilter>);

impl LogFilters {
    /// A filter for one layer: the text's, and without noise.
    fn layer_filter<S>(
        &mut self,
        text: &str,
        is_enabled: fn(&Metadata<'_>) -> bool,
    ) -> Result<impl Filter<S> + use<S>, TelemetryError>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        let (filter, handle) = reload::Layer::<EnvFilter, S>::new(parse(text)?);
        self.0.push(Arc::new(move |filter| {
            // It fails when the subscriber is gone.
            let _ = handle.reload(filter);
        }));
        Ok(filter.and(filter_fn(is_enabled)))
    }

    fn set(&self, text: &str) -> Result<(), TelemetryError> {
        let filters = self.0.iter().map(|_| parse(text)).collect::<Result<Vec<_>, _>>()?;
        self.0.iter().zip(filters).for_each(|(set, filter)| set(filter));
        // Callsites have cached what the old filter said.
        tracing::callsite::rebuild_interest_cache();
        Ok(())
    }

    /// Applies the filter of a file whenever it changes; `current` is in effect. Returns only when
    /// the runtime ends.
    pub(super) async fn follow(self, file: PathBuf, mut current: String, acts: OperatorActs) {
        let path = file.clone();
        let mut follower = FileFollower::new(move || read_filter(&path));
        let file = file.display();
        loop {
            let (text, applied) = match follower.changed().await {
                Ok(text) => match self.set(&text) {
                    Ok(()) => {
                        tracing::info!(%file, filter = %text, "the log filter is in effect");
                        (text.to_string(), Ok(()))
                    }
                    Err(error) => {
                        let error = crate::error_chain(&error);
                        tracing::warn!(%file, error, "the log filter is invalid; it is unchanged");
                        (text.to_string(), Err(error))
                    }
                },
                Err(error) => {
                    tracing::warn!(%file, %error, "the log filter cannot be read; it is unchanged");
                    (String::new(), Err(error.to_string()))
                }
            };
            if applied.is_err() || text != current {
                if applied.is_ok() {
                    current.clone_from(&text);
                }
                acts.report_change(OperatorActKind::LogFilter, text, applied);
            }
        }
    }
}

/// Whether an event may be logged, and whether log lines have fields of a span.
fn is_logged(metadata: &Metadata<'_>) -> bool {
    if metadata.is_span() {
        return metadata.fields().field("request_id").is_some();
    }
    !metadata.target().starts_with(NOISY_TARGET)
}

fn parse(text: &str) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::try_new(text)
        .map_err(|source| TelemetryError::Filter { filter: text.to_owned(), source })
}

/// Reads the filter of a file.
pub(super) fn read_filter(file: &Path) -> io::Result<String> {
    let text = bounded::read(File::open(file)?, FILTER_BYTES_MAX)?;
    let text = String::from_utf8(text)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
    Ok(text.trim().to_owned())
}

/// The layer that writes the log.
pub(super) fn log_layer<S>(
    format: LogFormat,
    filter: &str,
    filters: &mut LogFilters,
    thread_names: bool,
    writer: CountedSink,
) -> Result<Box<dyn Layer<S> + Send + Sync>, TelemetryError>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let terminal = matches!(writer.sink, LogSink::Stderr) && io::stderr().is_terminal();
    let filter = filters.layer_filter(filter, is_logged)?;
    let is_pretty = match format {
        LogFormat::Pretty => true,
        LogFormat::Auto => terminal,
        LogFormat::Json => false,
    };
    if is_pretty {
        let pretty = tracing_subscriber::fmt::layer()
            .with_thread_names(thread_names)
            .with_ansi(terminal)
            .with_writer(writer);
        return Ok(pretty.with_filter(filter).boxed());
    }
    Ok(JsonLines { writer, thread_names }.with_filter(filter).boxed())
}

/// The layer that passes log lines to an observer.
pub(super) fn observed_layer<S>(
    service: &'static str,
    observer: Arc<dyn Observer>,
    filter: &str,
    filters: &mut LogFilters,
) -> Result<Box<dyn Layer<S> + Send + Sync>, TelemetryError>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let writer = ObserverSink(service, observer);
    let filter = filters.layer_filter(filter, is_logged)?;
    Ok(JsonLines { writer, thread_names: false }.with_filter(filter).boxed())
}

/// The layer that queues log records for a collector. It enables more spans than the log, which are
/// those of its records.
pub(super) fn otlp_layer<S>(
    logs: OtlpLogs,
    filter: &str,
    filters: &mut LogFilters,
) -> Result<Box<dyn Layer<S> + Send + Sync>, TelemetryError>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let filter = filters.layer_filter(filter, |metadata| {
        is_exported(metadata) && (metadata.is_span() || is_logged(metadata))
    })?;
    Ok(logs.with_filter(filter).boxed())
}
