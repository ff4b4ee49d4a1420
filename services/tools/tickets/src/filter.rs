//! A search request, as a query of the helpdesk.

use data_encoding::HEXLOWER;
use drawbridge_proto::tickets::v1::SearchRequest;
use jiff::civil::Date;
use sha2::{Digest as _, Sha256};

use crate::error::TicketError;

const PAGE_SIZE: u32 = 25;
const PAGE_SIZE_MAX: u32 = 100;
/// The result window of the helpdesk's search index (Elasticsearch).
const RESULTS_MAX: u32 = 10_000;
const QUERY_CHARS_MAX: usize = 500;
const NAME_CHARS_MAX: usize = 200;
/// The length of the query digest in a page token, in bytes.
const DIGEST_BYTES: usize = 8;

/// A validated search.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Filter {
    /// In Zammad's search syntax, which is Elasticsearch's query string syntax.
    pub(crate) query: String,
    /// Starts at 1.
    pub(crate) page: u32,
    pub(crate) page_size: u32,
}

impl Filter {
    pub(crate) fn parse(request: &SearchRequest) -> Result<Self, TicketError> {
        let page_size = request.page_size.unwrap_or(PAGE_SIZE);
        if !(1..=PAGE_SIZE_MAX).contains(&page_size) {
            return Err(TicketError::argument("page_size", "must be 1 to 100"));
        }
        let mut filter = Self { query: build_query(request)?, page: 1, page_size };
        if !request.page_token.is_empty() {
            let page =
                request.page_token.split_once('.').filter(|(_, digest)| *digest == filter.digest());
            filter.page = page
                .and_then(|(page, _)| page.parse().ok())
                .filter(|page| *page >= 1 && *page <= RESULTS_MAX / page_size)
                .ok_or(TicketError::argument("page_token", "does not belong to this search"))?;
        }
        Ok(filter)
    }

    /// The token of the next page, if this page's `found` tickets fill it.
    pub(crate) fn next_page(&self, found: usize) -> Option<String> {
        let is_full = u32::try_from(found).is_ok_and(|found| found >= self.page_size);
        let next = self.page + 1;
        (is_full && next <= RESULTS_MAX / self.page_size)
            .then(|| format!("{next}.{}", self.digest()))
    }

    /// Binds a page token to its search.
    fn digest(&self) -> String {
        let digest = Sha256::digest(format!("{}\n{}", self.page_size, self.query));
        HEXLOWER.encode(&digest[..DIGEST_BYTES])
    }
}

/// A conjunction in which every text of the caller is a quoted phrase, so that no text widens a
/// filter that a policy has seen.
fn build_query(request: &SearchRequest) -> Result<String, TicketError> {
    if request.query.chars().count() > QUERY_CHARS_MAX {
        return Err(TicketError::argument("query", "must have at most 500 characters"));
    }
    if request.query.contains('\0') {
        return Err(TicketError::argument("query", "must not contain NUL"));
    }
    let mut clauses: Vec<String> = request.query.split_whitespace().map(quote).collect();
    for (field, value, names) in [
        ("state", &request.state, &["state.name"][..]),
        ("priority", &request.priority, &["priority.name"]),
        ("assignee", &request.assignee, &["owner.login", "owner.email"]),
        ("customer", &request.customer, &["customer.login", "customer.email"]),
    ] {
        if value.chars().count() > NAME_CHARS_MAX {
            return Err(TicketError::argument(field, "is too long"));
        }
        if value.contains('\0') {
            return Err(TicketError::argument(field, "must not contain NUL"));
        }
        if !value.trim().is_empty() {
            let alternatives: Vec<_> =
                names.iter().map(|name| format!("{name}:{}", quote(value.trim()))).collect();
            clauses.push(if alternatives.len() == 1 {
                alternatives.concat()
            } else {
                format!("({})", alternatives.join(" OR "))
            });
        }
    }
    for (name, (from_field, from), (to_field, to)) in [
        (
            "created_at",
            ("created_from", &request.created_from),
            ("created_to", &request.created_to),
        ),
        (
            "updated_at",
            ("updated_from", &request.updated_from),
            ("updated_to", &request.updated_to),
        ),
    ] {
        let (from, to) =
            (parse_day(from_field, from.as_deref())?, parse_day(to_field, to.as_deref())?);
        if from.is_none() && to.is_none() {
            continue;
        }
        let from =
            from.map_or("*".to_owned(), |parse_day| format!("\"{parse_day}T00:00:00.000Z\""));
        let to = to.map_or("*".to_owned(), |parse_day| format!("\"{parse_day}T23:59:59.999Z\""));
        clauses.push(format!("{name}:[{from} TO {to}]"));
    }
    Ok(if clauses.is_empty() { "*".to_owned() } else { clauses.join(" AND ") })
}

