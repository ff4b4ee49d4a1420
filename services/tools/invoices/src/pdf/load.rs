//! Loads a PDF, including one that is encrypted with an empty password.
//!
//! When `lopdf` decrypts while loading, it calls no filter, so the budget could not be enforced.
//! Therefore the `/Encrypt` entry is hidden from it, and the objects are decrypted after loading.

use std::borrow::Cow;

use lopdf::{Document, LoadOptions, Object, ObjectStream, Stream, xref::XrefEntry};

use super::budget::{self, DEFERRED_OBJECT_STREAM};
use crate::error::InvoiceError;

const ENCRYPT: &[u8] = b"/Encrypt";
/// The hidden name of the entry, of the same length.
const HIDDEN: &[u8] = b"/Encryp_";

/// Loads a document, and decrypts it if it is encrypted with an empty user password.
///
/// # Errors
/// When it is unreadable, or requires a password.
pub(super) fn load(pdf: &[u8], options: LoadOptions) -> Result<Document, InvoiceError> {
    let unreadable = |error: lopdf::Error| {
        InvoiceError::document(format!("is a PDF that cannot be read: {error}"))
    };
    let (pdf, is_hidden) = hide_encrypt_entry(pdf);
    if !is_hidden {
        let document = Document::load_mem_with_options(&pdf, options).map_err(unreadable)?;
        return if document.is_encrypted() || document.was_encrypted() {
            Err(password_required())
        } else {
            Ok(document)
        };
    }
    let mut document =
        budget::defer_object_streams(|| Document::load_mem_with_options(&pdf, options))
            .map_err(unreadable)?;
    match document.trailer.remove(&HIDDEN[1..]) {
        Some(reference @ Object::Reference(_)) => document.trailer.set(&ENCRYPT[1..], reference),
        Some(resolve_filters) => {
            let id = document.add_object(resolve_filters);
            document.trailer.set(&ENCRYPT[1..], Object::Reference(id));
        }
        // The name occurs in the file, but not in its trailer.
        None => {
            unpack_deferred(&mut document);
            return Ok(document);
        }
    }
    document.authenticate_password("").map_err(|_| password_required())?;
    // The error is about the first object that cannot be decrypted; the others are decrypted
    // anyway.
    drop(document.decrypt(""));
    if document.is_encrypted() {
        return Err(password_required());
    }
    unpack_deferred(&mut document);
    Ok(document)
}

fn password_required() -> InvoiceError {
    InvoiceError::document("is a PDF that is encrypted with a password; send it decrypted")
}

/// The file with its `/Encrypt` entry renamed, and whether it has one.
fn hide_encrypt_entry(pdf: &[u8]) -> (Cow<'_, [u8]>, bool) {
    let is_end = |byte: &u8| byte.is_ascii_whitespace() || b"\0()<>[]{}/%".contains(byte);
    let places: Vec<usize> = memchr::memmem::find_iter(pdf, ENCRYPT)
        .filter(|at| pdf.get(at + ENCRYPT.len()).is_none_or(is_end))
        .collect();
    if places.is_empty() {
        return (Cow::Borrowed(pdf), false);
    }
    let mut hidden = pdf.to_vec();
    for at in places {
        hidden[at..at + HIDDEN.len()].copy_from_slice(HIDDEN);
    }
    (Cow::Owned(hidden), true)
}

/// Unpacks the deferred object streams, according to the cross-references.
fn unpack_deferred(document: &mut Document) {
    let is_deferred = |object: &Object| {
        object.as_stream().is_ok_and(|stream| stream.dict.has_type(DEFERRED_OBJECT_STREAM))
    };
    let deferred: Vec<_> = document
        .objects
        .iter()
        .filter(|(_, object)| is_deferred(object))
        .map(|(id, _)| *id)
        .collect();
    for container in deferred {
        let Some(Object::Stream(stream)) = document.objects.get(&container) else { continue };
        let Some(limit) = budget::unpacked_size(stream) else { continue };
        let Ok(unpacked) = ObjectStream::new_with_limit(stream, Some(limit)) else { continue };
        for (id, object) in unpacked.objects {
            let is_current = matches!(document.reference_table.entries.get(&id.0),
                Some(XrefEntry::Compressed { container: place, .. }) if *place == container.0);
            if is_current {
                budget::count_values(&object);
                document.objects.insert(id, object);
            }
        }
    }
}

/// The stream with resolved filters and parameters, without `Crypt`, which has been undone already.
///
/// # Errors
/// When its contents are in another file.
pub(super) fn resolve_filters(document: &Document, stream: &Stream) -> Result<Stream, String> {
    if stream.dict.has(b"F") {
        return Err("is stored in another file".to_owned());
    }
    let list = |key: &[u8]| -> Vec<Object> {
        let resolved = |object: &Object| {
            document.dereference(object).map_or(Object::Null, |(_, object)| object.clone())
        };
        match stream.dict.get(key).map(resolved) {
            Ok(Object::Array(items)) => items.iter().map(resolved).collect(),
            Ok(Object::Null) | Err(_) => Vec::new(),
            Ok(one) => vec![one],
        }
    };
    let mut parameters = list(b"DecodeParms");
    let filters = list(b"Filter");
    if filters.len() > Stream::MAX_FILTERS {
        return Err(format!("has more than {} filters", Stream::MAX_FILTERS));
    }
    parameters.resize(filters.len(), Object::Null);
    let pairs = filters.into_iter().zip(parameters);
    let (filters, parameters): (Vec<_>, Vec<_>) =
        pairs.filter(|(filter, _)| filter.as_name().ok() != Some(b"Crypt")).unzip();
    let mut resolve_filters = Stream::new(lopdf::Dictionary::new(), stream.content.clone());
    resolve_filters.dict.set("Filter", filters);
    resolve_filters.dict.set("DecodeParms", parameters);
    Ok(resolve_filters)
}
