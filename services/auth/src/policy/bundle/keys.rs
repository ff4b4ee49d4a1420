//! Which signatures make a bundle trusted.

use drawbridge_config::{ConfigError, ConfigText, Mistakes, policy_keys::PolicyKeysFile};

use super::{
    BundleError,
    note::{Note, VerificationKey},
    release::{Release, is_name},
};

/// The keys that sign bundles, and how many of them must have signed one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedKeys {
    name: String,
    threshold: usize,
    keys: Vec<VerificationKey>,
}

impl TrustedKeys {
    /// Parses the file of keys.
    ///
    /// # Errors
    /// The mistakes of the file.
    pub fn parse(text: &ConfigText) -> Result<Self, ConfigError> {
        let mut mistakes = Mistakes::new(text);
        let file: Option<PolicyKeysFile> = mistakes.parse();
        let keys = file.map(|file| Self::lower(&file, &mut mistakes));
        mistakes.finish(keys)
    }

    fn lower(file: &PolicyKeysFile, mistakes: &mut Mistakes<'_>) -> Self {
        if !is_name(&file.name) {
            let problem = "a name has letters, digits, `-`, `_`, `.` and `/`, at most 128";
            mistakes.push(file.name.span(), problem);
        }
        let mut keys: Vec<VerificationKey> = Vec::new();
        for text in &file.keys {
            match text.parse::<VerificationKey>() {
                Err(error) => mistakes.push(text.span(), error.to_string()),
                // It would count twice.
                Ok(key) if keys.iter().any(|other| other.is_same_key(&key)) => {
                    mistakes.push(text.span(), "this key is in the list already");
                }
                Ok(key) => keys.push(key),
            }
        }
        let threshold = usize::try_from(file.threshold.get()).unwrap_or(usize::MAX);
        if threshold > file.keys.len() {
            let count = file.keys.len();
            let problem = format!("{threshold} keys must sign, but only {count} are listed");
            mistakes.push(file.threshold.span(), problem);
        }
        Self { name: file.name.to_string(), threshold, keys }
    }

    /// Whether they are for bundles of this name.
    pub(super) fn is_for(&self, name: &str) -> bool {
        self.name == name
    }

    /// What a signed note says, if enough of the keys have signed it.
    ///
    /// # Errors
    /// If they have not, or the note is about something else.
    pub fn verify(&self, note: &[u8]) -> Result<Release, BundleError> {
        let note = Note::parse(note)?;
        let signers = note.signers(&self.keys)?;
        if signers.len() < self.threshold {
            let join = |names: Vec<&str>| match names.as_slice() {
                [] => "none".to_owned(),
                names => names.join(", "),
            };
            return Err(BundleError::Signers {
                wanted: self.threshold,
                trusted: join(signers.iter().map(|key| key.name()).collect()),
                all: join(note.key_names().collect()),
            });
        }
        let release = Release::parse(note.text())?;
        if release.name != self.name {
            return Err(BundleError::Name { wanted: self.name.clone(), is: release.name });
        }
        Ok(release)
    }

    /// The names of the keys that have signed a note.
    pub(super) fn signers(&self, note: &[u8]) -> Vec<String> {
        let note = Note::parse(note).ok();
        let signers = note.and_then(|note| Some(note.signers(&self.keys).ok()?.into_iter()));
        let names = signers.into_iter().flatten().map(|key| key.name().to_owned());
        names.collect()
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::{super::note::SigningKey, *};

    fn key(name: &str) -> SigningKey {
        SigningKey::generate(name).unwrap().0
    }

    fn file(text: &str) -> Result<TrustedKeys, String> {
        let text = ConfigText::new(std::path::Path::new("/policy-keys.toml"), text);
        TrustedKeys::parse(&text).map_err(|error| error.to_string())
    }

    #[test]
    fn the_threshold_counts_different_trusted_keys() {
        let keys = ["a", "b", "c"].map(key);
        let other = key("a");
        let listed = keys.each_ref().map(|key| format!("{:?}", key.public().to_string()));
        let trusted = file(&format!("threshold = 2\nkeys = [{}]", listed.join(", "))).unwrap();
        let release = Release {
            name: "policies".to_owned(),
            sha256: [0; 32],
            revision: 1,
            created: Timestamp::UNIX_EPOCH,
            not_after: None,
            allow_rollback: None,
        };
        let verify = |name: &str, keys: &[&SigningKey]| {
            let release = Release { name: name.to_owned(), ..release.clone() };
            let mut note = Note::new(release.to_string()).unwrap();
            keys.iter().for_each(|key| note.sign(key));
            trusted.verify(note.to_string().as_bytes()).map_err(|error| error.to_string())
        };
        assert_eq!(verify("policies", &[&keys[0], &keys[2]]), Ok(release.clone()));
        assert_eq!(verify("policies", &[&other, &keys[2], &keys[1]]), Ok(release.clone()));
        let refused = verify("policies", &[&other, &keys[2]]).unwrap_err();
        insta::assert_snapshot!(
            refused,
            @"2 of the trusted keys must sign the bundle; it has the signatures of a, c, of which trusted: c"
        );
        let refused = verify("staging", &[&keys[0], &keys[2]]).unwrap_err();
        insta::assert_snapshot!(
            refused,
            @r#"the bundle has the name "staging"; the policy keys are for bundles named "policies""#
        );
    }

    #[test]
    fn a_file_of_keys_reports_its_mistakes_with_their_places() {
        let public = key("a").public().to_string();
        let error = file(&format!(
            "name = \"a b\"\nthreshold = 5\nkeys = [\n\"{public}\",\n\"{public}\",\n\"a+b\"\n]"
        ));
        let error = error.unwrap_err();
        for wanted in [
            "/policy-keys.toml:1:8: a name has",
            "/policy-keys.toml:2:13: 5 keys must sign, but only 3 are listed",
            "/policy-keys.toml:5:1: this key is in the list already",
            "/policy-keys.toml:6:1: invalid key",
        ] {
            assert!(error.contains(wanted), "{wanted}: {error}");
        }
        assert!(file("keys = []").unwrap_err().contains("only 0 are listed"));
    }
}
