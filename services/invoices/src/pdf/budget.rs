//! What reading one PDF may cost. `lopdf` bounds what a single stream inflates to; here stands what all of a file may come to:
//! cross-references, object streams and objects that lie within one another make much of little.

use std::{
    cell::{Cell, RefCell},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{Mutex, MutexGuard, TryLockError},
    thread,
    time::Duration,
};

use drawbridge_sdk::Cancellation;
use lopdf::{LoadOptions, Object, ObjectId, Stream};

use crate::error::InvoiceError;

/// How much one object stream or cross-reference stream may hold, and all object streams together, in bytes.
const STREAM_BYTES_MAX: usize = 1024 * 1024;
const OBJECT_STREAMS_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Values in all objects together.
const VALUES_MAX: usize = 1_000_000;
/// Sections of cross-references: each save of a file that keeps the earlier ones adds one or two.
const SECTIONS_MAX: usize = 16;
/// How far before and after an escape the name is looked at that it is in.
const NAME_BYTES_MAX: usize = 24;
/// Escapes in names between two checks of the time.
const ESCAPES_PER_CHECK: usize = 1024;
const TIME: Duration = Duration::from_secs(10);
/// The type of an object stream that is not to be unpacked yet.
pub(super) const HIDDEN_OBJECT_STREAM: &[u8] = b"ObjSt_";

/// One at a time, for what a hostile file makes of memory.
static ONE: Mutex<()> = Mutex::new(());
/// How often a file that waits for another looks whether its caller does, too.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

thread_local! {
    static KEEPS_OBJECT_STREAMS: Cell<bool> = const { Cell::new(false) };
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
    let _one = lock(cancellation)?;
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
        if escaped(pdf, &["Encrypt"]) > 0 {
            return Err(InvoiceError::document("is a PDF that hides that it is encrypted"));
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

/// The standard mutex knows no deadline.
fn lock(cancellation: &Cancellation) -> Result<MutexGuard<'static, ()>, InvoiceError> {
    loop {
        match ONE.try_lock() {
            Ok(guard) => return Ok(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => thread::sleep(POLL_INTERVAL),
        }
        cancellation.check()?;
    }
}

/// Loads a file whose object streams cannot be unpacked while it is loaded: they are kept as
/// streams of the type [`HIDDEN_OBJECT_STREAM`].
pub(super) fn keep_object_streams<T>(load: impl FnOnce() -> T) -> T {
    /// A load that panics keeps nothing for the next.
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            KEEPS_OBJECT_STREAMS.set(false);
        }
    }
    KEEPS_OBJECT_STREAMS.set(true);
    let _reset = Reset;
    load()
}

/// Stops the reading when the time is over or nobody waits any more.
pub(super) fn check_time() {
    if WAITING
        .with_borrow(|waiting| waiting.as_ref().is_some_and(|waiting| waiting.check().is_err()))
    {
        end();
    }
}

/// Sees each object as it is loaded, an object stream before it is unpacked.
fn account(id: ObjectId, object: &mut Object) -> Option<(ObjectId, Object)> {
    check_time();
    if let Object::Stream(stream) = object
        && stream.dict.has_type(b"ObjStm")
    {
        if KEEPS_OBJECT_STREAMS.get() {
            stream.dict.set("Type", Object::Name(HIDDEN_OBJECT_STREAM.to_vec()));
        } else {
            object_stream(stream);
        }
    }
    spend(object);
    Some((id, object.clone()))
}

/// Counts what an object stream unpacks to, and says how much that is in bytes. None: it cannot be
/// unpacked.
pub(super) fn object_stream(stream: &Stream) -> Option<usize> {
    check_time();
    let mut left = LEFT.get();
    let limit = left.object_stream_bytes.min(STREAM_BYTES_MAX);
    let unpacked = match stream.decompressed_content_with_limit(limit) {
        Ok(content) => content.len(),
        Err(lopdf::Error::Decompress(lopdf::DecompressError::MemoryLimitExceeded { .. })) => end(),
        Err(_) => return None,
    };
    left.object_stream_bytes -= unpacked;
    LEFT.set(left);
    Some(unpacked)
}

/// Counts the values of an object.
pub(super) fn spend(object: &Object) {
    let mut left = LEFT.get();
    let Some(values) = left.values.checked_sub(values(object)) else { end() };
    left.values = values;
    LEFT.set(left);
}

/// Unlike a panic, this says nothing in the log.
fn end() -> ! {
    resume_unwind(Box::new(Ended))
}

/// How many values an object is made of.
fn values(object: &Object) -> usize {
    match object {
        Object::Array(items) => 1 + items.iter().map(values).sum::<usize>(),
        Object::Dictionary(fields) => {
            1 + fields.iter().map(|(_, value)| 1 + values(value)).sum::<usize>()
        }
        Object::Stream(stream) => {
            1 + stream.dict.iter().map(|(_, value)| 1 + values(value)).sum::<usize>()
        }
        _ => 1,
    }
}

/// How often a file refers to another section of cross-references, by its place. In other
/// dictionaries, such as those of bookmarks, `/Prev` is an object.
fn sections(pdf: &[u8]) -> usize {
    let of = |name: &[u8]| {
        let places = memchr::memmem::find_iter(pdf, name);
        places.filter(|at| !is_reference(&pdf[at + name.len()..])).count()
    };
    of(b"/Prev") + of(b"/XRefStm") + escaped(pdf, &["Prev", "XRefStm"])
}

/// Whether a value begins as `12 0 R`, without a comment in between.
fn is_reference(value: &[u8]) -> bool {
    let number = |text: &[u8]| {
        let text = text.trim_ascii_start();
        let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
        (1..=10).contains(&digits).then(|| text[digits..].to_vec())
    };
    let short = &value[..value.len().min(NAME_BYTES_MAX)];
    number(short)
        .filter(|rest| rest.first().is_some_and(u8::is_ascii_whitespace))
        .and_then(|rest| number(&rest))
        .is_some_and(|rest| rest.trim_ascii_start().starts_with(b"R"))
}

/// How often names that begin so are written with `#`, as they are not but to hide.
fn escaped(pdf: &[u8], names: &[&str]) -> usize {
    let hidden = memchr::memchr_iter(b'#', pdf).enumerate().filter(|(number, at)| {
        if number.is_multiple_of(ESCAPES_PER_CHECK) {
            check_time();
        }
        let from = at.saturating_sub(NAME_BYTES_MAX);
        let Some(start) = memchr::memrchr(b'/', &pdf[from..*at]) else { return false };
        let end = (*at + NAME_BYTES_MAX).min(pdf.len());
        let name = unescaped(&pdf[from + start..end]);
        names.iter().any(|hidden| name.starts_with(hidden.as_bytes()))
    });
    hidden.count()
}

/// A name without its `#` escapes, and without the slash before it.
fn unescaped(name: &[u8]) -> Vec<u8> {
    let mut rest = name.strip_prefix(b"/").unwrap_or(name);
    let mut plain = Vec::new();
    while let [first, after @ ..] = rest {
        let code = after
            .get(..2)
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
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
        assert_eq!(sections(b"<</Prev 12>> <</Prev 12%\n>> <</Prev 1 0 >> <</Prev 12 0/R>>"), 4);
    }

    /// Bookmarks are a list in both directions.
    #[test]
    fn what_refers_to_an_object_is_no_section() {
        assert_eq!(sections(&b"<</Title (1)/Prev 12 0 R/Next 14 0 R>>".repeat(100)), 0);
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
