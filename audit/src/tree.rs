//! The Merkle tree of a log that is being written: the hashes of all leaves, and of the complete
//! subtrees of 256, 65,536, … leaves, each level in one file, so that a proof reads a few kilobytes.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::Path,
};

use crate::merkle::{Frontier, Hash, Range, consistency_ranges, split};

/// A level that is stored has nodes of 2^8 nodes of the one below.
const LEVEL_BITS: u32 = 8;
/// Stored levels: enough for 2^48 leaves.
const LEVELS: usize = 6;
const HASH_BYTES: u64 = 32;
/// The most hashes of a level that are in memory where there are no files.
const MEMORY_HASHES_MAX: usize = 1 << 16;

/// The hashes of one level.
#[derive(Debug, Default)]
struct Level {
    /// Absent: only the latest hashes are available.
    file: Option<File>,
    /// The number of hashes before those of `pending`.
    flushed: u64,
    /// The hashes that are not in the file yet.
    pending: Vec<Hash>,
}

impl Level {
    fn push(&mut self, hash: Hash) {
        if self.file.is_none() && self.pending.len() >= 2 * MEMORY_HASHES_MAX {
            self.flushed += MEMORY_HASHES_MAX as u64;
            self.pending.drain(..MEMORY_HASHES_MAX);
        }
        self.pending.push(hash);
    }

    fn flush(&mut self) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        if self.pending.is_empty() {
            return Ok(());
        }
        let bytes: Vec<u8> = self.pending.iter().flat_map(|hash| hash.0).collect();
        // After a failure the same hashes are written to the same place.
        file.seek(SeekFrom::Start(self.flushed * HASH_BYTES))?;
        file.write_all(&bytes)?;
        self.flushed += self.pending.len() as u64;
        self.pending.clear();
        Ok(())
    }

    /// `count` hashes from the one with this number.
    fn read(&self, first: u64, count: usize) -> Option<Vec<Hash>> {
        let mut hashes = Vec::with_capacity(count);
        if first < self.flushed {
            let mut file = self.file.as_ref()?;
            let stored = count.min(usize::try_from(self.flushed - first).ok()?);
            let mut bytes = vec![0; stored * Hash::of_nothing().0.len()];
            file.seek(SeekFrom::Start(first * HASH_BYTES)).ok()?;
            file.read_exact(&mut bytes).ok()?;
            hashes.extend(bytes.as_chunks().0.iter().map(|bytes| Hash(*bytes)));
        }
        let missing = count - hashes.len();
        if missing > 0 {
            // After those of the file, or none of them has been read.
            let from = (first + hashes.len() as u64).checked_sub(self.flushed)?;
            let from = usize::try_from(from).ok()?;
            hashes.extend(self.pending.get(from..from + missing)?);
        }
        Some(hashes)
    }
}

/// A growing Merkle tree.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    levels: [Level; LEVELS],
    frontier: Frontier,
    /// The leaves before this one are not available.
    forgotten: u64,
}

impl Tree {
    /// A tree whose latest nodes alone are in memory.
    pub(crate) fn in_memory() -> Self {
        Self::default()
    }

