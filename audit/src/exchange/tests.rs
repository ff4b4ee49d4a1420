use std::collections::BTreeMap;

use super::*;
use crate::testing::{TestLog, copy, exchange, verified, written};
use crate::{Checkpoint, Hash, note::SigningKey, peers::UNPROVEN_MAX};

fn anchors(log: &TestLog) -> BTreeMap<String, u64> {
    log.log.offer().seen
}

#[tokio::test]
async fn replicas_record_the_checkpoints_of_one_another_with_proofs_that_they_only_grew() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (TestLog::open(folder.path(), "a"), TestLog::open(folder.path(), "b"));
    for round in 1..=4 {
        a.write(&["a"; 3]).await;
        b.write(&["b"]).await;
        a.log.checkpoint_now().await;
        b.log.checkpoint_now().await;
        exchange(&a, &b).await;
        exchange(&a, &b).await;
        assert_eq!((anchors(&a).len(), anchors(&b).len()), (1, 1), "{round}");
    }
    a.stop().await;
    b.stop().await;
    let paths = [folder.path().to_owned()];
    let records = crate::read::records(&paths).unwrap().map(|item| match item.unwrap() {
        crate::read::Item::Record(record) => *record,
        crate::read::Item::Torn { place } => panic!("{place}"),
    });
    let anchors = records.filter_map(|record| match record.event {
        Event::Anchor(anchor) => Some(anchor),
        _ => None,
    });
    let anchors: Vec<_> = anchors.collect();
    assert!(anchors.iter().all(|anchor| anchor.problem.is_empty()), "{anchors:#?}");
    let proven = anchors.iter().filter(|anchor| anchor.since.is_some()).count();
    assert_eq!((anchors.len(), proven), (8, 6), "{anchors:#?}");
    assert!(verified(folder.path()).iter().all(|report| report.problems.is_empty()));
}

/// A replica that was restored from a snapshot has another log than the one that its peer knows.
#[tokio::test]
async fn a_replica_that_was_rolled_back_is_found_by_its_peer() {
    let folder = tempfile::tempdir().unwrap();
    let (own, old) = (folder.path().join("a"), folder.path().join("snapshot"));
    written(&own, "a", &["one"]).await;
    copy(&own, &old).unwrap();
    let b = TestLog::open(&folder.path().join("b"), "b");
    let a = TestLog::open(&own, "a");
    a.write(&["two", "three"]).await;
    a.log.checkpoint_now().await;
    exchange(&b, &a).await;
    a.stop().await;
    std::fs::remove_dir_all(&own).unwrap();
    std::fs::rename(&old, &own).unwrap();
    let a = TestLog::open(&own, "a");
    a.write(&["another two", "another three", "more"]).await;
    a.log.checkpoint_now().await;
    for _ in 0..=UNPROVEN_MAX {
        exchange(&b, &a).await;
    }
    a.stop().await;
    b.stop().await;
    let found = verified(folder.path());
    let problems: Vec<_> = found.iter().flat_map(|report| &report.problems).collect();
    let text = format!("{problems:#?}");
    assert!(text.contains("lines were changed"), "the peer has recorded it: {text}");
    assert!(text.contains("the log was rewritten after that"), "{text}");
}

#[tokio::test]
async fn a_checkpoint_that_its_key_did_not_sign_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (TestLog::open(folder.path(), "a"), TestLog::open(folder.path(), "b"));
    for log in [&a, &b] {
        log.write(&["one"]).await;
        log.log.checkpoint_now().await;
    }
    let (offer, other) = (a.log.offer(), b.log.offer());
    let stolen = PeerMessage { key: other.key, ..offer.clone() };
    assert!(b.log.receive(&stolen).unwrap_err().contains("is not signed by the key"));
    let changed = offer.checkpoint.as_ref().unwrap().replacen("\n3\n", "\n4\n", 1);
    let changed = PeerMessage { checkpoint: Some(changed), ..offer.clone() };
    assert!(b.log.receive(&changed).unwrap_err().contains("was changed after it was signed"));
    assert_eq!(anchors(&b).len(), 0);
    b.log.receive(&offer).unwrap();
    b.log.receive(&b.log.offer()).unwrap();
    assert_eq!(anchors(&b).len(), 1, "its own log is not one of the others");
}

/// An accepted peer that was taken over cannot displace what is known of another replica's log.
#[tokio::test]
async fn a_checkpoint_in_the_name_of_another_log_is_recorded_once_and_replaces_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (TestLog::open(folder.path(), "a"), TestLog::open(folder.path(), "b"));
    a.write(&["one"]).await;
    a.log.checkpoint_now().await;
    exchange(&a, &b).await;
    let offer = a.log.offer();
    let origin = Checkpoint::peek(offer.checkpoint.as_ref().unwrap()).unwrap().origin;
    let (key, _) = SigningKey::generate(&origin).unwrap();
    let forged = Checkpoint { origin, size: 1_000, root: Hash::of_nothing() }.sign(&key).unwrap();
    let forged = PeerMessage {
        key: key.public().to_string(),
        checkpoint: Some(forged),
        ..PeerMessage::default()
    };
    for _ in 0..3 {
        b.log.receive(&forged).unwrap();
    }
    assert_eq!(b.log.offer().seen.values().copied().collect::<Vec<_>>(), [3]);
    a.write(&["two"]).await;
    a.log.checkpoint_now().await;
    exchange(&a, &b).await;
    a.stop().await;
    b.stop().await;
    let reports = verified(folder.path());
    let problems: Vec<_> = reports.iter().flat_map(|report| &report.problems).collect();
    let wrong = problems.iter().filter(|it| it.problem.contains("its key is another one")).count();
    assert_eq!(wrong, 1, "{problems:#?}");
    assert_eq!(reports[0].vouchers[0].size, 5, "{reports:#?}");
}
