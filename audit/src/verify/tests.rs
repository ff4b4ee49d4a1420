use std::fs;

use super::*;
use crate::testing::{TestLog, copy, exchange, line_files, problems, verified, written};

mod positions;

/// Changes the file of a small log, and expects a problem at this line.
fn check(folder: &Path, original: &[u8], changed: &[u8], line: u64, what: &str) {
    let [path] = &line_files(folder)[..] else { panic!("one file") };
    fs::write(path, changed).unwrap();
    let found = problems(folder);
    let place = format!("{}:{line}: ", path.display());
    assert!(found.iter().any(|problem| problem.starts_with(&place)), "{what}: {found:#?}");
    fs::write(path, original).unwrap();
}

/// The lines of a file with their newlines, and the numbers of the bytes at which they begin.
fn lines(bytes: &[u8]) -> Vec<&[u8]> {
    bytes.split_inclusive(|byte| *byte == b'\n').collect()
}

async fn small_log() -> (tempfile::TempDir, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path(), "a", &["one", "two", "three"]).await;
    let [path] = &line_files(folder.path())[..] else { panic!("one file") };
    let bytes = fs::read(path).unwrap();
    assert_eq!(lines(&bytes).len(), 6, "start, three events, stop, checkpoint");
    assert_eq!(problems(folder.path()), [""; 0]);
    (folder, bytes)
}

#[tokio::test]
async fn every_changed_byte_of_a_log_is_found_and_located() {
    let (folder, bytes) = small_log().await;
    let mut line = 1;
    for position in 0..bytes.len() {
        for bit in [1, 0x80] {
            let mut changed = bytes.clone();
            changed[position] ^= bit;
            // Without its newline the last line is incomplete; the one before is the last then.
            let at = if position + 1 == bytes.len() { 0 } else { line };
            if at > 0 {
                check(folder.path(), &bytes, &changed, at, &format!("byte {position}"));
            } else {
                let [path] = &line_files(folder.path())[..] else { panic!("one file") };
                fs::write(path, &changed).unwrap();
                assert!(problems(folder.path())[0].contains("it ends with 5 lines"));
            }
        }
        line += u64::from(bytes[position] == b'\n');
    }
}

#[tokio::test]
async fn every_changed_byte_of_the_latest_checkpoint_is_found() {
    let (folder, _) = small_log().await;
    let path = line_files(folder.path())[0].with_file_name("checkpoint");
    let note = fs::read(&path).unwrap();
    for position in 0..note.len() {
        let mut changed = note.clone();
        changed[position] ^= 1;
        fs::write(&path, &changed).unwrap();
        let found = problems(folder.path());
        assert!(found.iter().any(|it| it.starts_with(&path.display().to_string())), "{found:?}");
    }
}

#[tokio::test]
async fn dropped_swapped_added_and_repeated_lines_are_found_and_located() {
    let (folder, bytes) = small_log().await;
    let all = lines(&bytes);
    for at in 0..all.len() {
        let number = at as u64 + 1;
        let mut without = all.clone();
        without.remove(at);
        if number < all.len() as u64 {
            check(folder.path(), &bytes, &without.concat(), number, "dropped");
        }
        let mut twice = all.clone();
        twice.insert(at, all[at]);
        check(folder.path(), &bytes, &twice.concat(), number + 1, "repeated");
        let mut added = all.clone();
        added.insert(at, b"{}\n");
        check(folder.path(), &bytes, &added.concat(), number, "added");
        if number > 1 {
            let mut swapped = all.clone();
            swapped.swap(at, at - 1);
            check(folder.path(), &bytes, &swapped.concat(), number - 1, "swapped");
        }
    }
}

#[tokio::test]
async fn lines_that_are_removed_at_the_end_are_found() {
    let (folder, bytes) = small_log().await;
    let [path] = &line_files(folder.path())[..] else { panic!("one file") };
    for length in 1..bytes.len() {
        fs::write(path, &bytes[..length]).unwrap();
        let found = problems(folder.path()).join("\n");
        let is_found = found.contains("lines were removed at its end")
            || found.contains("no line names the key");
        assert!(is_found, "{length}: {found}");
    }
}

