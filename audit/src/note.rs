//! Signed notes: a text with Ed25519 signatures of named keys (C2SP signed-note). Keys have the
//! text form of Go's `golang.org/x/mod/sumdb/note`.

use std::{collections::BTreeSet, fmt, str::FromStr};

use aws_lc_rs::{
    rand,
    signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

/// The largest signed note, in bytes.
pub const NOTE_BYTES_MAX: usize = 64 * 1024;
/// The most signatures of a note.
const SIGNATURES_MAX: usize = 64;
/// The signature type of Ed25519.
const TYPE_ED25519: u8 = 1;
const KEY_BYTES: usize = 32;
const SIGNATURE_MARK: &str = "— ";

/// A key is not usable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It has another form.
    #[error(
        "invalid key (expected `NAME+ID+BASE64`, as `drawbridge policy key` and `drawbridge audit \
         key` print it)"
    )]
    Format,
    /// It is not a private key.
    #[error("not a private key (it begins with `PRIVATE+KEY+`)")]
    NotPrivate,
    /// A private key is used as a public one.
    #[error("this is a private key; write the public one, which was printed when it was made")]
    Private,
    /// Its name is invalid.
    #[error("invalid key name {0:?} (no spaces and no `+`, expected e.g. acme.example/policies)")]
    Name(String),
    /// It is for another algorithm.
    #[error("the key is not for Ed25519")]
    Algorithm,
    /// Its id does not belong to it.
    #[error("the id of the key does not match it; was it copied in full?")]
    Id,
    /// No random bytes are available.
    #[error("cannot generate a key")]
    Random,
}

/// A note is invalid or its signatures do not verify.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// It is not a signed note.
    #[error("not a signed note: {0}")]
    Format(&'static str),
    /// A signature of a trusted key is wrong.
    #[error("the signature of the key {0} is wrong: the note was changed after it was signed")]
    Signature(String),
}

/// A public key by which signatures are verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerificationKey {
    name: String,
    id: [u8; 4],
    key: [u8; KEY_BYTES],
}

impl VerificationKey {
    fn new(name: &str, key: [u8; KEY_BYTES]) -> Result<Self, KeyError> {
        if name.is_empty()
            || name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+')
        {
            return Err(KeyError::Name(name.to_owned()));
        }
        let digest = Sha256::new()
            .chain_update(name)
            .chain_update([b'\n', TYPE_ED25519])
            .chain_update(key)
            .finalize();
        Ok(Self { name: name.to_owned(), id: [digest[0], digest[1], digest[2], digest[3]], key })
    }

    /// The name of the key: who signs.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether two keys are the same, whatever their names.
    #[must_use]
    pub fn is_same_key(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

/// The name, id and key bytes of the text of a key. The id is not checked.
fn parse_key(text: &str) -> Result<(&str, u32, [u8; KEY_BYTES]), KeyError> {
    let mut parts = text.trim().splitn(3, '+');
    let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
        return Err(KeyError::Format);
    };
    let is_id = id.len() == 8 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let id = u32::from_str_radix(id, 16).ok().filter(|_| is_id).ok_or(KeyError::Format)?;
    match BASE64_STANDARD.decode(key).map_err(|_| KeyError::Format)?.split_first() {
        Some((&TYPE_ED25519, key)) => Ok((name, id, key.try_into().map_err(|_| KeyError::Format)?)),
        Some(_) => Err(KeyError::Algorithm),
        None => Err(KeyError::Format),
    }
}

fn format_key(name: &str, id: [u8; 4], key: &[u8]) -> String {
    let typed = BASE64_STANDARD.encode([&[TYPE_ED25519], key].concat());
    format!("{name}+{:08x}+{typed}", u32::from_be_bytes(id))
}

impl FromStr for VerificationKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        if text.trim().starts_with(PRIVATE) {
            return Err(KeyError::Private);
        }
        let (name, id, key) = parse_key(text)?;
        let key = Self::new(name, key)?;
        if u32::from_be_bytes(key.id) == id { Ok(key) } else { Err(KeyError::Id) }
    }
}

impl fmt::Display for VerificationKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&format_key(&self.name, self.id, &self.key))
    }
}

const PRIVATE: &str = "PRIVATE+KEY+";

/// A private key that signs.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: VerificationKey,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("SigningKey").field(&self.public.name).finish()
    }
}

impl SigningKey {
    /// A new key with this name, and its secret text.
    ///
    /// # Errors
    /// If the name is invalid.
    pub fn generate(name: &str) -> Result<(Self, SecretString), KeyError> {
        let mut seed = [0; KEY_BYTES];
        rand::fill(&mut seed).map_err(|_| KeyError::Random)?;
        let key = Self::from_seed(name, &seed)?;
        let text = format!("{PRIVATE}{}", format_key(name, key.public.id, &seed));
        Ok((key, text.into()))
    }

