//! The checkout whose SDK a new service depends on.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use url::Url;

use super::Language;

/// The checkout that this program was built from.
const BUILT_FROM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// A checkout with an SDK.
pub(super) struct Sdk {
    /// Its absolute path.
    pub(super) checkout: String,
    /// The same as a `file` URL.
    pub(super) url: Url,
}

impl Sdk {
    /// The SDK of a language, in the checkout that the caller names or the one that this program
    /// was built from.
    ///
    /// # Errors
    /// When the checkout has no such SDK, or its path cannot be written into the files of a build.
    pub(super) fn find(given: Option<&Path>, language: Language) -> anyhow::Result<Self> {
        let checkout = given.unwrap_or(Path::new(BUILT_FROM));
        let package = match language {
            Language::Rust => "sdk/Cargo.toml",
            Language::Python => "sdk/python/pyproject.toml",
            Language::Go => "sdk/go/go.mod",
        };
        if !checkout.join(package).is_file() {
            match given {
                None => bail!(
                    "the SDK for {language} is not published yet: name a checkout of Drawbridge \
                     with --sdk"
                ),
                Some(given) => bail!("{} has no {package}", given.display()),
            }
        }
        let checkout = checkout.canonicalize().context("cannot find the checkout")?;
        Self::at(checkout)
    }

    fn at(checkout: PathBuf) -> anyhow::Result<Self> {
        let url = Url::from_file_path(&checkout).ok();
        let text = checkout.into_os_string().into_string().ok();
        // The path is written into TOML, a Dockerfile and go.mod.
        let text = text.filter(|text| !text.contains(['"', '\'', '\\', '\n']));
        let (Some(checkout), Some(url)) = (text, url) else {
            bail!("the path of the checkout has a quote, a backslash or a character beyond UTF-8");
        };
        Ok(Self { checkout, url })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_sdk_is_in_the_checkout_that_the_program_was_built_from() {
        for language in [Language::Rust, Language::Python, Language::Go] {
            let sdk = Sdk::find(None, language).unwrap();
            assert!(Path::new(&sdk.checkout).join("Cargo.lock").exists());
        }
    }

    #[test]
    fn a_folder_without_the_sdk_is_rejected() {
        let folder = tempfile::tempdir().unwrap();
        let error = Sdk::find(Some(folder.path()), Language::Python).err().unwrap();
        assert!(error.to_string().contains("has no sdk/python/pyproject.toml"), "{error}");
    }

    #[test]
    fn a_path_that_would_end_a_quoted_text_is_rejected() {
        assert!(Sdk::at(PathBuf::from("/src/draw\"bridge")).is_err());
        let spaced = Sdk::at(PathBuf::from("/src/a b")).unwrap();
        assert_eq!(spaced.url.as_str(), "file:///src/a%20b");
    }
}
