//! Request parameters (RFC 6749 sections 3.1 and 3.2).

use std::collections::{HashMap, HashSet};

use crate::error::{ErrorCode, OAuthError};

/// The parameters of a query or a form. An empty parameter is absent; reading a repeated one is an
/// error.
#[derive(Default)]
pub(crate) struct Params {
    values: HashMap<String, String>,
    repeated: HashSet<String>,
}

impl Params {
    pub(crate) fn parse(text: &[u8]) -> Self {
        let mut params = Self::default();
        for (name, value) in
            url::form_urlencoded::parse(text).filter(|(_, value)| !value.is_empty())
        {
            if params.values.insert(name.clone().into_owned(), value.into_owned()).is_some() {
                params.repeated.insert(name.into_owned());
            }
        }
        params
    }

    pub(crate) fn get(&self, name: &str) -> Result<Option<&str>, OAuthError> {
        if self.repeated.contains(name) {
            return Err(ErrorCode::InvalidRequest.because("a parameter is repeated"));
        }
        Ok(self.values.get(name).map(String::as_str))
    }

    /// The value, or `invalid_request` with the description `missing`.
    pub(crate) fn require(&self, name: &str, missing: &'static str) -> Result<&str, OAuthError> {
        self.get(name)?.ok_or(ErrorCode::InvalidRequest.because(missing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_parameter_is_absent_and_a_repeated_one_is_an_error() {
        let params = Params::parse(b"a=1&b=&c=1&c=1&d=%20+x");
        assert_eq!(params.get("a"), Ok(Some("1")));
        assert_eq!(params.get("b"), Ok(None));
        assert_eq!(params.get("c").map_err(|error| error.code), Err(ErrorCode::InvalidRequest));
        assert_eq!(params.get("d"), Ok(Some("  x")));
    }
}
