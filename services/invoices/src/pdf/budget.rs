//! What reading one PDF may cost. `lopdf` bounds what a single stream inflates to; here stands what all of a file may come to:
//! cross-references, object streams and objects that lie within one another make much of little.

use std::{
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    time::Duration,
};

use drawbridge_sdk::Cancellation;
use lopdf::{LoadOptions, Object, ObjectId};

use crate::error::InvoiceError;

/// How much one object stream or cross-reference stream may hold, and all object streams together, in bytes.
const STREAM_BYTES_MAX: usize = 1024 * 1024;
const OBJECT_STREAMS_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Values in all objects together.
const VALUES_MAX: usize = 1_000_000;
/// Sections of cross-references.
const SECTIONS_MAX: usize = 8;
/// How far before and after an escape the name is looked at that it is in.
const NAME_BYTES_MAX: usize = 24;
/// Escapes in names between two checks of the time.
const ESCAPES_PER_CHECK: usize = 1024;
const TIME: Duration = Duration::from_secs(10);

thread_local! {
    static LEFT: Cell<Left> = const { Cell::new(Left { values: 0, object_stream_bytes: 0 }) };
    static WAITING: RefCell<Option<Cancellation>> = const { RefCell::new(None) };
}

/// What is left of it.
#[derive(Clone, Copy)]
struct Left {
    values: usize,
    object_stream_bytes: usize,
}

/// It was used up, or nobody waits any more.
struct Ended;

/// Reads a PDF with `read`, which loads it with the options that it is given. A panic is an error too.
///
/// # Errors
/// Those of `read`, when it costs more than it may, and when nobody waits any more.
pub(super) fn within<T>(
    pdf: &[u8],
    cancellation: &Cancellation,
    read: impl FnOnce(LoadOptions) -> Result<T, InvoiceError>,
) -> Result<T, InvoiceError> {
    let used_up = || InvoiceError::document("is a PDF that holds more than an invoice does");
    LEFT.set(Left { values: VALUES_MAX, object_stream_bytes: OBJECT_STREAMS_BYTES_MAX });
    WAITING.set(Some(cancellation.within(TIME)));
    let options = LoadOptions {
        max_decompressed_size: Some(STREAM_BYTES_MAX),
        filter: Some(account),
        ..LoadOptions::default()
    };
    let done = catch_unwind(AssertUnwindSafe(|| {
        check_time();
        if sections(pdf) > SECTIONS_MAX {
            return Err(used_up());
        }
        read(options)
    }));
    WAITING.set(None);
    match done {
        Ok(done) => done,
        Err(cause) if cause.is::<Ended>() => {
            cancellation.check()?;
            Err(used_up())
        }
        Err(_) => Err(InvoiceError::document("is a PDF that cannot be read")),
    }
}

/// Stops the reading when the time is over or nobody waits any more.
pub(super) fn check_time() {
    if WAITING.with_borrow(|waiting| waiting.as_ref().is_some_and(|waiting| waiting.check().is_err())) {
        // Unlike a panic, this says nothing in the log.
        resume_unwind(Box::new(Ended));
    }
}

/// Sees each object as it is loaded, an object stream before it is unpacked.
fn account(id: ObjectId, object: &mut Object) -> Option<(ObjectId, Object)> {
    check_time();
    let left = LEFT.get();
    let unpacked = match object {
        Object::Stream(stream) if stream.dict.has_type(b"ObjStm") => {
            // What cannot be unpacked now cannot be later.
            let content =
                stream.decompressed_content_with_limit(left.object_stream_bytes.min(STREAM_BYTES_MAX));
            content.map_or(usize::MAX, |content| content.len())
        }
        _ => 0,
    };
    let spent = (left.values.checked_sub(values(object)), left.object_stream_bytes.checked_sub(unpacked));
    let (Some(values), Some(object_stream_bytes)) = spent else { resume_unwind(Box::new(Ended)) };
    LEFT.set(Left { values, object_stream_bytes });
    Some((id, object.clone()))
}

/// How many values an object is made of.
fn values(object: &Object) -> usize {
    match object {
        Object::Array(items) => 1 + items.iter().map(values).sum::<usize>(),
        Object::Dictionary(fields) => 1 + fields.iter().map(|(_, value)| 1 + values(value)).sum::<usize>(),
        Object::Stream(stream) => 1 + stream.dict.iter().map(|(_, value)| 1 + values(value)).sum::<usize>(),
        _ => 1,
    }
}

/// How often a file refers to another section of cross-references. A name that is written with `#` counts: such names
/// are not written so but to hide.
fn sections(pdf: &[u8]) -> usize {
    let plain = |name: &[u8]| memchr::memmem::find_iter(pdf, name).count();
    let hidden = memchr::memchr_iter(b'#', pdf).enumerate().filter(|(number, at)| {
        if number.is_multiple_of(ESCAPES_PER_CHECK) {
            check_time();
        }
        let from = at.saturating_sub(NAME_BYTES_MAX);
        let Some(start) = memchr::memrchr(b'/', &pdf[from..*at]) else { return false };
        let end = (*at + NAME_BYTES_MAX).min(pdf.len());
        let name = unescaped(&pdf[from + start..end]);
        ["Prev", "XRefStm"].iter().any(|section| name.starts_with(section.as_bytes()))
    });
    plain(b"/Prev") + plain(b"/XRefStm") + hidden.count()
}

/// A name without its `#` escapes, and without the slash before it.
fn unescaped(name: &[u8]) -> Vec<u8> {
    let mut rest = name.strip_prefix(b"/").unwrap_or(name);
    let mut plain = Vec::new();
    while let [first, after @ ..] = rest {
        let code =
            after.get(..2).and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        match (first, code) {
            (b'#', Some(code)) => {
                plain.push(code);
                rest = &after[2..];
            }
            _ => {
                plain.push(*first);
                rest = after;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio_util::sync::CancellationToken;

    use super::*;

    #[test]
    fn sections_are_counted_however_they_are_written() {
        assert_eq!(sections(b"<</Prev 1>> <</Pr#65v 1>> <</#50#72#65#76 1>> /Arial#20Bold"), 2 + 4);
    }
    /// Each escape was searched for its name back to the beginning of the file: minutes for a few MiB.
    #[test]
    fn a_file_of_escapes_alone_is_searched_once() {
        let pdf = [b"%PDF-1.7\n".as_slice(), &vec![b'#'; 3 * 1024 * 1024]].concat();
        assert_eq!(sections(&pdf), 0);
    }

    #[test]
    fn a_file_is_given_up_before_its_sections_are_counted_when_nobody_waits() {
        let pdf = [b"%PDF-1.7\n".as_slice(), &vec![b'#'; 1024]].concat();
        let passed = Cancellation::new(CancellationToken::new(), Instant::now());
        let read = within(&pdf, &passed, |_| Ok(()));
        assert!(matches!(read, Err(InvoiceError::DeadlinePassed)), "{read:?}");
    }

    /// A search that has begun ends too.
    #[test]
    fn the_time_is_checked_while_sections_are_counted() {
        WAITING.set(Some(Cancellation::new(CancellationToken::new(), Instant::now())));
        let ended = catch_unwind(|| sections(b"/a#20b"));
        WAITING.set(None);
        assert!(ended.is_err_and(|cause| cause.is::<Ended>()));
    }
}
