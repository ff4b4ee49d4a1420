//! Decodes a document in its declared encoding (XML 1.0, section 4.3.3 and appendix F).

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};
use quick_xml::{Reader, events::Event};

use super::is_xml;
use crate::error::InvoiceError;

/// The maximum length of a declaration, in bytes.
const DECLARATION_BYTES_MAX: usize = 1024;

/// Decodes a document. Without a declaration and a byte order mark it is UTF-8.
///
/// ISO-8859-1 and US-ASCII are read as their superset Windows-1252, as in the WHATWG encoding
/// standard.
///
/// # Errors
/// When the encoding is not supported, does not match the bytes, or the bytes are invalid in it;
/// and when XML does not allow a character.
pub(crate) fn decode(document: &[u8]) -> Result<Cow<'_, str>, InvoiceError> {
    let marked = Encoding::for_bom(document);
    let (found, document) = match marked {
        Some((encoding, mark_bytes)) => (Some(encoding), &document[mark_bytes..]),
        None => (detect_utf16(document), document),
    };
    let wide = found.filter(|encoding| *encoding != UTF_8);
    let text = match wide {
        Some(encoding) => convert(encoding, document)?,
        None => Cow::Borrowed(""),
    };
    let beginning = match wide {
        Some(_) => Cow::Borrowed(&*text),
        None => decode_latin1(&document[..document.len().min(DECLARATION_BYTES_MAX)]),
    };
    let declared_encoding = declared_encoding(&beginning)?;
    let text = match (found, declared_encoding) {
        (Some(found), Some(declared_encoding)) if !is_compatible(found, declared_encoding) => {
            return Err(InvoiceError::document(format!(
                "declares the encoding {}, but its first bytes are those of {}",
                declared_encoding.name(),
                found.name()
            )));
        }
        (Some(encoding), _) if encoding != UTF_8 => text,
        (None, Some(declared_encoding)) if is_utf16(declared_encoding) => {
            return Err(InvoiceError::document(
                "declares the encoding UTF-16, but is not in UTF-16",
            ));
        }
        (Some(encoding), _) | (None, Some(encoding)) => convert(encoding, document)?,
        (None, None) => convert(UTF_8, document)?,
    };
    if text.chars().any(|char| !is_xml(char)) {
        return Err(InvoiceError::document("contains a character that XML does not allow"));
    }
    Ok(text)
}

/// UTF-16 without a byte order mark is recognized by its first `<`.
fn detect_utf16(document: &[u8]) -> Option<&'static Encoding> {
    match document {
        [b'<', 0, ..] => Some(UTF_16LE),
        [0, b'<', ..] => Some(UTF_16BE),
        _ => None,
    }
}

fn is_utf16(encoding: &'static Encoding) -> bool {
    encoding == UTF_16LE || encoding == UTF_16BE
}

/// The name `UTF-16` leaves the byte order open.
fn is_compatible(found: &'static Encoding, declared_encoding: &'static Encoding) -> bool {
    found == declared_encoding || (is_utf16(found) && is_utf16(declared_encoding))
}

/// Decodes each byte as one character, to find the declaration, which is in ASCII.
fn decode_latin1(bytes: &[u8]) -> Cow<'_, str> {
    encoding_rs::mem::decode_latin1(bytes)
}

/// The encoding in the XML declaration, if any.
fn declared_encoding(beginning: &str) -> Result<Option<&'static Encoding>, InvoiceError> {
    let Some(end) = beginning.find("?>").filter(|_| beginning.starts_with("<?xml")) else {
        return Ok(None);
    };
    let Ok(Event::Decl(declaration)) = Reader::from_str(&beginning[..end + 2]).read_event() else {
        return Ok(None);
    };
    let Some(label) = declaration.encoding() else { return Ok(None) };
    let label = label.map_err(|error| InvoiceError::document(error.to_string()))?;
    let encoding = Encoding::for_label(label.as_bytes());
    let is_read = |encoding: &&'static Encoding| {
        *encoding == UTF_8
            || is_utf16(encoding)
            || (encoding.is_single_byte() && encoding.name() != "x-user-defined")
    };
    encoding.filter(is_read).map(Some).ok_or_else(|| {
        let shown: String = label.chars().take(40).collect();
        InvoiceError::document(format!(
            "declares the encoding `{shown}`; UTF-8, UTF-16, ISO-8859-1, Windows-1252 and other \
             encodings of one byte a character are read"
        ))
    })
}

