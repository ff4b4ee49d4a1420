//! Changes at any position of a log with several files.

use std::{path::PathBuf, sync::LazyLock};

use proptest::prelude::*;

use super::*;
use crate::{AuditConfig, AuditMode, testing::config};

/// The files of a log, with their lines.
type Files = Vec<(String, Vec<Vec<u8>>)>;

/// A log of some files, and what is beside its lines.
static LOG: LazyLock<(tempfile::TempDir, PathBuf, Files)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let small = AuditConfig {
        audit_file_bytes_max: 4 << 10,
        ..config(folder.path(), "a", AuditMode::Required)
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        for run in 0..3 {
            let log = TestLog::with(&small);
            for number in 0..20 {
                log.write(&[&format!("{run} {number}")]).await;
            }
            log.log.checkpoint_now().await;
            log.stop().await;
        }
    });
    let paths = line_files(folder.path());
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    let of =
        |path: &PathBuf| lines(&fs::read(path).unwrap()).iter().map(|it| it.to_vec()).collect();
    let files = paths.iter().map(|path| (name(path), of(path))).collect();
    let log = paths[0].parent().unwrap().file_name().unwrap().into();
    assert_eq!(problems(folder.path()), [""; 0]);
    (folder, log, files)
});

#[derive(Clone, Debug)]
enum Change {
    Byte(u8),
    Drop,
    Repeat,
    Add,
    SwapWith(prop::sample::Index),
    /// The rest of the file is removed, from here on.
    Truncate,
}

fn changes() -> impl Strategy<Value = Change> {
    prop_oneof![
        (1_u8..).prop_map(Change::Byte),
        Just(Change::Drop),
        Just(Change::Repeat),
        Just(Change::Add),
        any::<prop::sample::Index>().prop_map(Change::SwapWith),
        Just(Change::Truncate),
    ]
}

/// The file and the number from 0 of the line with this number in the log.
fn place_of(files: &Files, mut line: usize) -> (usize, usize) {
    for (file, (_, lines)) in files.iter().enumerate() {
        if line < lines.len() {
            return (file, line);
        }
        line -= lines.len();
    }
    panic!("no line {line}")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// A problem names a place that is no later than the line after the first change.
    #[test]
    fn a_change_at_any_position_is_found_and_located(
        at in any::<prop::sample::Index>(),
        byte in any::<prop::sample::Index>(),
        change in changes(),
    ) {
        let (folder, log, original) = &*LOG;
        let mut files = original.clone();
        let count: usize = files.iter().map(|(_, lines)| lines.len()).sum();
        let mut first = at.index(count);
        let (file, line) = place_of(&files, first);
        let here = files[file].1[line].clone();
        match change {
            Change::Byte(mask) => {
                let byte = byte.index(here.len());
                files[file].1[line][byte] ^= mask;
            }
            Change::Drop => drop(files[file].1.remove(line)),
            Change::Repeat => files[file].1.insert(line, here),
            Change::Add => files[file].1.insert(line, b"{}\n".to_vec()),
            Change::SwapWith(other) => {
                let other = other.index(count);
                prop_assume!(other != first);
                let (other_file, other_line) = place_of(&files, other);
                files[file].1[line] = std::mem::replace(&mut files[other_file].1[other_line], here);
                first = first.min(other);
            }
            Change::Truncate => files[file].1.truncate(line),
        }
        let changed = tempfile::tempdir().unwrap();
        copy(folder.path(), changed.path()).unwrap();
        for (name, lines) in &files {
            fs::write(changed.path().join(log).join(name), lines.concat()).unwrap();
        }
        let found = problems(changed.path());
        prop_assert!(!found.is_empty(), "nothing was found");
        let (file, line) = place_of(original, first);
        let path = |file: usize| {
            let folder = changed.path().join(log);
            original.get(file).map(|(name, _)| folder.join(name).display().to_string())
        };
        let here = path(file).unwrap();
        // Its line, the line after it, the next file, or the end of the log.
        let mut places = vec![format!("{here}:{}: ", line + 1), format!("{here}:{}: ", line + 2)];
        if line + 2 >= original[file].1.len() {
            places.extend(path(file + 1));
            places.push("test/a/".to_owned());
        }
        if matches!(change, Change::Truncate) {
            places.extend(path(file + 1));
            places.push("test/a/".to_owned());
        }
        let is_located = places.iter().any(|place| found.iter().any(|it| it.starts_with(place)));
        prop_assert!(is_located, "{places:?}: {found:#?}");
    }
}
