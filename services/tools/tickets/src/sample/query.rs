//! The supported part of the query syntax: phrases, fields, time ranges, `AND` and `OR`.

/// A parsed query.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Matcher {
    All(Vec<Self>),
    Any(Vec<Self>),
    /// A field contains this text, ignoring case.
    Text(Field, String),
    /// A time is in this range.
    Between(Field, Option<String>, Option<String>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Any,
    State,
    Priority,
    OwnerLogin,
    OwnerEmail,
    CustomerLogin,
    CustomerEmail,
    CreatedAt,
    UpdatedAt,
}

const FIELDS: [(&str, Field); 8] = [
    ("state.name:", Field::State),
    ("priority.name:", Field::Priority),
    ("owner.login:", Field::OwnerLogin),
    ("owner.email:", Field::OwnerEmail),
    ("customer.login:", Field::CustomerLogin),
    ("customer.email:", Field::CustomerEmail),
    ("created_at:", Field::CreatedAt),
    ("updated_at:", Field::UpdatedAt),
];

impl Matcher {
    /// Whether it matches a ticket with these texts.
    pub(super) fn matches<'a>(&self, texts: &impl Fn(Field) -> Vec<&'a str>) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|clause| clause.matches(texts)),
            Self::Any(parts) => parts.iter().any(|clause| clause.matches(texts)),
            Self::Text(field, text) => texts(*field)
                .iter()
                .any(|field_text| field_text.to_lowercase().contains(&text.to_lowercase())),
            // Timestamps of the same form sort as text.
            Self::Between(field, from, to) => texts(*field).iter().all(|time| {
                from.as_deref().is_none_or(|from| from <= *time)
                    && to.as_deref().is_none_or(|to| *time <= to)
            }),
        }
    }
}

/// Parses a query. None: it is invalid or unsupported.
pub(super) fn parse(query: &str) -> Option<Matcher> {
    if query == "*" {
        return Some(Matcher::All(Vec::new()));
    }
    let mut rest = Parser(query);
    let all = rest.separated(" AND ")?;
    rest.0.is_empty().then_some(all).map(Matcher::All)
}

/// The unparsed rest of the query.
struct Parser<'a>(&'a str);

impl Parser<'_> {
    fn take(&mut self, token: &str) -> bool {
        let rest = self.0.strip_prefix(token);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn separated(&mut self, by: &str) -> Option<Vec<Matcher>> {
        let mut parts = vec![self.clause()?];
        while self.take(by) {
            parts.push(self.clause()?);
        }
        Some(parts)
    }

    fn clause(&mut self) -> Option<Matcher> {
        if self.take("(") {
            let any = self.separated(" OR ")?;
            return self.take(")").then_some(Matcher::Any(any));
        }
        let field =
            FIELDS.iter().find(|(name, _)| self.take(name)).map_or(Field::Any, |(_, field)| *field);
        if !self.take("[") {
            return Some(Matcher::Text(field, self.phrase()?));
        }
        let from = self.bound()?;
        let to = self.take(" TO ").then(|| self.bound())??;
        self.take("]").then_some(Matcher::Between(field, from, to))
    }

    /// A bound of a range. `*` is unbounded.
    fn bound(&mut self) -> Option<Option<String>> {
        if self.take("*") { Some(None) } else { self.phrase().map(Some) }
    }

    fn phrase(&mut self) -> Option<String> {
        if !self.take("\"") {
            return None;
        }
        let mut phrase = String::new();
        let mut characters = self.0.char_indices();
        loop {
            match characters.next()? {
                (at, '"') => {
                    self.0 = &self.0[at + 1..];
                    return Some(phrase);
                }
                (_, '\\') => phrase.push(characters.next()?.1),
                (_, other) => phrase.push(other),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queries_of_the_service_are_supported() {
        let text = |field, text: &str| Matcher::Text(field, text.to_owned());
        assert_eq!(parse("*"), Some(Matcher::All(vec![])));
        let query =
            r#""a \" OR \\" AND (owner.login:"b" OR owner.email:"b") AND created_at:["c" TO *]"#;
        let expected = Matcher::All(vec![
            text(Field::Any, "a \" OR \\"),
            Matcher::Any(vec![text(Field::OwnerLogin, "b"), text(Field::OwnerEmail, "b")]),
            Matcher::Between(Field::CreatedAt, Some("c".to_owned()), None),
        ]);
        assert_eq!(parse(query), Some(expected));
        for query in
            ["", "a", "\"a", "\"a\" OR \"b\"", "(\"a\"", "number:\"1\"", "created_at:[\"a\" TO"]
        {
            assert_eq!(parse(query), None, "{query}");
        }
    }
}
