//! Daily files (UTC) that only the user of this process can read.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use jiff::{Timestamp, civil::Date, tz::TimeZone};

use crate::metrics::DECISION_LOG_ERRORS;

const PREFIX: &str = "decisions.";
const SUFFIX: &str = ".jsonl";

/// One file per day, of which the latest `days` are retained.
#[derive(Debug)]
pub(super) struct DailyFiles {
    folder: PathBuf,
    days: usize,
    today: Date,
    file: File,
    /// Whether the last write failed.
    is_failing: Arc<AtomicBool>,
}

impl DailyFiles {
    /// Opens today's file in a folder, which is created if missing.
    pub(super) fn open(folder: &Path, days: usize) -> io::Result<Self> {
        make_private(folder)?;
        warn_of_readers(folder)?;
        let today = today();
        let files = Self {
            folder: folder.to_owned(),
            days: days.max(1),
            today,
            file: open(folder, today)?,
            is_failing: Arc::default(),
        };
        files.prune_or_warn();
        Ok(files)
    }

    /// Whether the last write failed, now and later.
    pub(super) fn is_failing(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.is_failing)
    }

    /// Rotates to the file of another day. If it cannot be opened, the current file stays in use.
    fn rotate(&mut self, today: Date) {
        match open(&self.folder, today) {
            Ok(file) => {
                (self.file, self.today) = (file, today);
                self.prune_or_warn();
            }
            Err(error) => {
                let folder = self.folder.display();
                tracing::error!(%error, %folder, "cannot open the decision log of a new day");
            }
        }
    }

    /// An old file that cannot be removed takes space but does not stop the log.
    fn prune_or_warn(&self) {
        if let Err(error) = self.prune() {
            let folder = self.folder.display();
            tracing::error!(%error, %folder, "cannot remove an old file of the decision log");
        }
    }

    /// Removes the oldest files beyond the retained days. Names sort by day.
    fn prune(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            if name.to_str().is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(SUFFIX))
            {
                files.push(name);
            }
        }
        files.sort_unstable();
        let old = files.iter().take(files.len().saturating_sub(self.days));
        // A failure to remove one file does not stop the removal of others.
        old.map(|name| fs::remove_file(self.folder.join(name))).fold(Ok(()), io::Result::and)
    }
}

impl Write for DailyFiles {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let today = today();
        if today != self.today {
            self.rotate(today);
        }
        let written = self.file.write(bytes);
        let was_failing = self.is_failing.swap(written.is_err(), Ordering::Relaxed);
        if let Err(error) = &written {
            // The writer's thread drops the error.
            DECISION_LOG_ERRORS.get().increment(1);
            if !was_failing {
                let folder = self.folder.display();
                tracing::error!(%error, %folder, "cannot write to the decision log");
            }
        }
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn today() -> Date {
    Timestamp::now().to_zoned(TimeZone::UTC).date()
}

fn open(folder: &Path, day: Date) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        // A symbolic link in its place could point anywhere.
        options.mode(0o600).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
    }
    let path = folder.join(format!("{PREFIX}{day}{SUFFIX}"));
    let file = options.open(&path)?;
    #[cfg(unix)]
    if let Err(error) = restrict(&file) {
        // It may belong to another user, or the volume may force group permissions.
        tracing::warn!(
            %error,
            file = %path.display(),
            "other users may be able to read the decision log"
        );
    }
    Ok(file)
}

/// An existing file may predate the restricted mode.
#[cfg(unix)]
fn restrict(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
    }
    Ok(())
}

fn make_private(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

/// An existing folder belongs to the operator: a volume, or one that a log shipper reads.
#[cfg(unix)]
fn warn_of_readers(folder: &Path) -> io::Result<()> {
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(folder)?.permissions());
    if mode & 0o077 != 0 {
        let mode = format!("{:o}", mode & 0o7777);
        tracing::warn!(
            folder = %folder.display(),
            mode,
            "other users can read the folder of the decision log"
        );
    }
    Ok(())
}

#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "on Unix it can fail")]
fn warn_of_readers(_: &Path) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_beyond_the_retained_days_are_removed_and_other_files_remain() {
        let folder = tempfile::tempdir().unwrap();
        let old = ["decisions.2026-01-01.jsonl", "decisions.2026-01-02.jsonl", "notes.txt"];
        for name in old {
            fs::write(folder.path().join(name), "{}\n").unwrap();
        }
        let mut files = DailyFiles::open(folder.path(), 2).unwrap();
        files.write_all(b"{}\n").unwrap();
        files.rotate(Date::constant(2999, 1, 1));
        let mut names: Vec<_> = fs::read_dir(folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort_unstable();
        let today = format!("decisions.{}.jsonl", today());
        assert_eq!(names, [&today, "decisions.2999-01-01.jsonl", "notes.txt"]);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_log_is_failing_while_its_disk_is_full() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = DailyFiles::open(folder.path(), 1).unwrap();
        let (is_failing, disk) = (files.is_failing(), files.file.try_clone().unwrap());
        for (file, expected) in
            [(OpenOptions::new().write(true).open("/dev/full").unwrap(), true), (disk, false)]
        {
            files.file = file;
            assert_eq!(files.write_all(b"{}\n").is_err(), expected);
            assert_eq!(is_failing.load(Ordering::Relaxed), expected);
        }
    }

    /// A folder with the name of an old file cannot be removed as a file. The service failed to
    /// start.
    #[test]
    fn an_old_file_that_cannot_be_removed_does_not_stop_the_log_or_other_removals() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("decisions.2026-01-01.jsonl")).unwrap();
        fs::write(folder.path().join("decisions.2026-01-02.jsonl"), "{}\n").unwrap();
        let mut files = DailyFiles::open(folder.path(), 1).unwrap();
        files.write_all(b"{}\n").unwrap();
        assert!(!folder.path().join("decisions.2026-01-02.jsonl").exists());
    }

    #[cfg(unix)]
    #[test]
    fn an_existing_file_that_other_users_can_read_is_restricted() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(format!("decisions.{}.jsonl", today()));
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        DailyFiles::open(folder.path(), 1).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