fn convert<'a>(
    encoding: &'static Encoding,
    document: &'a [u8],
) -> Result<Cow<'a, str>, InvoiceError> {
    if encoding == UTF_8 {
        let text = std::str::from_utf8(document).map_err(|error| {
            InvoiceError::document(format!(
                "is not valid UTF-8: invalid byte at {}",
                error.valid_up_to()
            ))
        })?;
        return Ok(Cow::Borrowed(text));
    }
    encoding.decode_without_bom_handling_and_without_replacement(document).ok_or_else(|| {
        InvoiceError::document(format!("contains bytes that are invalid in {}", encoding.name()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A document with this declaration and the text `é€`, in this encoding.
    fn document(declaration: &str, encoding: &'static Encoding) -> Vec<u8> {
        let text = format!("{declaration}<a>é€</a>");
        match encoding.name() {
            "UTF-16LE" => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            "UTF-16BE" => text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
            _ => encoding.encode(&text).0.into_owned(),
        }
    }

    #[test]
    fn text_is_decoded_in_the_declared_encoding() {
        for (label, encoding) in [
            ("UTF-8", UTF_8),
            ("utf8", UTF_8),
            ("Utf-8", UTF_8),
            ("ISO-8859-1", encoding_rs::WINDOWS_1252),
            ("iso8859-1", encoding_rs::WINDOWS_1252),
            ("latin1", encoding_rs::WINDOWS_1252),
            ("Windows-1252", encoding_rs::WINDOWS_1252),
            ("cp1252", encoding_rs::WINDOWS_1252),
            ("ISO-8859-15", encoding_rs::ISO_8859_15),
            ("windows-1250", encoding_rs::WINDOWS_1250),
            ("UTF-16", UTF_16LE),
            ("UTF-16", UTF_16BE),
            ("utf-16le", UTF_16LE),
        ] {
            for quote in ['"', '\''] {
                let declaration = format!("<?xml version='1.0' encoding={quote}{label}{quote}?>");
                let bytes = document(&declaration, encoding);
                let text = decode(&bytes).unwrap_or_else(|error| panic!("{label}: {error}"));
                assert!(text.ends_with("<a>é€</a>"), "{label}: {text}");
            }
        }
    }

    #[test]
    fn a_byte_order_mark_selects_the_encoding_and_is_removed() {
        for (mark, encoding) in
            [(&b"\xef\xbb\xbf"[..], UTF_8), (b"\xff\xfe", UTF_16LE), (b"\xfe\xff", UTF_16BE)]
        {
            let bytes = [mark, &document("", encoding)].concat();
            assert_eq!(decode(&bytes).unwrap(), "<a>é€</a>", "{}", encoding.name());
        }
    }

    #[test]
    fn an_encoding_other_than_the_declared_one_is_rejected() {
        let refused = |bytes: &[u8], why: &str| {
            let error = decode(bytes).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        };
        let declared_encoding =
            |label: &str| format!("<?xml version=\"1.0\" encoding=\"{label}\"?>");
        refused(&document(&declared_encoding("UTF-16"), UTF_8), "is not in UTF-16");
        refused(
            &document(&declared_encoding("UTF-8"), UTF_16LE),
            "first bytes are those of UTF-16LE",
        );
        refused(
            &[b"\xef\xbb\xbf", document(&declared_encoding("ISO-8859-1"), UTF_8).as_slice()]
                .concat(),
            "first bytes are those of UTF-8",
        );
        refused(
            &document(&declared_encoding("UTF-8"), encoding_rs::WINDOWS_1252),
            "is not valid UTF-8: invalid byte at ",
        );
        refused(
            &document(&declared_encoding("UTF-7"), UTF_8),
            "`UTF-7`; UTF-8, UTF-16, ISO-8859-1",
        );
        refused(&document(&declared_encoding("Shift_JIS"), UTF_8), "`Shift_JIS`; UTF-8");
        refused(b"<\0a\0/\0>\0\0\xd8", "contains bytes that are invalid in UTF-16LE");
        refused(b"<a>\0</a>", "that XML does not allow");
    }
}
