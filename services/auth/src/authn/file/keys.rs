//! Where the keys of an issuer come from.

use std::{ops::Range, path::PathBuf};

use drawbridge_config::{
    Spanned,
    issuers::{IssuerEntry, Preset},
};
use drawbridge_runtime::is_loopback;
use drawbridge_transport::{
    fetch::{Fetcher, NetworkScope},
    jwks::{KeySource, PrivateServer},
};
use url::Url;

use super::{IssuerBuilder, PRIVATE_ADDRESSES, preset};

impl IssuerBuilder<'_, '_> {
    pub(super) fn keys(&mut self, entry: &IssuerEntry) -> Option<KeySource> {
        if entry.preset == Some(Preset::Google) {
            let spans = [
                entry.jwks_url.as_ref().map(|url| url.span()),
                entry.jwks_file.as_ref().map(|file| file.span()),
                entry.jwks_ca_file.as_ref().map(|file| file.span()),
                entry.jwks_token_file.as_ref().map(|file| file.span()),
                entry.algorithms.as_ref().map(|algorithms| algorithms.span()),
            ];
            for span in spans.into_iter().flatten() {
                let problem = "Google's access tokens are opaque and have no keys";
                self.mistakes.push_combined(span, problem);
            }
            return None;
        }
        if entry.jwks_ca_file.is_some() || entry.jwks_token_file.is_some() {
            return self.private_server(entry);
        }
        match (&entry.jwks_url, &entry.jwks_file) {
            (Some(_), Some(file)) => {
                let problem = "jwks_url and jwks_file are mutually exclusive";
                self.mistakes.push_combined(file.span(), problem);
                None
            }
            (Some(url), None) => {
                let fetcher = self.fetcher(entry, url, url.span())?;
                Some(KeySource::Url(Url::clone(url), fetcher))
            }
            (None, Some(file)) => Some(KeySource::File(self.mistakes.text().resolve_path(file))),
            (None, None) => {
                let name = &entry.issuer;
                let Ok(url) = name.parse() else {
                    let problem = format!(
                        "the issuer {:?} is not a URL, so its keys cannot be located: set \
                         jwks_url or jwks_file",
                        name.as_str()
                    );
                    self.mistakes.push_combined(name.span(), problem);
                    return None;
                };
                let fetcher = self.fetcher(entry, &url, name.span())?;
                Some(KeySource::Issuer(name.to_string(), fetcher))
            }
        }
    }

    /// The source of keys that are fetched with an authority or a token of their own.
    fn private_server(&mut self, entry: &IssuerEntry) -> Option<KeySource> {
        let files = [&entry.jwks_ca_file, &entry.jwks_token_file];
        let span = files.into_iter().flatten().next().map_or(entry.issuer.span(), |it| it.span());
        if let Some(file) = &entry.jwks_file {
            let problem = "jwks_file needs no jwks_ca_file and no jwks_token_file";
            self.mistakes.push_combined(file.span(), problem);
            return None;
        }
        let url = entry.jwks_url.as_ref().map(|url| (Url::clone(url), url.span()));
        let default = || Some((preset::jwks_url(entry.preset, &entry.issuer)?, span.clone()));
        let Some((url, url_span)) = url.or_else(default) else {
            let problem =
                "jwks_ca_file and jwks_token_file need jwks_url, or the preset kubernetes";
            self.mistakes.push_combined(span, problem);
            return None;
        };
        if entry.jwks_token_file.is_some() && url.scheme() != "https" && !is_loopback(&url) {
            let problem = format!("the token of jwks_token_file is not sent by http: {url}");
            self.mistakes.push_combined(url_span, problem);
            return None;
        }
        let scope = self.fetcher(entry, &url, url_span)?.scope();
        let resolve = |file: &Spanned<PathBuf>| self.mistakes.text().resolve_path(file);
        let ca_file = entry.jwks_ca_file.as_ref().map(resolve);
        let token_file = entry.jwks_token_file.as_ref().map(resolve);
        Some(KeySource::Private(PrivateServer { url, scope, ca_file, token_file }))
    }

    /// The client that fetches a URL of the issuer, which is at `span`.
    pub(super) fn fetcher(
        &mut self,
        entry: &IssuerEntry,
        url: &Url,
        span: Range<usize>,
    ) -> Option<Fetcher> {
        let is_private_allowed = entry.allow_private_addresses;
        match url.scheme() {
            "https" => {}
            "http" if is_private_allowed => {}
            "http" => {
                let problem = format!("{url} is not https; set {PRIVATE_ADDRESSES} to allow http");
                self.mistakes.push(span.clone(), problem);
            }
            _ => self.mistakes.push(span.clone(), format!("{url} is not https")),
        }
        let scope = if is_private_allowed { NetworkScope::Anywhere } else { NetworkScope::Public };
        Fetcher::new(scope)
            .map_err(|error| {
                self.mistakes.push(span, format!("cannot create an HTTP client: {error}"));
            })
            .ok()
    }
}
