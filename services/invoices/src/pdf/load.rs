//! Loads a PDF, also one that is encrypted with an empty password.
//!
//! `lopdf` decrypts while it loads, and then calls nothing back, so that nothing bounds what the
//! file makes of it. So the entry that says that a file is encrypted is hidden from it, and the
//! objects are decrypted when they are loaded.

use std::borrow::Cow;

use lopdf::{Document, LoadOptions, Object, ObjectStream, Stream, xref::XrefEntry};

use super::budget::{self, HIDDEN_OBJECT_STREAM};
use crate::error::InvoiceError;

const ENCRYPT: &[u8] = b"/Encrypt";
/// The entry while it is hidden, as long as its name.
const HIDDEN: &[u8] = b"/Encryp_";

/// A document, decrypted where it is encrypted with an empty user password.
///
/// # Errors
/// When it cannot be read, or opens only with a password.
pub(super) fn load(pdf: &[u8], options: LoadOptions) -> Result<Document, InvoiceError> {
    let cannot = |error: lopdf::Error| {
        InvoiceError::document(format!("is a PDF that cannot be read: {error}"))
    };
    let (pdf, is_hidden) = hide(pdf);
    if !is_hidden {
        let document = Document::load_mem_with_options(&pdf, options).map_err(cannot)?;
        return if document.is_encrypted() || document.was_encrypted() {
            Err(encrypted())
        } else {
            Ok(document)
        };
    }
    let mut document =
        budget::keep_object_streams(|| Document::load_mem_with_options(&pdf, options))
            .map_err(cannot)?;
    match document.trailer.remove(&HIDDEN[1..]) {
        Some(reference @ Object::Reference(_)) => document.trailer.set(&ENCRYPT[1..], reference),
        Some(direct) => {
            let id = document.add_object(direct);
            document.trailer.set(&ENCRYPT[1..], Object::Reference(id));
        }
        // The word stands in the file, but not in its trailer.
        None => {
            unpack(&mut document);
            return Ok(document);
        }
    }
    document.authenticate_password("").map_err(|_| encrypted())?;
    // The first object that cannot be decrypted is an error, and the others are decrypted all the
    // same.
    drop(document.decrypt(""));
    if document.is_encrypted() {
        return Err(encrypted());
    }
    unpack(&mut document);
    Ok(document)
}

fn encrypted() -> InvoiceError {
    InvoiceError::document(
        "is a PDF that is encrypted, and does not open without a password; send it decrypted",
    )
}

/// The file with its entry `/Encrypt` under another name, and whether it has one.
fn hide(pdf: &[u8]) -> (Cow<'_, [u8]>, bool) {
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

/// Unpacks the object streams that were kept, as the cross-references say.
fn unpack(document: &mut Document) {
    let is_kept = |object: &Object| {
        object.as_stream().is_ok_and(|stream| stream.dict.has_type(HIDDEN_OBJECT_STREAM))
    };
    let kept: Vec<_> =
        document.objects.iter().filter(|(_, object)| is_kept(object)).map(|(id, _)| *id).collect();
    for container in kept {
        let Some(Object::Stream(stream)) = document.objects.get(&container) else { continue };
        let Some(limit) = budget::object_stream(stream) else { continue };
        let Ok(unpacked) = ObjectStream::new_with_limit(stream, Some(limit)) else { continue };
        for (id, object) in unpacked.objects {
            let is_there = matches!(document.reference_table.entries.get(&id.0),
                Some(XrefEntry::Compressed { container: place, .. }) if *place == container.0);
            if is_there {
                budget::spend(&object);
                document.objects.insert(id, object);
            }
        }
    }
}

/// A stream whose filters and their parameters stand in it, and none of them is `Crypt`, which is
/// undone already.
///
/// # Errors
/// When its contents are in another file.
pub(super) fn direct(document: &Document, stream: &Stream) -> Result<Stream, String> {
    if stream.dict.has(b"F") {
        return Err("stands in another file".to_owned());
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
    let mut direct = Stream::new(lopdf::Dictionary::new(), stream.content.clone());
    direct.dict.set("Filter", filters);
    direct.dict.set("DecodeParms", parameters);
    Ok(direct)
}
