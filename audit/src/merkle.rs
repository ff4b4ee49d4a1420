//! Merkle trees of RFC 6962: the hashes of leaves and nodes, roots, and proofs.

use std::fmt;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256};

/// A hash of a leaf, of a node or of a whole tree, written in Base64.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// The hash of a leaf (RFC 6962 section 2.1).
    #[must_use]
    pub fn of_leaf(data: &[u8]) -> Self {
        Self(Sha256::new().chain_update([0]).chain_update(data).finalize().into())
    }

    /// The hash of a node with two children.
    #[must_use]
    pub fn of_node(left: Self, right: Self) -> Self {
        Self(
            Sha256::new()
                .chain_update([1])
                .chain_update(left.0)
                .chain_update(right.0)
                .finalize()
                .into(),
        )
    }

    /// The root of the tree without leaves.
    #[must_use]
    pub fn of_nothing() -> Self {
        Self(Sha256::digest([]).into())
    }

    /// Parses the Base64 of a hash.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        BASE64_STANDARD.decode(text).ok()?.try_into().ok().map(Self)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&BASE64_STANDARD.encode(self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl Serialize for Hash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom("not the Base64 of 32 bytes"))
    }
}

/// The root of a growing range of leaves: the roots of its complete subtrees, each at most as high
/// as the one before. A few hundred bytes for any number of leaves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frontier(Vec<(u32, Hash)>);

impl Frontier {
    /// Adds the hash of the next leaf.
    pub fn push(&mut self, leaf: Hash) {
        self.push_subtree(0, leaf);
    }

    /// Adds a complete subtree of 2^`level` leaves. It must be aligned: no lower one is before it.
    pub(crate) fn push_subtree(&mut self, mut level: u32, mut hash: Hash) {
        while let Some(&(before, left)) = self.0.last().filter(|(before, _)| *before == level) {
            self.0.pop();
            (level, hash) = (before + 1, Hash::of_node(left, hash));
        }
        self.0.push((level, hash));
    }

    /// The number of leaves.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.0.iter().map(|(level, _)| 1 << level).sum()
    }

    /// The root.
    #[must_use]
    pub fn root(&self) -> Hash {
        let hashes = self.0.iter().map(|(_, hash)| *hash).rev();
        hashes.reduce(|right, left| Hash::of_node(left, right)).unwrap_or_else(Hash::of_nothing)
    }

    /// The complete subtrees: the number of the first leaf, the level and the root of each.
    pub(crate) fn subtrees(&self) -> impl Iterator<Item = (u64, u32, Hash)> {
        let mut start = 0;
        self.0.iter().map(move |(level, hash)| {
            let first = start;
            start += 1 << level;
            (first, *level, *hash)
        })
    }

    /// Whether it has the form of some number of leaves: a file may hold anything.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.0.is_sorted_by(|left, right| left.0 > right.0)
            && self.0.first().is_none_or(|(level, _)| *level < 63)
    }
}

/// A range of leaves: the first, and the one after the last.
pub(crate) type Range = (u64, u64);

/// Where RFC 6962 splits a tree of `size` > 1 leaves: the largest power of two below it.
pub(crate) fn split(size: u64) -> u64 {
    1 << (63 - (size - 1).leading_zeros())
}

/// The subtrees whose roots are the audit path of a leaf in a tree of `size` leaves, from the leaf
/// up (RFC 6962 section 2.1.1).
pub(crate) fn inclusion_ranges(index: u64, size: u64) -> Vec<Range> {
    let (mut start, mut end) = (0, size);
    let mut ranges = Vec::new();
    while end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            ranges.push((middle, end));
            end = middle;
        } else {
            ranges.push((start, middle));
            start = middle;
        }
    }
    ranges.reverse();
    ranges
}

/// The subtrees whose roots prove that the tree of `size` leaves continues the one of the first
/// `old` leaves (RFC 6962 section 2.1.2).
pub(crate) fn consistency_ranges(old: u64, size: u64) -> Vec<Range> {
    let (mut start, mut end) = (0, size);
    let mut ranges = Vec::new();
    if old == 0 || old >= size {
        return ranges;
    }
    while end != old {
        let middle = start + split(end - start);
        if old <= middle {
            ranges.push((middle, end));
            end = middle;
        } else {
            ranges.push((start, middle));
            start = middle;
        }
    }
    if start > 0 {
        ranges.push((start, end));
    }
    ranges.reverse();
    ranges
}

/// The root that an audit path leads to (RFC 9162 section 2.1.3.2). `None`: it has another length.
#[must_use]
pub fn root_of_inclusion(leaf: Hash, index: u64, size: u64, path: &[Hash]) -> Option<Hash> {
    let ranges = (index < size).then(|| inclusion_ranges(index, size))?;
    if ranges.len() != path.len() {
        return None;
    }
    let climb = |hash, ((start, _), sibling): (&Range, &Hash)| {
        if *start > index { Hash::of_node(hash, *sibling) } else { Hash::of_node(*sibling, hash) }
    };
    Some(ranges.iter().zip(path).fold(leaf, climb))
}

/// Whether a proof shows that the tree of `size` leaves with root `new` continues the one of `old`
/// leaves with root `old_root` (RFC 9162 section 2.1.4.2).
#[must_use]
pub fn is_consistent(old: u64, old_root: Hash, size: u64, new: Hash, proof: &[Hash]) -> bool {
    if old == 0 || old >= size {
        return proof.is_empty() && (old == 0 || (old == size && old_root == new));
    }
    let ranges = consistency_ranges(old, size);
    // A tree of a power of two is a node of the new one; the proof need not repeat it.
    let is_node = old.is_power_of_two();
    let hashes: Vec<Hash> = if is_node { [&[old_root], proof].concat() } else { proof.to_vec() };
    let ranges = if is_node { [&[(0, old)], &ranges[..]].concat() } else { ranges };
    if hashes.len() != ranges.len() {
        return false;
    }
    let (mut old_hash, mut new_hash) = (hashes[0], hashes[0]);
    for ((start, _), hash) in ranges.iter().zip(&hashes).skip(1) {
        if *start >= old {
            new_hash = Hash::of_node(new_hash, *hash);
        } else {
            old_hash = Hash::of_node(*hash, old_hash);
            new_hash = Hash::of_node(*hash, new_hash);
        }
    }
    old_hash == old_root && new_hash == new
}
