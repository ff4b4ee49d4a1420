use ct_merkle::{ConsistencyProof, InclusionProof, RootHash, mem_backed_tree::MemoryBackedTree};
use sha2_next::Sha256;

use super::*;
use crate::merkle::{is_consistent, root_of_inclusion};

/// More than two stored nodes of the second level.
const LEAVES: u64 = 1_300;

type Model = MemoryBackedTree<Sha256, Vec<u8>>;

fn leaf(number: u64) -> Vec<u8> {
    format!("line {number}").into_bytes()
}

fn hashes(bytes: &[u8]) -> Vec<Hash> {
    bytes.as_chunks().0.iter().map(|bytes| Hash(*bytes)).collect()
}

fn bytes(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}

fn model_root(model: &Model) -> Hash {
    Hash(model.root().as_bytes().as_slice().try_into().unwrap())
}

fn as_root(root: Hash, size: u64) -> RootHash<Sha256> {
    RootHash::new(root.0.into(), size)
}

#[test]
fn roots_and_proofs_are_those_of_rfc_6962() {
    let (mut tree, mut model, mut roots) = (Tree::in_memory(), Model::new(), Vec::new());
    for size in 0..LEAVES {
        let root = if size == 0 { Hash::of_nothing() } else { model_root(&model) };
        assert_eq!(tree.root(), root, "{size}");
        assert_eq!(tree.size(), size);
        roots.push(root);
        tree.push(Hash::of_leaf(&leaf(size)));
        model.push(leaf(size));
    }
    roots.push(tree.root());
    let last = as_root(tree.root(), LEAVES);
    for old in (1..LEAVES).filter(|old| old % 7 == 0 || old.is_power_of_two() || LEAVES - old < 9) {
        let proof = tree.prove_consistency(old, LEAVES).unwrap();
        let theirs = model.prove_consistency(usize::try_from(LEAVES - old).unwrap());
        assert_eq!(proof, hashes(theirs.as_bytes()), "{old}");
        let ours = ConsistencyProof::<Sha256>::try_from_bytes(bytes(&proof)).unwrap();
        let old_root = roots[usize::try_from(old).unwrap()];
        last.verify_consistency(&as_root(old_root, old), &ours).unwrap();
        assert!(is_consistent(old, old_root, LEAVES, tree.root(), &proof));
        for (other, size) in [(tree.root(), LEAVES), (old_root, old)] {
            assert!(!is_consistent(old, other, size, old_root, &proof), "{old}");
        }
        for number in 0..proof.len() {
            let mut changed = proof.clone();
            changed[number].0[5] ^= 1;
            assert!(!is_consistent(old, old_root, LEAVES, tree.root(), &changed), "{old}");
        }
    }
    for index in (0..LEAVES).filter(|index| index % 11 == 0 || LEAVES - index < 9) {
        let theirs = model.prove_inclusion(usize::try_from(index).unwrap());
        let path = hashes(theirs.as_bytes());
        let hash = Hash::of_leaf(&leaf(index));
        assert_eq!(root_of_inclusion(hash, index, LEAVES, &path), Some(tree.root()));
        assert_ne!(root_of_inclusion(hash, index ^ 1, LEAVES, &path), Some(tree.root()));
        let ranges = crate::merkle::inclusion_ranges(index, LEAVES);
        let ours: Vec<_> = ranges.iter().map(|range| tree.range_root(*range).unwrap()).collect();
        assert_eq!(ours, path);
        let ours = InclusionProof::<Sha256>::try_from_bytes(bytes(&ours)).unwrap();
        last.verify_inclusion(&leaf(index), index, &ours).unwrap();
    }
}

#[test]
fn an_earlier_tree_is_proven_while_more_leaves_come() {
    let mut tree = Tree::in_memory();
    let mut roots = vec![Hash::of_nothing()];
    for number in 0..600 {
        tree.push(Hash::of_leaf(&leaf(number)));
        roots.push(tree.root());
    }
    for (old, size) in [(0, 5), (3, 3), (255, 256), (255, 300), (256, 599), (300, 600)] {
        let proof = tree.prove_consistency(old, size).unwrap();
        let root = |size: u64| roots[usize::try_from(size).unwrap()];
        assert!(is_consistent(old, root(old), size, root(size), &proof), "{old} {size}");
    }
    assert_eq!(tree.prove_consistency(5, 601), None);
    assert_eq!(tree.prove_consistency(6, 5), None);
}

#[test]
fn a_tree_is_continued_from_its_files_at_any_size() {
    let folder = tempfile::tempdir().unwrap();
    let mut tree = Tree::open(folder.path(), 0).unwrap();
    let mut roots = vec![tree.root()];
    for number in 0..LEAVES {
        tree.push(Hash::of_leaf(&leaf(number)));
        roots.push(tree.root());
        if number % 100 == 0 {
            tree.flush().unwrap();
        }
    }
    tree.sync().unwrap();
    for size in [1300, 1299, 1025, 1024, 700, 513, 256, 255, 3, 0] {
        let tree = Tree::open(folder.path(), size).unwrap();
        assert_eq!(tree.root(), roots[usize::try_from(size).unwrap()], "{size}");
    }
    let error = Tree::open(folder.path(), 1).unwrap_err();
    assert!(error.to_string().contains("tree.0 has fewer than 1 hashes"), "{error}");
}

#[test]
fn proofs_do_not_read_leaves_that_were_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let mut tree = Tree::open(folder.path(), 0).unwrap();
    let mut roots = vec![tree.root()];
    for number in 0..LEAVES {
        tree.push(Hash::of_leaf(&leaf(number)));
        roots.push(tree.root());
    }
    tree.flush().unwrap();
    tree.forget_leaves(600);
    assert_eq!(tree.prove_consistency(300, LEAVES), None);
    for old in [600, 512, 1024] {
        let proof = tree.prove_consistency(old, LEAVES).unwrap();
        let old_root = roots[usize::try_from(old).unwrap()];
        assert!(is_consistent(old, old_root, LEAVES, tree.root(), &proof), "{old}");
    }
}
