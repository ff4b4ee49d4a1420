//! Where lines go: to the folder of a log, or to standard output.

use std::{
    io::{self, Write as _},
    path::PathBuf,
};

use crate::{
    files::FileEnd,
    folder::{Folder, prune_others},
    tree::Tree,
};

/// Where lines go.
#[derive(Debug)]
pub(crate) enum Output {
    /// To files, which are rotated and deleted.
    Folder { folder: Box<Folder>, root: PathBuf, days: u32, file_bytes_max: u64 },
    /// To standard output, whose reader stores them.
    Stdout,
}

impl Output {
    /// The folder of the log. Absent: it goes to standard output.
    pub(crate) fn folder(&self) -> Option<PathBuf> {
        match self {
            Self::Folder { folder, .. } => Some(folder.path.clone()),
            Self::Stdout => None,
        }
    }

    /// Appends complete lines. After an error nothing of them is in the log.
    pub(crate) fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::Folder { folder, .. } => folder.append(lines),
            // One write, so that lines of other services in the process do not interleave.
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(lines)?;
                stdout.flush()
            }
        }
    }

    /// Waits until what was appended is durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        match self {
            Self::Folder { folder, .. } => folder.sync(),
            Self::Stdout => Ok(()),
        }
    }

    /// Whether the next line belongs into a new file.
    pub(crate) fn is_full(&self) -> bool {
        match self {
            Self::Folder { folder, file_bytes_max, .. } => folder.is_full(*file_bytes_max),
            Self::Stdout => false,
        }
    }

    /// Begins a new file, and deletes old ones.
    pub(crate) fn rotate(&mut self, end: FileEnd, tree: &mut Tree) -> io::Result<()> {
        if let Self::Folder { folder, .. } = self {
            folder.rotate(end, tree)?;
            self.prune(tree);
        }
        Ok(())
    }

    /// Deletes old files. A file that cannot be deleted takes space but does not stop the log.
    pub(crate) fn prune(&self, tree: &mut Tree) {
        let Self::Folder { folder, root, days, .. } = self else { return };
        let pruned = folder
            .prune(*days)
            .map(|first| tree.forget_leaves(first))
            .and_then(|()| prune_others(root, &folder.path, *days));
        if let Err(error) = pruned {
            let folder = root.display();
            tracing::error!(%error, %folder, "cannot delete an old file of the audit log");
        }
    }

    /// Publishes the latest signed checkpoint.
    pub(crate) fn publish(&self, note: &str) -> io::Result<()> {
        match self {
            Self::Folder { folder, .. } => folder.publish(note),
            Self::Stdout => Ok(()),
        }
    }
}