/// Who has the key of a replica can write any log in its name, but not into the logs of others.
#[tokio::test]
async fn a_tail_that_is_rewritten_with_the_replicas_own_key_is_found_by_what_others_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let (own, other) = (folder.path().join("own"), folder.path().join("other"));
    written(&own, "a", &["one", "two"]).await;
    let before = tempfile::tempdir().unwrap();
    copy(&own, before.path()).unwrap();
    let b = TestLog::open(&other, "b");
    b.write(&["b"]).await;
    written(&own, "a", &["the truth"]).await;
    let a = TestLog::open(&own, "a");
    a.write(&["more"]).await;
    a.log.checkpoint_now().await;
    exchange(&a, &b).await;
    a.stop().await;
    b.stop().await;
    assert_eq!(problems(folder.path()), [""; 0]);
    fs::remove_dir_all(&own).unwrap();
    // The attacker restores the log from before and writes another end, signed by the key of the
    // replica, as long as the true one.
    copy(before.path(), &own).unwrap();
    written(&own, "a", &["a lie"]).await;
    written(&own, "a", &["more"]).await;
    let alone = problems(&own);
    assert_eq!(alone, [""; 0], "the log alone is consistent");
    let found = problems(folder.path()).join("\n");
    assert!(found.contains("are not those that test/b/"), "{found}");
    assert!(found.contains("the log was rewritten after that"), "{found}");
}

/// With one replica no other one has recorded its log, but a receiver may have.
#[tokio::test]
async fn a_tail_that_is_rewritten_is_found_by_the_checkpoints_that_a_receiver_has_stored() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("own");
    written(&own, "a", &["one"]).await;
    let before = folder.path().join("before");
    copy(&own, &before).unwrap();
    written(&own, "a", &["the truth"]).await;
    let received = folder.path().join("received.jsonl");
    let lines = fs::read(&line_files(&own)[0]).unwrap();
    // It has something else too.
    fs::write(&received, [b"not a record\n", &lines[..]].concat()).unwrap();
    let verify = |received: &Path| {
        verify_with(std::slice::from_ref(&own), &[received.to_owned()], &[], |_| {}).unwrap()
    };
    let report = verify(&received).remove(0);
    assert_eq!(report.problems, [], "{report:#?}");
    assert_eq!(report.vouchers.len(), 1, "{report:#?}");
    assert!(report.vouchers[0].log.ends_with("received.jsonl"));
    fs::remove_dir_all(&own).unwrap();
    copy(&before, &own).unwrap();
    written(&own, "a", &["a lie"]).await;
    written(&own, "a", &["more"]).await;
    assert_eq!(problems(&own), [""; 0], "the log alone is consistent");
    let found = verify(&received).remove(0).problems;
    let text = format!("{found:#?}");
    assert!(text.contains("received.jsonl") && text.contains("was rewritten after that"), "{text}");
    let without = verify(Path::new("/dev/null")).remove(0).problems;
    assert_eq!(without, []);
}

#[tokio::test]
async fn a_report_says_which_lines_are_vouched_for_and_by_whom() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (TestLog::open(folder.path(), "a"), TestLog::open(folder.path(), "b"));
    a.write(&["one", "two", "three"]).await;
    b.write(&["four"]).await;
    a.log.checkpoint_now().await;
    b.log.checkpoint_now().await;
    exchange(&a, &b).await;
    a.write(&["five"]).await;
    a.stop().await;
    b.stop().await;
    let reports = verified(folder.path());
    let [a, b] = &reports[..] else { panic!("{reports:#?}") };
    assert_eq!((&a.problems[..], &b.problems[..]), (&[][..], &[][..]), "{reports:#?}");
    assert_eq!((a.vouchers[0].size, &a.vouchers[0].log), (5, &b.log));
    assert_eq!((b.vouchers[0].size, &b.vouchers[0].log), (3, &a.log));
    assert_eq!((a.signed, a.size), (a.size, 9), "{a:#?}");
}

#[tokio::test]
async fn a_log_that_is_signed_by_another_key_than_the_expected_one_is_a_problem() {
    let (folder, _) = small_log().await;
    let own: VerificationKey = verified(folder.path())[0].key.as_ref().unwrap().parse().unwrap();
    let other = crate::note::SigningKey::generate("other").unwrap().0.public().clone();
    for (keys, expected) in [(vec![own.clone(), other.clone()], 0), (vec![other], 1)] {
        let reports = verify(&[folder.path().to_owned()], &keys, |_| {}).unwrap();
        assert_eq!(reports[0].problems.len(), expected, "{reports:?}");
    }
}
