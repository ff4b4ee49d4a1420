//! What tests of this crate share: logs in folders, written by the real writer.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use drawbridge_runtime::ServiceBuilder;
use tokio::sync::oneshot;

use crate::{
    AuditConfig, AuditLog, AuditMode, Event,
    event::Admin,
    verify::{LogReport, verify},
    writer::Message,
};

/// A running log with its service.
pub(crate) struct TestLog {
    pub(crate) log: AuditLog,
    pub(crate) service: ServiceBuilder,
}

impl AuditLog {
    /// Waits for a checkpoint of all lines.
    pub(crate) async fn checkpoint_now(&self) {
        let (done, signed) = oneshot::channel();
        self.queue().send(Message::Checkpoint(done)).unwrap();
        signed.await.unwrap();
    }

    /// Waits until the writer has ended.
    pub(crate) async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        self.queue().send(Message::Stop(done)).unwrap();
        stopped.await.unwrap();
    }
}

/// The config of a log in a folder.
pub(crate) fn config(folder: &Path, replica: &str, mode: AuditMode) -> AuditConfig {
    AuditConfig {
        audit_log: Some(folder.to_owned()),
        audit_mode: mode,
        audit_replica: Some(replica.to_owned()),
        ..AuditConfig::default()
    }
}

impl TestLog {
    pub(crate) fn open(folder: &Path, replica: &str) -> Self {
        Self::with(&config(folder, replica, AuditMode::Required))
    }

    pub(crate) fn with(config: &AuditConfig) -> Self {
        let service = ServiceBuilder::new();
        let log = AuditLog::open(config, &service, "test").unwrap();
        Self { log, service }
    }

    /// Records some events, and waits for them.
    pub(crate) async fn write(&self, values: &[&str]) {
        for value in values {
            self.log.commit(event(value)).await.unwrap();
        }
    }

    /// Stops the service, and waits for the last checkpoint.
    pub(crate) async fn stop(self) {
        self.log.stop().await;
    }
}

pub(crate) fn event(value: &str) -> Event {
    let (action, value) = ("test".to_owned(), value.to_owned());
    Event::Admin(Box::new(Admin { request_id: value.clone(), action, value, ..Admin::default() }))
}

/// A log of one replica that was written and stopped.
pub(crate) async fn written(folder: &Path, replica: &str, values: &[&str]) {
    let log = TestLog::open(folder, replica);
    log.write(values).await;
    log.stop().await;
}

pub(crate) fn verified(folder: &Path) -> Vec<LogReport> {
    verify(&[folder.to_owned()], &[], |_| {}).unwrap()
}

/// What is wrong in the logs of a folder.
pub(crate) fn problems(folder: &Path) -> Vec<String> {
    let reports = verified(folder);
    assert!(!reports.is_empty(), "there is a log");
    let problems = reports.into_iter().flat_map(|report| report.problems);
    problems.map(|problem| problem.to_string()).collect()
}

/// The files of lines in a folder, and below it.
pub(crate) fn line_files(folder: &Path) -> Vec<PathBuf> {
    let logs = crate::read::LogFiles::find(&[folder.to_owned()]).unwrap();
    logs.into_iter().flat_map(|log| log.files).map(|(_, path)| path).collect()
}

pub(crate) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Exchanges checkpoints: the first log sends, the second one answers.
pub(crate) async fn exchange(from: &TestLog, to: &TestLog) {
    let answer = |body: bytes::Bytes| {
        let message = serde_json::from_slice(&body).unwrap();
        to.log.receive(&message).unwrap();
        let answer = serde_json::to_vec(&to.log.offer()).unwrap();
        std::future::ready(vec![("peer".to_owned(), Ok(answer.into()))])
    };
    from.log.exchange_once(answer).await;
}
