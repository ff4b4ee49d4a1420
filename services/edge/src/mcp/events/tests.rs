use std::pin::pin;

use futures::FutureExt as _;

use super::*;

fn bounds(events_max: usize, bytes_max: usize, retained_bytes_max: usize) -> Arc<Bounds> {
    let retained_bytes = AtomicUsize::new(0);
    Arc::new(Bounds { events_max, bytes_max, retained_bytes_max, retained_bytes })
}

fn resumable(bounds: &Arc<Bounds>) -> Arc<EventStream> {
    EventStream::new(bounds, Some(1))
}

/// Pushes, where there is room.
fn push(stream: &EventStream, text: &'static str) -> bool {
    pin!(stream.push(Bytes::from_static(text.as_bytes()))).now_or_never().is_some()
}

fn finish(stream: &EventStream, text: &'static str) {
    stream.finish(StatusCode::OK, Bytes::from_static(text.as_bytes()), None);
}

/// What a reader finds now.
fn all(reader: &mut Reader) -> Vec<String> {
    let mut found = Vec::new();
    loop {
        match reader.next() {
            Next::Event(_, event) => {
                found.push(String::from_utf8_lossy(&event.message).into_owned())
            }
            Next::Nothing => return found,
            Next::End => {
                found.push("end".to_owned());
                return found;
            }
        }
    }
}

#[tokio::test]
async fn an_answer_alone_is_whole_and_anything_before_it_makes_a_stream() {
    let bounds = bounds(8, 100, 100);
    let alone = EventStream::new(&bounds, None);
    finish(&alone, "answer");
    assert!(
        matches!(alone.opening(None).await, Opening::Whole(StatusCode::OK, answer) if answer == "answer")
    );

    let told = EventStream::new(&bounds, None);
    assert!(push(&told, "progress"));
    finish(&told, "answer");
    assert!(matches!(told.opening(None).await, Opening::Stream));
    assert_eq!(all(&mut told.read(None).unwrap()), ["progress", "answer", "end"]);

    let quiet = EventStream::new(&bounds, None);
    assert!(matches!(quiet.opening(Some(Duration::ZERO)).await, Opening::Stream));
}

#[test]
fn a_broken_stream_is_taken_up_again_after_the_last_event_that_its_client_has() {
    let bounds = bounds(8, 100, 100);
    let stream = resumable(&bounds);
    let mut first = stream.read(None).unwrap();
    assert!(push(&stream, "1") && push(&stream, "2"));
    assert_eq!(all(&mut first), ["1", "2"]);
    drop(first);
    assert!(push(&stream, "3"));
    finish(&stream, "answer");
    assert_eq!(all(&mut stream.read(Some(1)).unwrap()), ["2", "3", "answer", "end"]);
    assert_eq!(all(&mut stream.read(Some(4)).unwrap()), ["end"]);
    assert!(stream.read(Some(5)).is_none(), "there never was such an event");
}

#[test]
fn each_event_goes_to_one_reader_which_is_the_newest() {
    let stream = resumable(&bounds(8, 100, 100));
    let (mut first, mut second) = (stream.read(None).unwrap(), stream.read(None).unwrap());
    assert!(push(&stream, "1"));
    assert!(all(&mut first).is_empty());
    assert_eq!(all(&mut second), ["1"]);
    drop(second);
    assert!(push(&stream, "2"));
    assert_eq!(all(&mut first), ["2"]);
}

#[tokio::test]
async fn a_buffer_is_bounded_in_events_and_bytes() {
    let bounds = bounds(2, 10, 100);
    let stream = resumable(&bounds);
    let reader = stream.read(None).unwrap();
    assert!(push(&stream, "1") && push(&stream, "2"));
    assert!(!push(&stream, "3"), "who reads slowly is waited for");
    drop(reader);
    assert!(push(&stream, "3"), "for nobody nothing waits");
    assert_eq!(all(&mut stream.read(None).unwrap()), ["2", "3"]);
    finish(&stream, "an answer that is larger than all");
    assert_eq!(
        all(&mut stream.read(Some(3)).unwrap()),
        ["an answer that is larger than all", "end"]
    );
    drop(stream);
    assert_eq!(bounds.retained_bytes.load(Ordering::Relaxed), 0);
}

#[test]
fn what_was_delivered_is_retained_only_for_whom_may_come_back_and_while_there_is_room_in_all() {
    let bounds = bounds(8, 100, 5);
    for stream in [EventStream::new(&bounds, None), resumable(&bounds)] {
        let mut reader = stream.read(None).unwrap();
        assert!(push(&stream, "123456"));
        assert_eq!(all(&mut reader), ["123456"]);
        assert_eq!(bounds.retained_bytes.load(Ordering::Relaxed), 0);
    }
}

#[test]
fn a_change_that_waits_to_be_read_is_not_repeated() {
    let stream = resumable(&bounds(8, 100, 100));
    let mut reader = stream.read(None).unwrap();
    let changed = || Event::new(Bytes::from_static(b"changed"), None);
    stream.push_now(changed());
    stream.push_now(changed());
    assert_eq!(all(&mut reader), ["changed"]);
    stream.push_now(changed());
    assert_eq!(all(&mut reader), ["changed"]);
}

#[tokio::test]
async fn a_copy_has_the_numbers_of_its_original_and_skips_what_is_missing_there() {
    let bounds = bounds(8, 100, 100);
    let copy = EventStream::copy(&bounds, 1);
    let mut reader = copy.read(None).unwrap();
    let event = || Event::new(Bytes::from_static(b"event"), None);
    let push = |number| pin!(copy.push_at(number, event())).now_or_never().is_some();
    assert!(push(7) && push(8));
    assert!(!push(12), "events that wait come first");
    let number = |reader: &mut Reader| match reader.next() {
        Next::Event(number, _) => number,
        Next::Nothing | Next::End => 0,
    };
    assert_eq!([number(&mut reader), number(&mut reader)], [7, 8]);
    assert!(push(12));
    assert!(push(7) && push(12), "what arrives twice is passed over");
    assert_eq!([number(&mut reader), number(&mut reader)], [12, 0]);
    assert_eq!(bounds.retained_bytes.load(Ordering::Relaxed), 0, "a copy retains nothing");
}
