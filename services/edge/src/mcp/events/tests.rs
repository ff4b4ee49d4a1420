use std::pin::pin;

use futures::FutureExt as _;

use super::*;

fn bounds(events_max: usize, bytes_max: usize, retained_bytes_max: usize) -> Arc<BufferLimits> {
    let retained_bytes = AtomicUsize::new(0);
    Arc::new(BufferLimits { events_max, bytes_max, retained_bytes_max, retained_bytes })
}

fn resumable(bounds: &Arc<BufferLimits>) -> Arc<EventStream> {
    EventStream::new(bounds, Some(1))
}

/// Pushes an event, if the buffer has space.
fn push(stream: &EventStream, text: &'static str) -> bool {
    pin!(stream.push(Bytes::from_static(text.as_bytes()))).now_or_never().is_some()
}

fn finish(stream: &EventStream, text: &'static str) {
    stream.finish(StatusCode::OK, Bytes::from_static(text.as_bytes()), None);
}

/// The texts of all available events.
fn read_all(reader: &mut EventReader) -> Vec<String> {
    let mut found = Vec::new();
    loop {
        match reader.next() {
            ReadOutcome::Event(_, event) => {
                found.push(String::from_utf8_lossy(&event.message).into_owned());
            }
            ReadOutcome::Empty => return found,
            ReadOutcome::End => {
                found.push("end".to_owned());
                return found;
            }
        }
    }
}

#[tokio::test]
async fn a_response_is_one_message_unless_an_event_precedes_it() {
    let bounds = bounds(8, 100, 100);
    let single = EventStream::new(&bounds, None);
    finish(&single, "response");
    let ResponseStart::Complete(StatusCode::OK, response) = single.response_start(None).await
    else {
        panic!("a stream");
    };
    assert_eq!(response, "response");

    let streamed = EventStream::new(&bounds, None);
    assert!(push(&streamed, "progress"));
    finish(&streamed, "response");
    assert!(matches!(streamed.response_start(None).await, ResponseStart::Stream));
    assert_eq!(read_all(&mut streamed.open_reader(None).unwrap()), ["progress", "response", "end"]);

    let quiet = EventStream::new(&bounds, None);
    assert!(matches!(quiet.response_start(Some(Duration::ZERO)).await, ResponseStart::Stream));
}

#[test]
fn a_broken_stream_resumes_after_the_last_event_that_its_client_has() {
    let bounds = bounds(8, 100, 100);
    let stream = resumable(&bounds);
    let mut first = stream.open_reader(None).unwrap();
    assert!(push(&stream, "1") && push(&stream, "2"));
    assert_eq!(read_all(&mut first), ["1", "2"]);
    drop(first);
    assert!(push(&stream, "3"));
    finish(&stream, "response");
    assert_eq!(read_all(&mut stream.open_reader(Some(1)).unwrap()), ["2", "3", "response", "end"]);
    assert_eq!(read_all(&mut stream.open_reader(Some(4)).unwrap()), ["end"]);
    assert!(stream.open_reader(Some(5)).is_none(), "the stream never had this event");
}

#[test]
fn each_event_goes_to_the_newest_reader_alone() {
    let stream = resumable(&bounds(8, 100, 100));
    let (mut first, mut second) =
        (stream.open_reader(None).unwrap(), stream.open_reader(None).unwrap());
    assert!(push(&stream, "1"));
    assert!(read_all(&mut first).is_empty());
    assert_eq!(read_all(&mut second), ["1"]);
    drop(second);
    assert!(push(&stream, "2"));
    assert_eq!(read_all(&mut first), ["2"]);
}

#[tokio::test]
async fn a_buffer_is_bounded_in_events_and_bytes() {
    let bounds = bounds(2, 10, 100);
    let stream = resumable(&bounds);
    let reader = stream.open_reader(None).unwrap();
    assert!(push(&stream, "1") && push(&stream, "2"));
    assert!(!push(&stream, "3"), "a writer waits for a slow reader");
    drop(reader);
    assert!(push(&stream, "3"), "a writer without a reader does not wait");
    assert_eq!(read_all(&mut stream.open_reader(None).unwrap()), ["2", "3"]);
    finish(&stream, "a response that is larger than the bound");
    assert_eq!(
        read_all(&mut stream.open_reader(Some(3)).unwrap()),
        ["a response that is larger than the bound", "end"]
    );
    drop(stream);
    assert_eq!(bounds.retained_bytes.load(Ordering::Relaxed), 0);
}

#[test]
fn delivered_events_are_retained_only_for_resumable_streams_and_within_the_total_bound() {
    let bounds = bounds(8, 100, 5);
    for stream in [EventStream::new(&bounds, None), resumable(&bounds)] {
        let mut reader = stream.open_reader(None).unwrap();
        assert!(push(&stream, "123456"));
        assert_eq!(read_all(&mut reader), ["123456"]);
        assert_eq!(bounds.retained_bytes.load(Ordering::Relaxed), 0);
    }
}

#[test]
fn a_pending_change_is_not_repeated() {
    let stream = resumable(&bounds(8, 100, 100));
    let mut reader = stream.open_reader(None).unwrap();
    let changed = || StreamEvent::new(Bytes::from_static(b"changed"), None);
    stream.push_unless_pending(changed());
    stream.push_unless_pending(changed());
    assert_eq!(read_all(&mut reader), ["changed"]);
    stream.push_unless_pending(changed());
    assert_eq!(read_all(&mut reader), ["changed"]);
}

#[tokio::test]
async fn a_copy_uses_the_numbers_of_its_original_and_skips_gaps() {
    let bounds = bounds(8, 100, 100);
    let copy = EventStream::copy(&bounds, 1);
    let mut reader = copy.open_reader(None).unwrap();
    let event = || StreamEvent::new(Bytes::from_static(b"event"), None);
    let push = |number| pin!(copy.push_at(number, event())).now_or_never().is_some();
    assert!(push(7) && push(8));
    assert!(!push(12), "pending events come first");
    let number = |reader: &mut EventReader| match reader.next() {
        ReadOutcome::Event(number, _) => number,
        ReadOutcome::Empty | ReadOutcome::End => 0,
    };
    assert_eq!([number(&mut reader), number(&mut reader)], [7, 8]);
    assert!(push(12));
    assert!(push(7) && push(12), "duplicates are ignored");
    assert_eq!([number(&mut reader), number(&mut reader)], [12, 0]);
    assert_eq!(bounds.retained_bytes.load(Ordering::Relaxed), 0, "a copy retains nothing");
}
