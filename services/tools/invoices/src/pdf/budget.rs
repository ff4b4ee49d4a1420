//! The budget for reading one PDF. `lopdf` bounds the size of a single inflated stream; this bounds
//! a whole file, in which nested cross-references, object streams and objects can expand a small
//! file enormously.

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

/// The maximum size of one object stream or cross-reference stream, and of all object streams
/// together, in bytes.
const STREAM_BYTES_MAX: usize = 1024 * 1024;
const OBJECT_STREAMS_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The maximum number of values in all objects together.
const VALUES_MAX: usize = 1_000_000;
/// The maximum number of cross-reference sections: each incremental save adds one or two.
const SECTIONS_MAX: usize = 16;
/// How far before and after an escape its name is searched, in bytes.
const NAME_BYTES_MAX: usize = 24;
/// Escapes in names between two cancellation checks.
const ESCAPES_PER_CHECK: usize = 1024;
const TIME_MAX: Duration = Duration::from_secs(10);
/// The type of an object stream that is not to be unpacked yet.
pub(super) const DEFERRED_OBJECT_STREAM: &[u8] = b"ObjSt_";

/// One file is parsed at a time, to bound the memory that hostile files use.
static PARSER_LOCK: Mutex<()> = Mutex::new(());
/// How often a queued file checks its cancellation.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

thread_local! {
    static DEFERS_OBJECT_STREAMS: Cell<bool> = const { Cell::new(false) };
    static REMAINING: Cell<Remaining> =
        const { Cell::new(Remaining { values: 0, object_stream_bytes: 0 }) };
    static CANCELLATION: RefCell<Option<Cancellation>> = const { RefCell::new(None) };
}

/// The remaining budget.
#[derive(Clone, Copy)]
struct Remaining {
    values: usize,
    object_stream_bytes: usize,
}

/// The budget is exhausted, or the call is cancelled.
struct BudgetExhausted;

/// Reads a PDF with `read`, which must load it with the given options. Turns panics into errors.
///
/// # Errors
/// Those of `read`, when the budget is exhausted, and when the call is cancelled.
pub(super) fn with_budget<T>(
    pdf: &[u8],
    cancellation: &Cancellation,
    read: impl FnOnce(LoadOptions) -> Result<T, InvoiceError>,
) -> Result<T, InvoiceError> {
    let exhausted = || InvoiceError::document("is a PDF that is too complex for an invoice");
    let _guard = lock(cancellation)?;
    REMAINING.set(Remaining { values: VALUES_MAX, object_stream_bytes: OBJECT_STREAMS_BYTES_MAX });
    CANCELLATION.set(Some(cancellation.with_timeout(TIME_MAX)));
    let options = LoadOptions {
        max_decompressed_size: Some(STREAM_BYTES_MAX),
        filter: Some(on_object),
        ..LoadOptions::default()
    };
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        check_time();
        if count_sections(pdf) > SECTIONS_MAX {
            return Err(exhausted());
        }
        if count_escaped(pdf, &["Encrypt"]) > 0 {
            return Err(InvoiceError::document("is a PDF that hides that it is encrypted"));
        }
        read(options)
    }));
    CANCELLATION.set(None);
    match outcome {
        Ok(outcome) => outcome,
        Err(cause) if cause.is::<BudgetExhausted>() => {
            cancellation.check()?;
            Err(exhausted())
        }
        Err(_) => Err(InvoiceError::document("is a PDF that cannot be read")),
    }
}

/// Polls, because the standard mutex has no timeout.
fn lock(cancellation: &Cancellation) -> Result<MutexGuard<'static, ()>, InvoiceError> {
    loop {
        match PARSER_LOCK.try_lock() {
            Ok(guard) => return Ok(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => thread::sleep(POLL_INTERVAL),
        }
        cancellation.check()?;
    }
}

/// Loads a file without unpacking its object streams: they remain streams of the type
/// [`DEFERRED_OBJECT_STREAM`].
pub(super) fn defer_object_streams<T>(load: impl FnOnce() -> T) -> T {
    /// Resets the flag even if the load panics.
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            DEFERS_OBJECT_STREAMS.set(false);
        }
    }
    DEFERS_OBJECT_STREAMS.set(true);
    let _reset = Reset;
    load()
}

/// Stops reading when the time is up or the call is cancelled.
pub(super) fn check_time() {
    if CANCELLATION.with_borrow(|no_cancellation| {
        no_cancellation.as_ref().is_some_and(|no_cancellation| no_cancellation.check().is_err())
    }) {
        abort();
    }
}

/// Called for each loaded object, and for an object stream before it is unpacked.
fn on_object(id: ObjectId, object: &mut Object) -> Option<(ObjectId, Object)> {
    check_time();
    if let Object::Stream(stream) = object
        && stream.dict.has_type(b"ObjStm")
    {
        if DEFERS_OBJECT_STREAMS.get() {
            stream.dict.set("Type", Object::Name(DEFERRED_OBJECT_STREAM.to_vec()));
        } else {
            unpacked_size(stream);
        }
    }
    count_values(object);
    Some((id, object.clone()))
}

