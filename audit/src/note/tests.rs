use proptest::prelude::*;

use super::*;

// The vectors of `golang.org/x/mod/sumdb/note`, whose format the specification describes.
const SECRET: &str = "PRIVATE+KEY+PeterNeumann+c74f20a3+\
                      AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
const PUBLIC: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const NOTE: &str = "If you think cryptography is the answer to your problem,\n\
                    then you don't know what your problem is.\n\n\
                    — PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZ\
                    SNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
// The example of the specification, whose text has an empty line.
const POEM: &str = "Ognuno sta solo sul cuor della terra\ntrafitto da un raggio di sole:\n\n\
                    ed è subito sera.\n\n\
                    — quasimodo.example/salvatore NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+\
                    EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n";

fn public(text: &str) -> VerificationKey {
    text.parse().unwrap()
}

#[test]
fn the_published_vectors_are_signed_and_verified() {
    let key = SigningKey::parse(&SECRET.into()).unwrap();
    assert_eq!(key.public().to_string(), PUBLIC);
    let parsed = Note::parse(NOTE.as_bytes()).unwrap();
    let mut signed = Note::new(parsed.text().to_owned()).unwrap();
    signed.sign(&key);
    assert_eq!(signed.to_string(), NOTE);
    let keys = [public(PUBLIC)];
    assert_eq!(parsed.signers(&keys).unwrap(), [&keys[0]]);
    let poem = Note::parse(POEM.as_bytes()).unwrap();
    assert_eq!(poem.to_string(), POEM);
    assert!(poem.text().ends_with("\n\ned è subito sera.\n"));
    assert!(poem.signers(&keys).unwrap().is_empty(), "an unknown key says nothing");
}

#[test]
fn a_wrong_signature_of_a_trusted_key_refuses_the_note_beside_right_ones() {
    let (other, _) = SigningKey::generate("other.example/a").unwrap();
    let keys = [public(PUBLIC), other.public().clone()];
    let mut note = Note::parse(NOTE.replace("answer", "Answer").as_bytes()).unwrap();
    note.sign(&other);
    let refused = note.signers(&keys).unwrap_err();
    assert_eq!(refused, NoteError::Signature("PeterNeumann".to_owned()));
    assert_eq!(note.signers(&keys[1..]).unwrap(), [other.public()]);
}

#[test]
fn a_key_counts_once_however_often_it_signs() {
    let signature = NOTE.lines().last().unwrap();
    let note = Note::parse(format!("{NOTE}{signature}\n").as_bytes()).unwrap();
    assert_eq!(note.signers(&[public(PUBLIC)]).unwrap().len(), 1);
    // Nor under a second name, whose id differs.
    let key = SigningKey::parse(&SECRET.into()).unwrap();
    let renamed = VerificationKey::new("other", key.public().key).unwrap();
    let mut note = Note::parse(NOTE.as_bytes()).unwrap();
    note.sign(&SigningKey { pair: key.pair, public: renamed.clone() });
    assert_eq!(note.signers(&[public(PUBLIC), renamed]).unwrap().len(), 1);
}

#[test]
fn what_is_no_note_or_key_is_refused_with_a_reason() {
    let check = |note: &str, wanted: &str| {
        let error = Note::parse(note.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(wanted), "{note:?}: {error}");
    };
    check("", "no empty line");
    check("text\n", "no empty line");
    check("\n\n", "not end with a signature");
    check("text\n\n", "not end with a signature");
    check(NOTE.trim_end(), "not end with a signature");
    check(&NOTE.replace("— P", "- P"), "`— NAME BASE64`");
    check(&NOTE.replace("Neumann x08", "Neumann  x08"), "`— NAME BASE64`");
    check(&NOTE.replace("x08go", "x08g!"), "`— NAME BASE64`");
    check(&NOTE.replace("problem,", "problem\t"), "control characters");
    check(&"x".repeat(NOTE_BYTES_MAX + 1), "65536 bytes");
    let line = NOTE.lines().last().unwrap();
    check(&format!("a\n\n{}", format!("{line}\n").repeat(65)), "64 signatures");
    assert!(Note::parse(b"\xff\n\n").is_err());

    let key = |text: &str| text.parse::<VerificationKey>().unwrap_err();
    assert_eq!(key("PeterNeumann"), KeyError::Format);
    assert_eq!(key(SECRET), KeyError::Private);
    assert_eq!(key(&PUBLIC.replace("c74f", "c74e")), KeyError::Id);
    assert_eq!(key(&PUBLIC.replace("+ARpc", "+AhpC")), KeyError::Algorithm);
    assert_eq!(key(&PUBLIC[..60]), KeyError::Format);
    assert_eq!(key(&PUBLIC.replace("PeterN", "Peter N")), KeyError::Name("Peter Neumann".into()));
    assert_eq!(SigningKey::parse(&PUBLIC.into()).unwrap_err(), KeyError::NotPrivate);
    assert!(SigningKey::generate("a+b").is_err());
}

#[test]
fn a_private_key_is_not_in_its_debug_form() {
    let (key, text) = SigningKey::generate("acme.example/a").unwrap();
    assert_eq!(format!("{key:?}"), r#"SigningKey("acme.example/a")"#);
    let parsed = SigningKey::parse(&text).unwrap();
    assert_eq!(parsed.public(), key.public());
}

proptest! {
    #[test]
    fn a_note_that_parses_is_written_as_it_was(bytes: Vec<u8>, at: prop::sample::Index, byte: u8) {
        if let Ok(note) = Note::parse(&bytes) {
            prop_assert_eq!(note.to_string().into_bytes(), bytes);
        }
        let mut changed = NOTE.as_bytes().to_vec();
        let at = at.index(changed.len());
        changed[at] = byte;
        if let Ok(note) = Note::parse(&changed) {
            // No changed text and no changed signature has a signer.
            let signers = note.signers(&[public(PUBLIC)]).unwrap_or_default().len();
            prop_assert!(signers == 0 || note.to_string() == NOTE);
            prop_assert_eq!(note.to_string().into_bytes(), changed);
        }
    }
}