    fn from_seed(name: &str, seed: &[u8]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| KeyError::Format)?;
        let public = pair.public_key().as_ref().try_into().map_err(|_| KeyError::Format)?;
        Ok(Self { public: VerificationKey::new(name, public)?, pair })
    }

    /// Parses the secret text of a key.
    ///
    /// # Errors
    /// If it is not a private key.
    pub fn parse(text: &SecretString) -> Result<Self, KeyError> {
        let text = text.expose_secret().trim();
        let text = text.strip_prefix(PRIVATE).ok_or(KeyError::NotPrivate)?;
        let (name, id, seed) = parse_key(text)?;
        let key = Self::from_seed(name, &seed)?;
        if u32::from_be_bytes(key.public.id) == id { Ok(key) } else { Err(KeyError::Id) }
    }

    /// As [`Self::parse`], with another name.
    ///
    /// # Errors
    /// If it is not a private key, or the name is invalid.
    pub fn parse_as(text: &SecretString, name: &str) -> Result<Self, KeyError> {
        Self::parse(text)?;
        let text = text.expose_secret().trim();
        let (.., seed) = parse_key(text.strip_prefix(PRIVATE).ok_or(KeyError::NotPrivate)?)?;
        Self::from_seed(name, &seed)
    }

    /// The public key.
    #[must_use]
    pub fn public(&self) -> &VerificationKey {
        &self.public
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Signature {
    name: String,
    id: [u8; 4],
    bytes: Vec<u8>,
}

/// A text with its signatures. Parsing verifies none of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    text: String,
    signatures: Vec<Signature>,
}

impl Note {
    /// A note without a signature.
    ///
    /// # Errors
    /// If the text does not end with a newline, or has control characters.
    pub fn new(text: String) -> Result<Self, NoteError> {
        if !text.ends_with('\n') {
            return Err(NoteError::Format("the text does not end with a newline"));
        }
        if text.bytes().any(|byte| byte < b' ' && byte != b'\n') {
            return Err(NoteError::Format("it has control characters"));
        }
        Ok(Self { text, signatures: Vec::new() })
    }

    /// Parses a signed note.
    ///
    /// # Errors
    /// If it is too large or does not have the form of the specification.
    pub fn parse(bytes: &[u8]) -> Result<Self, NoteError> {
        if bytes.len() > NOTE_BYTES_MAX {
            return Err(NoteError::Format("it has more than 65536 bytes"));
        }
        let note = str::from_utf8(bytes).map_err(|_| NoteError::Format("it is not UTF-8"))?;
        // The last empty line separates the text from the signatures.
        let split = note.rfind("\n\n").ok_or(NoteError::Format("no empty line ends its text"))?;
        let (text, signatures) = note.split_at(split + 1);
        let mut note = Self::new(text.to_owned())?;
        let Some(lines) = signatures[1..].strip_suffix('\n') else {
            return Err(NoteError::Format("it does not end with a signature and a newline"));
        };
        for line in lines.split('\n') {
            note.signatures.push(parse_signature(line)?);
        }
        if note.signatures.len() > SIGNATURES_MAX {
            return Err(NoteError::Format("it has more than 64 signatures"));
        }
        Ok(note)
    }

    /// The text. It must not be used unless [`Self::signers`] has enough keys.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Adds the signature of a key, in place of an earlier one of it.
    pub fn sign(&mut self, key: &SigningKey) {
        let VerificationKey { name, id, .. } = &key.public;
        let bytes = key.pair.sign(self.text.as_bytes()).as_ref().to_vec();
        self.signatures.retain(|signature| (&signature.name, &signature.id) != (name, id));
        self.signatures.push(Signature { name: name.clone(), id: *id, bytes });
    }

    /// The names of all keys that have signed it, trusted or not.
    pub fn key_names(&self) -> impl Iterator<Item = &str> {
        self.signatures.iter().map(|signature| signature.name.as_str())
    }

    /// Those of the trusted keys that have signed it, each once.
    ///
    /// # Errors
    /// If a signature of a trusted key is wrong.
    pub fn signers<'a>(
        &self,
        trusted: &'a [VerificationKey],
    ) -> Result<Vec<&'a VerificationKey>, NoteError> {
        let (mut seen, mut signers) = (BTreeSet::new(), Vec::new());
        for signature in &self.signatures {
            let is_of =
                |key: &&VerificationKey| (&key.name, key.id) == (&signature.name, signature.id);
            // A signature of an unknown key says nothing.
            let Some(key) = trusted.iter().find(is_of) else { continue };
            UnparsedPublicKey::new(&ED25519, key.key)
                .verify(self.text.as_bytes(), &signature.bytes)
                .map_err(|_| NoteError::Signature(key.name.clone()))?;
            if seen.insert(key.key) {
                signers.push(key);
            }
        }
        Ok(signers)
    }
}

fn parse_signature(line: &str) -> Result<Signature, NoteError> {
    let invalid = NoteError::Format("a signature line is not `— NAME BASE64`");
    let parts = line.strip_prefix(SIGNATURE_MARK).and_then(|rest| rest.split_once(' '));
    let Some((name, encoded)) = parts else { return Err(invalid) };
    let bytes = BASE64_STANDARD.decode(encoded).unwrap_or_default();
    let is_name = !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c == '+');
    match bytes.split_first_chunk::<4>() {
        Some((id, bytes)) if is_name && !bytes.is_empty() => {
            Ok(Signature { name: name.to_owned(), id: *id, bytes: bytes.to_vec() })
        }
        _ => Err(invalid),
    }
}

impl fmt::Display for Note {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{}", self.text)?;
        for Signature { name, id, bytes } in &self.signatures {
            let encoded = BASE64_STANDARD.encode([&id[..], bytes].concat());
            writeln!(formatter, "{SIGNATURE_MARK}{name} {encoded}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
