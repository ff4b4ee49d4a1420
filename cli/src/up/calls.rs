//! The recent calls of the mesh, for `drawbridge trace` and `drawbridge logs`.

use std::{
    io::IsTerminal as _,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use drawbridge_mesh::{
    calls::{CallsSocket, RecentCalls},
    state::MeshName,
};
use drawbridge_runtime::{LogFormat, Observer, TelemetryConfig, error_chain};
use opentelemetry_sdk::trace::SpanData;
use serde_json::Value;

/// Records the calls of a mesh and, on a terminal, names the command that explains a failure.
#[derive(Debug)]
struct Recorder {
    calls: Arc<RecentCalls>,
    /// The request that was named last. Absent: none is named, because the log is not for people.
    named: Option<Mutex<String>>,
}

/// Makes every service of the mesh record its calls.
pub(super) fn recorder(telemetry: &mut TelemetryConfig) -> Arc<RecentCalls> {
    let calls = Arc::new(RecentCalls::default());
    let is_for_people = telemetry.log_format == LogFormat::Pretty
        || (telemetry.log_format == LogFormat::Auto && std::io::stderr().is_terminal());
    let named = is_for_people.then(Mutex::default);
    telemetry.observer = Some(Arc::new(Recorder { calls: Arc::clone(&calls), named }));
    calls
}

/// Serves them. Without the socket the mesh works, and the two commands say why they do not.
pub(super) fn serve(
    folder: &Path,
    name: &MeshName,
    calls: Arc<RecentCalls>,
) -> Option<CallsSocket> {
    let path = std::path::absolute(folder.join(format!("calls-{name}.sock"))).ok()?;
    match CallsSocket::serve(&path, calls) {
        Ok(socket) => Some(socket),
        Err(error) => {
            anstream::eprintln!(
                "warning: `drawbridge trace` and `drawbridge logs` do not work: {}",
                error_chain(&error)
            );
            None
        }
    }
}

impl Observer for Recorder {
    fn span(&self, service: &'static str, span: &SpanData) {
        self.calls.span(service, span);
    }

    fn log_line(&self, service: &'static str, line: &[u8]) {
        self.calls.log_line(service, line);
        let Some(named) = &self.named else { return };
        let Ok(line) = serde_json::from_slice::<Value>(line) else { return };
        if !matches!(line["level"].as_str(), Some("ERROR" | "WARN")) {
            return;
        }
        let Some(id) = line["request_id"].as_str() else { return };
        let mut named = named.lock().unwrap_or_else(PoisonError::into_inner);
        // A failure has several lines, often.
        if *named != id {
            id.clone_into(&mut named);
            anstream::eprintln!("what happened: drawbridge trace {id}");
        }
    }
}