    /// The tree of the first `size` leaves in the files of a folder, which may have more.
    ///
    /// # Errors
    /// When the files cannot be used, or have fewer.
    pub(crate) fn open(folder: &Path, size: u64) -> io::Result<Self> {
        let mut tree = Self::default();
        for (number, level) in tree.levels.iter_mut().enumerate() {
            let path = folder.join(format!("tree.{}", number as u32 * LEVEL_BITS));
            let wanted = size >> (number as u32 * LEVEL_BITS);
            let file =
                private(OpenOptions::new().read(true).write(true).create(true)).open(&path)?;
            if file.metadata()?.len() < wanted * HASH_BYTES {
                let problem = format!("{} has fewer than {wanted} hashes", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
            }
            file.set_len(wanted * HASH_BYTES)?;
            *level = Level { file: Some(file), flushed: wanted, pending: Vec::new() };
        }
        let mut rest = size;
        while rest > 0 {
            let height = 63 - rest.leading_zeros();
            let start = size - rest;
            let hash = tree.node(height, start >> height).ok_or_else(|| unreadable(folder))?;
            tree.frontier.push_subtree(height, hash);
            rest -= 1 << height;
        }
        Ok(tree)
    }

    pub(crate) fn size(&self) -> u64 {
        self.frontier.size()
    }

    pub(crate) fn root(&self) -> Hash {
        self.frontier.root()
    }

    pub(crate) fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    /// Adds a leaf. It is in memory until [`Self::flush`].
    pub(crate) fn push(&mut self, leaf: Hash) {
        self.frontier.push(leaf);
        self.levels[0].push(leaf);
        let mut size = self.size();
        for number in 1..LEVELS {
            if !size.is_multiple_of(1 << LEVEL_BITS) {
                break;
            }
            size >>= LEVEL_BITS;
            let Some(hash) = self.node(number as u32 * LEVEL_BITS, size - 1) else { break };
            self.levels[number].push(hash);
        }
    }

    /// Writes what is in memory to the files.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.levels.iter_mut().try_for_each(Level::flush)
    }

    /// As [`Self::flush`], and waits for the disk.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        self.flush()?;
        self.levels.iter().filter_map(|level| level.file.as_ref()).try_for_each(File::sync_data)
    }

    /// Frees the space of the leaves before `first`. Larger subtrees remain.
    pub(crate) fn forget_leaves(&mut self, first: u64) {
        // The block of the first one remains whole.
        self.forgotten = first >> LEVEL_BITS << LEVEL_BITS;
        #[cfg(target_os = "linux")]
        if let Some(file) = self.levels[0].file.as_ref().filter(|_| self.forgotten > 0) {
            use rustix::fs::{FallocateFlags, fallocate};
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            // A file system that cannot do this keeps them.
            let _ = fallocate(file, flags, 0, self.forgotten * HASH_BYTES);
        }
    }

    /// The proof that the tree of the first `size` leaves continues the one of the first `old`
    /// ones. `None`: there are fewer, or they are not available any more.
    pub(crate) fn prove_consistency(&self, old: u64, size: u64) -> Option<Vec<Hash>> {
        if old > size || size > self.size() {
            return None;
        }
        consistency_ranges(old, size).into_iter().map(|range| self.range_root(range)).collect()
    }

    fn range_root(&self, (start, end): Range) -> Option<Hash> {
        let size = end - start;
        if size.is_power_of_two() {
            let height = size.trailing_zeros();
            return self.node(height, start >> height);
        }
        let middle = start + split(size);
        Some(Hash::of_node(self.range_root((start, middle))?, self.range_root((middle, end))?))
    }

    /// The root of the complete subtree number `index` of those with 2^`height` leaves.
    fn node(&self, height: u32, index: u64) -> Option<Hash> {
        // A stored level that does not have the node yet is computed from the one below.
        let stored = (height / LEVEL_BITS) as usize;
        if height < LEVEL_BITS && index << height < self.forgotten {
            return None;
        }
        let has_it = |number: usize| {
            let level = self.levels.get(number)?;
            let rest = height - number as u32 * LEVEL_BITS;
            let end = (index + 1) << rest;
            (end <= level.flushed + level.pending.len() as u64).then_some((level, rest))
        };
        let (level, rest) = has_it(stored).or_else(|| has_it(stored.checked_sub(1)?))?;
        let mut hashes = level.read(index << rest, 1 << rest)?;
        while hashes.len() > 1 {
            hashes = hashes.as_chunks().0.iter().map(|[a, b]| Hash::of_node(*a, *b)).collect();
        }
        hashes.first().copied()
    }
}

fn unreadable(folder: &Path) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the hashes in {} cannot be read", folder.display()),
    )
}

/// Options of a file that only this user may read, and that is no symbolic link.
pub(crate) fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
    }
    options
}

#[cfg(test)]
mod tests;
