use drawbridge_runtime::error_chain;
use proptest::prelude::*;

use super::*;

fn bundle(files: &[(&str, &str)]) -> Bundle {
    let mut bundle = Bundle::default();
    for (name, text) in files {
        bundle.add(name, (*text).to_owned()).unwrap();
    }
    bundle
}

fn gzip(tar: &[u8]) -> Vec<u8> {
    let mut gzip = GzBuilder::new().write(Vec::new(), Compression::fast());
    gzip.write_all(tar).unwrap();
    gzip.finish().unwrap()
}

/// A tar with one entry, whose header `change` has changed, after a policy.
fn tar(change: impl FnOnce(&mut Header), content: &[u8]) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::Regular);
    header.set_size(7);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_path("a.cedar").unwrap();
    header.set_cksum();
    tar.append(&header, &b"policy\n"[..]).unwrap();
    header.set_path("b.cedar").unwrap();
    header.set_size(content.len() as u64);
    change(&mut header);
    header.set_cksum();
    tar.append(&header, content).unwrap();
    tar.into_inner().unwrap()
}

fn refused(packed: &[u8]) -> String {
    error_chain(&Bundle::unpack(packed).unwrap_err())
}

#[test]
fn the_same_files_are_the_same_bytes_and_come_back() {
    let files = [("a.cedar", "one"), ("tests/a.json", "[]"), ("catalog/a.entities.json", "[]")];
    let reversed: Vec<_> = files.into_iter().rev().collect();
    let (one, other) = (bundle(&files), bundle(&reversed));
    assert_eq!(one.pack().unwrap(), other.pack().unwrap());
    assert_eq!(Bundle::unpack(&one.pack().unwrap()).unwrap(), one);
    assert_eq!(Bundle::unpack(&Bundle::default().pack().unwrap()).unwrap(), Bundle::default());
}

#[test]
fn only_names_of_policy_files_belong_into_a_bundle() {
    for name in ["mcp.cedarschema", "a-b_1.2.cedar", "catalog/a.cedarschema", "entities/a.json"] {
        assert!(FileKind::of(name).is_some(), "{name}");
    }
    for name in [
        "",
        ".cedar",
        "._a.cedar",
        ".hidden.cedar",
        "a.txt",
        "catalog.lock",
        "/a.cedar",
        "../a.cedar",
        "./a.cedar",
        "sub/a.cedar",
        "catalog/../a.cedar",
        "catalog/sub/a.cedarschema",
        "catalog/._a.entities.json",
        "tests/a.cedar",
        "tests\\a.json",
        "a b.cedar",
        "a\n.cedar",
        "é.cedar",
        "C:a.cedar",
        &format!("{}.cedar", "a".repeat(95)),
    ] {
        assert_eq!(FileKind::of(name), None, "{name}");
    }
}

#[test]
fn a_tar_with_tricks_is_refused_with_the_entry_and_the_reason() {
    let raw_name = |name: &'static str| {
        move |header: &mut Header| {
            header.as_mut_bytes()[..100].fill(0);
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        }
    };
    let check = |tar: Vec<u8>, wanted: &str| {
        let error = refused(&gzip(&tar));
        assert!(error.contains(wanted), "{wanted}: {error}");
    };
    for name in ["../b.cedar", "/etc/b.cedar", "._b.cedar", "catalog/../b.cedar", "b.cedar/"] {
        check(tar(raw_name(name), b""), "does not belong into a bundle");
    }
    let kind = |kind| move |header: &mut Header| header.set_entry_type(kind);
    check(tar(kind(EntryType::Directory), b""), r#""b.cedar" is a folder"#);
    check(tar(kind(EntryType::Link), b""), "is a hard link");
    check(tar(kind(EntryType::Fifo), b""), "is a special file");
    check(tar(kind(EntryType::XHeader), b"20 path=../b.cedar\n"), "an extension of the tar");
    check(tar(kind(EntryType::GNULongName), b"../b.cedar"), "an extension of the tar");
    let link = |header: &mut Header| {
        header.set_entry_type(EntryType::Symlink);
        header.set_link_name("/etc/passwd").unwrap();
    };
    check(tar(link, b""), "is a symbolic link");
    check(tar(|_| {}, b"\xff"), "invalid utf-8");
    // Each of these has the right files, but could have others for another reader.
    check(tar(raw_name("a.cedar"), b"again"), "not as `drawbridge policy bundle` writes it");
    check(tar(|header| header.set_mtime(1), b""), "not as `drawbridge");
    check(tar(|header| header.set_mode(0o755), b""), "not as `drawbridge");
    let good = tar(|_| {}, b"text");
    Bundle::unpack(&gzip(&good)).unwrap();
    check([&good[..], b"more"].concat(), "not as `drawbridge");
    check([&good[..], &good].concat(), "not as `drawbridge");
    check(good[..700].to_vec(), "is not a tar");
    check(good[..good.len() - 512].to_vec(), "not as `drawbridge");
    let packed = gzip(&good);
    assert!(refused(&[&packed[..], b"more"].concat()).contains("not as `drawbridge"));
    assert!(refused(&[&packed[..], &packed].concat()).contains("not as `drawbridge"));
    assert!(refused(&packed[..packed.len() - 4]).contains("cannot be decompressed"));
    assert!(refused(b"not gzip").contains("cannot be decompressed"));
}

#[test]
fn a_bundle_is_bounded_packed_unpacked_and_in_files() {
    // 40 MiB in less than 1 MiB.
    let bomb = gzip(&vec![0; 40 * 1024 * 1024]);
    assert!(bomb.len() < 1024 * 1024);
    assert!(refused(&bomb).contains("more than 33554432 bytes"));
    assert!(refused(&vec![0; BUNDLE_BYTES_MAX + 1]).contains("of at most 33554432"));
    let huge = |header: &mut Header| header.set_size(u64::MAX / 8);
    assert!(!refused(&gzip(&tar(huge, b""))).is_empty());
    let large = " ".repeat(15 * 1024 * 1024);
    let large = bundle(&[("a.cedar", &large), ("b.cedar", &large), ("c.cedar", &large)]);
    assert!(matches!(large.pack(), Err(ArchiveError::TooLarge { .. })));
    let mut many = Bundle::default();
    for number in 0..FILES_MAX {
        many.add(&format!("{number}.cedar"), String::new()).unwrap();
    }
    let one_more = many.add("more.cedar", String::new());
    assert!(matches!(one_more, Err(ArchiveError::Files)), "{one_more:?}");
}

proptest! {
    #[test]
    fn no_bytes_crash_the_reader_and_what_it_accepts_has_one_form(
        bytes: Vec<u8>,
        at: prop::sample::Index,
        byte: u8,
    ) {
        let _ = Bundle::unpack(&bytes);
        let _ = Bundle::unpack(&gzip(&bytes));
        let files = [("a.cedar", "one"), ("tests/a.json", "[]")];
        let mut changed = Vec::new();
        bundle(&files).write_tar(&mut changed).unwrap();
        let at = at.index(changed.len());
        changed[at] = byte;
        if let Ok(read) = Bundle::unpack(&gzip(&changed)) {
            let mut written = Vec::new();
            read.write_tar(&mut written).unwrap();
            prop_assert_eq!(written, changed);
            prop_assert!(read.files.keys().all(|name| FileKind::of(name).is_some()));
        }
    }
}
