//! Attachments of encrypted PDFs.

use std::{collections::BTreeMap, sync::Arc};

use lopdf::{
    EncryptionState, EncryptionVersion, Permissions,
    encryption::crypt_filters::{Aes128CryptFilter, Aes256CryptFilter, CryptFilter},
};

use super::{
    PAGE, UBL, build_pdf, file, numbered_invoice, pdf_with_files, read_number, read_pdf,
    specification, stream,
};

/// A PDF encrypted with this password.
fn encrypted(pdf: &[u8], version: usize, user_password: &str) -> Vec<u8> {
    encrypt(lopdf::Document::load_mem(pdf).unwrap(), version, user_password)
}

fn encrypt(mut document: lopdf::Document, version: usize, user_password: &str) -> Vec<u8> {
    let (owner_password, permissions) = ("owner", Permissions::all());
    let filter: Arc<dyn CryptFilter> =
        if version == 4 { Arc::new(Aes128CryptFilter) } else { Arc::new(Aes256CryptFilter) };
    let crypt_filters = BTreeMap::from([(b"StdCF".to_vec(), filter)]);
    let name = || b"StdCF".to_vec();
    let state = match version {
        1 => EncryptionVersion::V1 {
            document: &document,
            owner_password,
            user_password,
            permissions,
        },
        2 => EncryptionVersion::V2 {
            document: &document,
            owner_password,
            user_password,
            key_length: 128,
            permissions,
        },
        4 => EncryptionVersion::V4 {
            document: &document,
            encrypt_metadata: true,
            crypt_filters,
            stream_filter: name(),
            string_filter: name(),
            owner_password,
            user_password,
            permissions,
        },
        _ => EncryptionVersion::V5 {
            encrypt_metadata: true,
            crypt_filters,
            file_encryption_key: &[7; 32],
            stream_filter: name(),
            string_filter: name(),
            owner_password,
            user_password,
            permissions,
        },
    };
    let state = EncryptionState::try_from(state).unwrap();
    document.encrypt(&state).unwrap();
    let mut bytes = Vec::new();
    document.save_to(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_pdf_encrypted_with_an_empty_password_is_read_and_with_another_is_rejected() {
    let pdf = pdf_with_files(&[("factur-x.xml", file(&numbered_invoice("E-1")))]);
    for version in [1, 2, 4, 5] {
        let document = encrypted(&pdf, version, "");
        assert!(memchr::memmem::find(&document, b"/Encrypt").is_some());
        assert_eq!(read_number(document), "E-1", "{version}");
        let text = encrypted(&build_pdf(PAGE, "", "", &[]), version, "");
        assert_eq!(read_number(text), "TEXT-1", "{version}");
        let error = read_pdf(encrypted(&pdf, version, "secret")).unwrap_err().to_string();
        assert!(error.contains("is encrypted with a password"), "{error}");
    }
}

/// Object streams are encrypted as a whole, not object by object.
#[test]
fn an_encrypted_pdf_with_object_streams_is_read() {
    let pdf = pdf_with_files(&[("factur-x.xml", file(&numbered_invoice("E-2")))]);
    let mut document = lopdf::Document::load_mem(&pdf).unwrap();
    document.objects.remove(&(6, 0)).unwrap();
    let object = [b"6 0 ".to_vec(), specification("factur-x.xml", 7)].concat();
    let dictionary = lopdf::dictionary! { "Type" => "ObjSt_", "N" => 1, "First" => 4 };
    document.objects.insert((20, 0), lopdf::Stream::new(dictionary, object).into());
    document.max_id = 20;
    let mut bytes = encrypt(document, 4, "");
    // The writer creates its own object streams, and drops others.
    let at = memchr::memmem::find(&bytes, b"/ObjSt_").unwrap();
    bytes[at..at + 7].copy_from_slice(b"/ObjStm");
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let number_after = |text: &str, word: &str| -> usize {
        let (_, rest) = text.rsplit_once(word).unwrap();
        rest.split_whitespace().next().unwrap().parse().unwrap()
    };
    let (encrypt, previous) =
        (number_after(&text, "/Encrypt "), number_after(&text, "startxref\n"));
    // Object 6 is the first in the object stream 20.
    let entries = format!(
        "/Type /XRef /Size 1000 /W [1 4 2] /Index [6 1] /Root 1 0 R /Encrypt {encrypt} 0 R /ID \
         [(a) (b)] /Prev {previous}"
    );
    let start = bytes.len();
    let references = stream(&entries, &[2, 0, 0, 0, 20, 0, 0]);
    bytes.extend([b"900 0 obj\n".as_slice(), &references, b"\nendobj\n"].concat());
    bytes.extend(format!("startxref\n{start}\n%%EOF\n").into_bytes());
    assert_eq!(read_number(bytes), "E-2");
}

#[test]
fn a_pdf_that_hides_its_encryption_is_rejected() {
    let document = encrypted(&pdf_with_files(&[("factur-x.xml", file(UBL.as_bytes()))]), 2, "");
    let at = memchr::memmem::find(&document, b"/Encrypt ").unwrap();
    let hidden = [&document[..at], b"/#45ncrypt ", &document[at + 9..]].concat();
    let error = read_pdf(hidden).unwrap_err().to_string();
    assert!(error.contains("hides that it is encrypted"), "{error}");
}