/// Counts the unpacked size of an object stream, and returns it, in bytes. None: it cannot be
/// unpacked.
pub(super) fn unpacked_size(stream: &Stream) -> Option<usize> {
    check_time();
    let mut remaining = REMAINING.get();
    let limit = remaining.object_stream_bytes.min(STREAM_BYTES_MAX);
    let unpacked = match stream.decompressed_content_with_limit(limit) {
        Ok(content) => content.len(),
        Err(lopdf::Error::Decompress(lopdf::DecompressError::MemoryLimitExceeded { .. })) => {
            abort()
        }
        Err(_) => return None,
    };
    remaining.object_stream_bytes -= unpacked;
    REMAINING.set(remaining);
    Some(unpacked)
}

/// Counts the values of an object.
pub(super) fn count_values(object: &Object) {
    let mut remaining = REMAINING.get();
    let Some(values) = remaining.values.checked_sub(values(object)) else { abort() };
    remaining.values = values;
    REMAINING.set(remaining);
}

/// Unlike a panic, this logs nothing.
fn abort() -> ! {
    resume_unwind(Box::new(BudgetExhausted))
}

/// The number of values in an object.
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

/// How often a file refers to another cross-reference section by offset. In other dictionaries,
/// such as those of bookmarks, `/Prev` refers to an object.
fn count_sections(pdf: &[u8]) -> usize {
    let of = |name: &[u8]| {
        let places = memchr::memmem::find_iter(pdf, name);
        places.filter(|at| !is_reference(&pdf[at + name.len()..])).count()
    };
    of(b"/Prev") + of(b"/XRefStm") + count_escaped(pdf, &["Prev", "XRefStm"])
}

/// Whether a value starts like `12 0 R`, without a comment in between.
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

/// How often names with these prefixes contain `#` escapes, which only serve to hide them.
fn count_escaped(pdf: &[u8], names: &[&str]) -> usize {
    let hidden = memchr::memchr_iter(b'#', pdf).enumerate().filter(|(number, at)| {
        if number.is_multiple_of(ESCAPES_PER_CHECK) {
            check_time();
        }
        let from = at.saturating_sub(NAME_BYTES_MAX);
        let Some(start) = memchr::memrchr(b'/', &pdf[from..*at]) else { return false };
        let abort = (*at + NAME_BYTES_MAX).min(pdf.len());
        let name = unescape(&pdf[from + start..abort]);
        names.iter().any(|hidden| name.starts_with(hidden.as_bytes()))
    });
    hidden.count()
}

/// A name without its `#` escapes and its leading slash.
fn unescape(name: &[u8]) -> Vec<u8> {
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
    fn sections_are_counted_in_every_spelling() {
        assert_eq!(
            count_sections(b"<</Prev 1>> <</Pr#65v 1>> <</#50#72#65#76 1>> /Arial#20Bold"),
            2 + 4
        );
        assert_eq!(
            count_sections(b"<</Prev 12>> <</Prev 12%\n>> <</Prev 1 0 >> <</Prev 12 0/R>>"),
            4
        );
    }

    /// Bookmarks are a doubly linked list.
    #[test]
    fn a_reference_to_an_object_is_not_a_section() {
        assert_eq!(count_sections(&b"<</Title (1)/Prev 12 0 R/Next 14 0 R>>".repeat(100)), 0);
    }

    /// Regression: the search for each escape's name went back to the start of the file: minutes
    /// for a few MiB.
    #[test]
    fn a_file_of_escapes_is_searched_in_linear_time() {
        let pdf = [b"%PDF-1.7\n".as_slice(), &vec![b'#'; 3 * 1024 * 1024]].concat();
        assert_eq!(count_sections(&pdf), 0);
    }

    #[test]
    fn a_cancelled_read_stops_before_its_sections_are_counted() {
        let pdf = [b"%PDF-1.7\n".as_slice(), &vec![b'#'; 1024]].concat();
        let passed = Cancellation::new(CancellationToken::new(), Instant::now());
        let read = with_budget(&pdf, &passed, |_| Ok(()));
        assert!(matches!(read, Err(InvoiceError::DeadlinePassed)), "{read:?}");
    }

    /// A started search stops too.
    #[test]
    fn cancellation_is_checked_while_sections_are_counted() {
        CANCELLATION.set(Some(Cancellation::new(CancellationToken::new(), Instant::now())));
        let ended = catch_unwind(|| count_sections(b"/a#20b"));
        CANCELLATION.set(None);
        assert!(ended.is_err_and(|cause| cause.is::<BudgetExhausted>()));
    }
}
