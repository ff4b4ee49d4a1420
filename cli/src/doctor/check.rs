//! A check: what it is about, its work, and what it found.

use std::{
    io::{IsTerminal as _, Write as _},
    time::Duration,
};

use serde::Serialize;
use tokio::{task::JoinSet, time::timeout};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Level {
    Ok,
    Warning,
    Failed,
}

/// One thing that a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Finding {
    pub(super) level: Level,
    /// What was found.
    pub(super) finding: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) to_do: Option<String>,
}

impl Finding {
    pub(super) fn ok(finding: impl Into<String>) -> Self {
        Self { level: Level::Ok, finding: finding.into(), to_do: None }
    }

    pub(super) fn warning(finding: impl Into<String>, to_do: impl Into<String>) -> Self {
        Self { level: Level::Warning, finding: finding.into(), to_do: Some(to_do.into()) }
    }

    pub(super) fn failed(finding: impl Into<String>, to_do: impl Into<String>) -> Self {
        Self { level: Level::Failed, finding: finding.into(), to_do: Some(to_do.into()) }
    }
}

/// A check that can be run.
pub(super) struct Check {
    area: &'static str,
    subject: String,
    work: futures::future::BoxFuture<'static, Vec<Finding>>,
}

impl Check {
    /// A check of `subject`, which belongs to an area such as `redis`.
    pub(super) fn new(
        area: &'static str,
        subject: impl Into<String>,
        work: impl Future<Output = Vec<Finding>> + Send + 'static,
    ) -> Self {
        Self { area, subject: subject.into(), work: Box::pin(work) }
    }

    /// A check without I/O of the network, on a thread where it may block.
    pub(super) fn blocking(
        area: &'static str,
        subject: impl Into<String>,
        work: impl FnOnce() -> Vec<Finding> + Send + 'static,
    ) -> Self {
        Self::new(area, subject, async move {
            tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| vec![broken(&error)])
        })
    }
}

/// What a check found.
#[derive(Debug, Serialize)]
pub(super) struct Checked {
    pub(super) area: &'static str,
    pub(super) subject: String,
    pub(super) findings: Vec<Finding>,
}

impl Checked {
    /// The level of the worst finding.
    pub(super) fn level(&self) -> Level {
        self.findings.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok)
    }
}

/// Runs all checks concurrently, each for at most `limit`. The result has the order of `checks`,
/// and a check that panics is a finding of its own.
pub(super) async fn run_all(checks: Vec<Check>, limit: Duration) -> Vec<Checked> {
    let mut progress = Progress::new(checks.len());
    let mut running = JoinSet::new();
    let mut checked = Vec::new();
    for (at, Check { area, subject, work }) in checks.into_iter().enumerate() {
        checked.push(Checked { area, subject, findings: Vec::new() });
        running.spawn(async move {
            let work = tokio::spawn(timeout(limit, work));
            let findings = match work.await {
                Ok(Ok(findings)) => findings,
                Ok(Err(_)) => vec![Finding::failed(
                    format!("no answer within {} ms", limit.as_millis()),
                    "see whether the server, and a firewall on the way, answer; or give it more \
                     time with --timeout-ms",
                )],
                Err(error) => vec![broken(&error)],
            };
            (at, findings)
        });
    }
    while let Some(done) = running.join_next().await {
        // The outer task neither panics nor is aborted.
        if let Ok((at, findings)) = done {
            checked[at].findings = findings;
            progress.advance(&checked[at].subject);
        }
    }
    progress.clear();
    checked
}

fn broken(error: &tokio::task::JoinError) -> Finding {
    Finding::failed(
        format!("the check itself failed: {error}"),
        "report this as a mistake of drawbridge",
    )
}

/// One line on the terminal with the progress.
struct Progress {
    all: usize,
    done: usize,
    is_shown: bool,
}

impl Progress {
    fn new(all: usize) -> Self {
        Self { all, done: 0, is_shown: std::io::stderr().is_terminal() }
    }

    fn advance(&mut self, subject: &str) {
        self.done += 1;
        let subject: String = subject.chars().take(50).collect();
        self.write(&format!("\r\x1b[2Kchecked {} of {}: {subject}", self.done, self.all));
    }

    fn clear(&self) {
        self.write("\r\x1b[2K");
    }

    fn write(&self, text: &str) {
        if self.is_shown {
            // Nothing can be done if the terminal is closed.
            let _ = std::io::stderr().write_all(text.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_check_that_panics_or_hangs_hides_no_other_check() {
        let checks = vec![
            Check::new("a", "panics", async { panic!("as in a bug") }),
            Check::new("b", "hangs", std::future::pending()),
            Check::blocking("c", "panics elsewhere", || panic!("as in a bug")),
            Check::new("d", "works", async { vec![Finding::ok("good")] }),
        ];
        let checked = run_all(checks, Duration::from_millis(200)).await;
        let levels: Vec<_> = checked.iter().map(|it| (it.area, it.level())).collect();
        assert_eq!(
            levels,
            [("a", Level::Failed), ("b", Level::Failed), ("c", Level::Failed), ("d", Level::Ok)]
        );
        assert_eq!(checked[1].findings[0].finding, "no answer within 200 ms");
        assert!(checked[0].findings[0].finding.starts_with("the check itself failed"));
    }
}