fn parse_day(field: &'static str, text: Option<&str>) -> Result<Option<Date>, TicketError> {
    let error = TicketError::argument(field, "must be a date such as 2026-03-31");
    // Only this form: jiff also accepts others.
    let is_iso = |text: &&str| text.len() == 10;
    text.map(|text| Some(text).filter(is_iso).and_then(|text| text.parse().ok()).ok_or(error))
        .transpose()
}

/// Only these two characters are special within quotes.
fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query_of(change: impl FnOnce(&mut SearchRequest)) -> Result<String, String> {
        let mut request = SearchRequest::default();
        change(&mut request);
        Filter::parse(&request).map(|filter| filter.query).map_err(|error| error.to_string())
    }

    #[test]
    fn filters_are_combined() {
        assert_eq!(query_of(|_| {}).unwrap(), "*");
        let all = query_of(|request| {
            request.query = " printer  floor ".to_owned();
            request.state = "open".to_owned();
            request.priority = "3 high".to_owned();
            request.assignee = "olga@desk.example".to_owned();
            request.customer = "tim".to_owned();
            request.created_from = Some("2026-01-31".to_owned());
            request.updated_from = Some("2026-02-01".to_owned());
            request.updated_to = Some("2026-02-02".to_owned());
        });
        assert_eq!(
            all.unwrap(),
            "\"printer\" AND \"floor\" AND state.name:\"open\" AND priority.name:\"3 high\" AND \
             (owner.login:\"olga@desk.example\" OR owner.email:\"olga@desk.example\") AND \
             (customer.login:\"tim\" OR customer.email:\"tim\") AND \
             created_at:[\"2026-01-31T00:00:00.000Z\" TO *] AND \
             updated_at:[\"2026-02-01T00:00:00.000Z\" TO \"2026-02-02T23:59:59.999Z\"]"
        );
    }

    #[test]
    fn a_text_with_nul_is_rejected() {
        let error = query_of(|request| request.query = "printer\0".to_owned()).unwrap_err();
        assert_eq!(error, "`query`: must not contain NUL");
        let error = query_of(|request| request.state = "\0".to_owned()).unwrap_err();
        assert_eq!(error, "`state`: must not contain NUL");
    }

    #[test]
    fn every_text_becomes_a_quoted_phrase() {
        for (text, expected) in [
            ("state.name:closed", r#""state.name:closed""#),
            (r#"a" OR "b"#, r#""a\"" AND "OR" AND "\"b""#),
            (r"back\slash", r#""back\\slash""#),
            (r#"\" OR *"#, r#""\\\"" AND "OR" AND "*""#),
        ] {
            assert_eq!(query_of(|request| request.query = text.to_owned()).unwrap(), expected);
        }
        let state =
            query_of(|request| request.state = "open\" OR state.name:\"closed".to_owned()).unwrap();
        assert_eq!(state, r#"state.name:"open\" OR state.name:\"closed""#);
    }

    #[test]
    fn an_invalid_date_is_rejected() {
        for text in [
            "",
            "2026-02-30",
            "2026-1-1",
            "yesterday",
            "2026-01-01T00:00:00Z",
            "+002026-01-01",
            "* TO *] OR ",
        ] {
            let error = query_of(|request| request.created_to = Some(text.to_owned())).unwrap_err();
            assert_eq!(error, "`created_to`: must be a date such as 2026-03-31", "{text}");
        }
    }

    #[test]
    fn a_page_token_is_valid_only_for_its_search() {
        let request = |query: &str, page_size, page_token: &str| SearchRequest {
            query: query.to_owned(),
            page_size: Some(page_size),
            page_token: page_token.to_owned(),
            ..SearchRequest::default()
        };
        let first = Filter::parse(&request("printer", 2, "")).unwrap();
        assert_eq!((first.page, first.next_page(1)), (1, None));
        let token = first.next_page(2).unwrap();
        let second = Filter::parse(&request("printer", 2, &token)).unwrap();
        assert_eq!(second.page, 2);
        let beyond = format!("5001.{}", first.digest());
        for (query, page_size, token) in [
            ("printers", 2, &*token),
            ("printer", 3, &token),
            ("printer", 2, "2"),
            ("printer", 2, &beyond),
        ] {
            let error = Filter::parse(&request(query, page_size, token)).unwrap_err();
            assert!(error.to_string().starts_with("`page_token`"), "{token}: {error}");
        }
        for page_size in [0, 101] {
            assert!(Filter::parse(&request("printer", page_size, "")).is_err());
        }
        let last = Filter { page: 5000, ..second };
        assert_eq!(last.next_page(2), None);
    }
}
