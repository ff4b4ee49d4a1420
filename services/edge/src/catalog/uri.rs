//! Resource URIs: RFC 6570 templates, and matching URIs against them.

use percent_encoding::percent_decode_str;

mod overlap;

/// The longest URI template, in bytes.
const URI_TEMPLATE_BYTES_MAX: usize = 2048;

/// A URI template of literals and simple (`{name}`) or reserved (`{+name}`) variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UriTemplate {
    text: String,
    parts: Vec<Part>,
}

/// The names of a template's variables and their values in one URI.
pub(crate) type Variables = Vec<(String, String)>;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Variable { name: String, reserved: bool },
}

/// Why a text is not a valid URI template.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UriTemplateError {
    #[error("it exceeds {URI_TEMPLATE_BYTES_MAX} bytes")]
    TooLong,
    #[error("it has no scheme (expected e.g. `code://`)")]
    Scheme,
    #[error("it has an unclosed brace or an invalid variable name")]
    Brace,
    #[error("two variables are adjacent, so the end of the first is ambiguous")]
    Adjacent,
}

impl UriTemplate {
    pub(crate) fn parse(text: &str) -> Result<Self, UriTemplateError> {
        if text.len() > URI_TEMPLATE_BYTES_MAX {
            return Err(UriTemplateError::TooLong);
        }
        if !text
            .split_once("://")
            .is_some_and(|(scheme, _)| !scheme.is_empty() && !scheme.contains('{'))
        {
            return Err(UriTemplateError::Scheme);
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (literal, after) = rest.split_at(rest.find('{').unwrap_or(rest.len()));
            if !literal.is_empty() {
                parts.push(Part::Literal(literal.to_owned()));
            }
            rest = after;
            let Some(inside) = after.strip_prefix('{') else { continue };
            let (expression, after) = inside.split_once('}').ok_or(UriTemplateError::Brace)?;
            if matches!(parts.last(), Some(Part::Variable { .. })) {
                return Err(UriTemplateError::Adjacent);
            }
            parts.push(variable(expression)?);
            rest = after;
        }
        Ok(Self { text: text.to_owned(), parts })
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Names of the variables.
    pub(crate) fn variables(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Variable { name, .. } => Some(name.as_str()),
            Part::Literal(_) => None,
        })
    }

    /// The variables' values, decoded, if `uri` matches.
    pub(crate) fn matches(&self, uri: &str) -> Option<Variables> {
        let mut values = Vec::new();
        let mut rest = uri;
        let mut parts = self.parts.iter().peekable();
        while let Some(part) = parts.next() {
            match part {
                Part::Literal(literal) => rest = rest.strip_prefix(literal.as_str())?,
                Part::Variable { name, reserved } => {
                    let end = match parts.peek() {
                        Some(Part::Literal(next)) => rest.find(next.as_str())?,
                        _ => rest.len(),
                    };
                    let (raw, after) = rest.split_at(end);
                    if raw.is_empty() || (!reserved && raw.contains(['/', '?', '#'])) {
                        return None;
                    }
                    let value = percent_decode_str(raw).decode_utf8().ok()?;
                    // U+0000 never reaches a tool.
                    if value.contains('\0') {
                        return None;
                    }
                    values.push((name.clone(), value.into_owned()));
                    rest = after;
                }
            }
        }
        rest.is_empty().then_some(values)
    }
}

fn variable(expression: &str) -> Result<Part, UriTemplateError> {
    let (name, reserved) = match expression.strip_prefix('+') {
        Some(name) => (name, true),
        None => (expression, false),
    };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if name.is_empty() || !name.bytes().all(allowed) {
        return Err(UriTemplateError::Brace);
    }
    Ok(Part::Variable { name: name.to_owned(), reserved })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(template: &str, uri: &str, values: Option<&[(&str, &str)]>) {
        let matched = UriTemplate::parse(template).unwrap().matches(uri);
        let values = values.map(|values| {
            values
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect::<Vec<_>>()
        });
        assert_eq!(matched, values, "{template} {uri}");
    }

    #[test]
    fn a_matching_uri_gives_its_variables_decoded() {
        check("code://{+path}", "code://src/a.rs", Some(&[("path", "src/a.rs")]));
        check("code://{+path}", "code://src%2Fa%20b.rs", Some(&[("path", "src/a b.rs")]));
        check("invoice://{id}", "invoice://42", Some(&[("id", "42")]));
        check("x://{a}/of/{b}", "x://1/of/2", Some(&[("a", "1"), ("b", "2")]));
        check("fixed://all", "fixed://all", Some(&[]));
    }

    #[test]
    fn a_different_uri_does_not_match() {
        check("code://{+path}", "code://", None);
        check("invoice://{id}", "invoice://4/2", None);
        check("invoice://{id}", "invoices://42", None);
        check("fixed://all", "fixed://all/1", None);
        check("code://{+path}", "code://%ff", None);
    }

    #[test]
    fn an_invalid_template_is_rejected() {
        let long = format!("x://{}", "a".repeat(URI_TEMPLATE_BYTES_MAX));
        assert_eq!(UriTemplate::parse(&long), Err(UriTemplateError::TooLong));
        assert_eq!(UriTemplate::parse("{path}"), Err(UriTemplateError::Scheme));
        assert_eq!(UriTemplate::parse("x://{path"), Err(UriTemplateError::Brace));
        assert_eq!(UriTemplate::parse("x://{}"), Err(UriTemplateError::Brace));
        assert_eq!(UriTemplate::parse("x://{a}{b}"), Err(UriTemplateError::Adjacent));
    }
}
