//! Files that a service follows while it runs: an edit takes effect without a restart.

use std::{error::Error, sync::Arc, time::Duration};

use tokio::{
    task::spawn_blocking,
    time::{Interval, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::{
    error_chain,
    metric::{Counter, Gauge},
    readiness::Readiness,
};

/// How often the files are read.
///
/// Contents are polled, rather than events watched (as the crate `notify` does): a mounted
/// `ConfigMap` changes by a swap of a link above the files, network file systems report no events,
/// and editors replace files. Equal contents are the same in all of these cases.
pub const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// After this many polls, files that differ at each one are used as they are.
const UNSETTLED_POLLS_MAX: u32 = 5;

/// Waits for changes of files. They are read on a thread for blocking work, and must have limits on
/// their size.
pub struct FileFollower<C, E> {
    read: Arc<dyn Fn() -> Result<C, E> + Send + Sync>,
    ticks: Interval,
    seen: Option<State<C>>,
    unsettled_polls: u32,
    reported: Option<State<C>>,
}

/// What a poll found: the contents, or the text of the error.
#[derive(Debug, PartialEq)]
enum State<C> {
    Contents(Arc<C>),
    Unreadable(String),
}

impl<C> Clone for State<C> {
    fn clone(&self) -> Self {
        match self {
            Self::Contents(contents) => Self::Contents(Arc::clone(contents)),
            Self::Unreadable(error) => Self::Unreadable(error.clone()),
        }
    }
}

impl<C, E> FileFollower<C, E>
where
    C: PartialEq + Send + Sync + 'static,
    E: Error + Send + 'static,
{
    /// Follows the files that `read` reads. Must be called within a runtime.
    pub fn new(read: impl Fn() -> Result<C, E> + Send + Sync + 'static) -> Self {
        let mut ticks = interval(POLL_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { read: Arc::new(read), ticks, seen: None, unsettled_polls: 0, reported: None }
    }

    /// Waits for a change and returns the contents, or why they cannot be read. The first change is
    /// the contents as they are: they may have changed since the caller read them.
    ///
    /// A file that is being written may look empty, and several files do not change at once, so
    /// only contents that are equal at two polls are returned.
    pub async fn changed(&mut self) -> Result<Arc<C>, E> {
        loop {
            self.ticks.tick().await;
            let (now, error) = match self.poll().await {
                Ok(contents) => (State::Contents(Arc::new(contents)), None),
                Err(error) => (State::Unreadable(error_chain(&error)), Some(error)),
            };
            let is_settled = self.seen.as_ref() == Some(&now);
            self.seen = Some(now.clone());
            self.unsettled_polls = if is_settled { 0 } else { self.unsettled_polls + 1 };
            if !is_settled && self.unsettled_polls < UNSETTLED_POLLS_MAX {
                continue;
            }
            if self.reported.as_ref() == Some(&now) {
                continue;
            }
            self.reported = Some(now.clone());
            match (now, error) {
                (State::Contents(contents), _) => return Ok(contents),
                (State::Unreadable(_), Some(error)) => return Err(error),
                (State::Unreadable(_), None) => {}
            }
        }
    }

    async fn poll(&self) -> Result<C, E> {
        let read = Arc::clone(&self.read);
        match spawn_blocking(move || read()).await {
            Ok(read) => read,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime is shutting down.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

/// How changes of followed files are reported.
pub struct FollowReport<E> {
    /// What the files are, for logs, and the key of the note in `/readyz`.
    pub topic: &'static str,
    /// 1 while the files are in effect, 0 while they cannot be used.
    pub current: Gauge,
    /// Counts changes that cannot be used.
    pub failed: Counter,
    /// The note in `/readyz`, which is readable by anyone with access to the admin port.
    pub note: fn(&E) -> String,
}

/// Is called with what became of a change, and with the contents, unless they cannot be read.
type ChangeObserver<C, E> = Box<dyn Fn(Option<&C>, Result<(), &E>) + Send + Sync>;

/// Files that a service follows, with reports of what became of each change.
pub struct FollowedFiles<C, E> {
    files: FileFollower<C, E>,
    report: FollowReport<E>,
    /// The contents that are to be reported.
    contents: Option<Arc<C>>,
    observer: ChangeObserver<C, E>,
    readiness: Readiness,
    stopping: CancellationToken,
}

impl<C, E> FollowedFiles<C, E>
where
    C: PartialEq + Send + Sync + 'static,
    E: Error + Send + 'static,
{
    /// Follows the files that `read` reads until `stopping`. What they were at start is in effect.
    /// Must be called within a runtime.
    pub fn new(
        report: FollowReport<E>,
        read: impl Fn() -> Result<C, E> + Send + Sync + 'static,
        readiness: Readiness,
        stopping: CancellationToken,
    ) -> Self {
        report.failed.absolute(0);
        report.current.set(1);
        let (files, observer) =
            (FileFollower::new(read), Box::new(|_: Option<&C>, _: Result<(), &E>| {}));
        Self { files, report, contents: None, observer, readiness, stopping }
    }

    /// Calls `observer` with each change: with the contents unless they cannot be read, and with
    /// the reason if they are not in effect.
    #[must_use]
    pub fn observed_by(
        self,
        observer: impl Fn(Option<&C>, Result<(), &E>) + Send + Sync + 'static,
    ) -> Self {
        Self { observer: Box::new(observer), ..self }
    }

    /// Waits for a change and returns the contents, whose use must be reported with
    /// [`Self::report`]; `None` once the service stops. Contents that cannot be read are reported.
    pub async fn next(&mut self) -> Option<Arc<C>> {
        loop {
            match self.stopping.run_until_cancelled(self.files.changed()).await? {
                Ok(contents) => {
                    self.contents = Some(Arc::clone(&contents));
                    return Some(contents);
                }
                Err(error) => {
                    self.contents = None;
                    self.report(Err(error));
                }
            }
        }
    }

    /// Reports whether the contents differ from what was in effect, or why they cannot be used and
    /// what was in effect still is.
    pub fn report(&self, applied: Result<bool, E>) {
        let FollowReport { topic, current, failed, note } = &self.report;
        let note = match applied {
            Ok(is_new) => {
                if is_new {
                    tracing::info!(of = topic, "changed files are in effect");
                    (self.observer)(self.contents.as_deref(), Ok(()));
                }
                current.set(1);
                None
            }
            Err(error) => {
                // An error may have many lines, which a field would escape.
                tracing::error!(
                    of = topic,
                    "changed files cannot be used; the previous ones stay in effect: {}",
                    error_chain(&error)
                );
                failed.increment(1);
                current.set(0);
                (self.observer)(self.contents.as_deref(), Err(&error));
                Some(note(&error))
            }
        };
        self.readiness.set_note(topic, note);
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io, path::Path, sync::Mutex};

    use tempfile::TempDir;

    use super::*;

    fn follower(path: &Path) -> FileFollower<String, io::Error> {
        let path = path.to_owned();
        FileFollower::new(move || fs::read_to_string(&path))
    }

    fn file() -> (TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "one").unwrap();
        (folder, path)
    }

    #[tokio::test]
    async fn a_change_of_contents_and_each_new_error_is_returned_once() {
        let (_folder, path) = file();
        let mut files = follower(&path);
        assert_eq!(**files.changed().await.unwrap(), *"one");
        let modified = fs::metadata(&path).unwrap().modified().unwrap();
        // Neither the size nor the time of the file changes.
        fs::write(&path, "two").unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
        assert_eq!(**files.changed().await.unwrap(), *"two");
        fs::remove_file(&path).unwrap();
        assert_eq!(files.changed().await.unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::create_dir(&path).unwrap();
        assert_eq!(files.changed().await.unwrap_err().kind(), io::ErrorKind::IsADirectory);
        fs::remove_dir(&path).unwrap();
        fs::write(&path, "two").unwrap();
        assert_eq!(**files.changed().await.unwrap(), *"two");
    }

    #[tokio::test]
    async fn contents_are_used_once_they_have_settled_or_after_five_polls() {
        let numbers = Arc::new(Mutex::new([1, 2, 2, 3, 4, 5, 6, 7, 8, 9].into_iter()));
        let read = move || numbers.lock().unwrap().next().ok_or(io::Error::other("none"));
        let mut files = FileFollower::new(read);
        assert_eq!(*files.changed().await.unwrap(), 2);
        assert_eq!(*files.changed().await.unwrap(), 7);
    }

    #[tokio::test]
    async fn an_error_is_noted_until_the_files_can_be_used_and_following_ends_with_the_service() {
        let (_folder, path) = file();
        let (readiness, stopping) = (Readiness::default(), CancellationToken::new());
        let applied: Arc<Mutex<Vec<String>>> = Arc::default();
        let (record, source) = (Arc::clone(&applied), path.clone());
        let report = FollowReport {
            topic: "test",
            current: Gauge::noop(),
            failed: Counter::noop(),
            note: |_: &io::Error| "see the log".to_owned(),
        };
        let read = move || fs::read_to_string(&source);
        let observed: Arc<Mutex<Vec<String>>> = Arc::default();
        let observer = Arc::clone(&observed);
        let mut files = FollowedFiles::new(report, read, readiness.clone(), stopping.clone())
            .observed_by(move |contents, applied| {
                let applied = applied.map_err(ToString::to_string);
                observer.lock().unwrap().push(format!("{contents:?} {applied:?}"));
            });
        let following = tokio::spawn(async move {
            while let Some(contents) = files.next().await {
                files.report(match contents.as_str() {
                    "invalid" => Err(io::Error::other("a secret")),
                    _ => {
                        record.lock().unwrap().push(contents.to_string());
                        Ok(true)
                    }
                });
            }
        });
        let noted = async |wanted: Option<&str>| {
            while readiness.notes().get("test").map(String::as_str) != wanted {
                tokio::time::sleep(POLL_INTERVAL / 4).await;
            }
        };
        fs::write(&path, "invalid").unwrap();
        noted(Some("see the log")).await;
        fs::write(&path, "two").unwrap();
        noted(None).await;
        assert_eq!(applied.lock().unwrap().last().map(String::as_str), Some("two"));
        let observed = observed.lock().unwrap().join("; ");
        let expected = r#"Some("invalid") Err("a secret"); Some("two") Ok(())"#;
        assert!(observed.ends_with(expected), "{observed}");
        stopping.cancel();
        following.await.unwrap();
    }
}
