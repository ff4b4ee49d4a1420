//! Parsed and validated requests.

use std::{
    fmt,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use drawbridge_proto::code::v1::{ListFilesRequest, SearchRequest};
use globset::{GlobBuilder, GlobMatcher};
use grep_regex::{RegexMatcher, RegexMatcherBuilder};
use regex_syntax::ast::Span;

use crate::{
    error::CodeError,
    tree::{Tree, TreePath},
};

const CONTEXT_LINES: RangeInclusive<u32> = 0..=20;
const SEARCH_RESULTS: RangeInclusive<u32> = 1..=1000;
const SEARCH_RESULTS_DEFAULT: u32 = 100;
const LIST_RESULTS: RangeInclusive<u32> = 1..=10_000;
const LIST_RESULTS_DEFAULT: u32 = 1000;
/// The approximate maximum size of a response, in bytes: within the 4 MiB that gRPC clients accept.
pub(crate) const RESPONSE_BYTES_MAX: usize = 3 * 1024 * 1024;
/// The largest compiled regular expression, in bytes. It also bounds the time per byte of text.
const REGEX_BYTES_MAX: usize = 2 * 1024 * 1024;
/// The largest cache of the regular expression's lazy automaton, in bytes.
const REGEX_CACHE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Limits of a search.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SearchLimits {
    /// The longest query, in bytes.
    pub(crate) query_bytes_max: usize,
    /// The longest glob, in bytes.
    pub(crate) glob_bytes_max: usize,
    /// How much of a line is searched, in bytes.
    pub(crate) line_bytes_max: usize,
}

/// The maximum nesting depth of a regular expression.
const REGEX_NEST_MAX: u32 = 100;

/// The files that a call covers.
#[derive(Debug)]
pub(crate) struct Scope {
    /// Only files under this folder, whose path contains no links.
    pub(crate) folder: PathBuf,
    glob: Option<GlobMatcher>,
}

impl Scope {
    pub(crate) fn parse(
        tree: &Tree,
        path: &str,
        glob: &str,
        limits: &SearchLimits,
    ) -> Result<Self, CodeError> {
        check_length("glob", glob, limits.glob_bytes_max)?;
        let glob = if glob.is_empty() { None } else { Some(parse_glob(glob)?) };
        Ok(Self { folder: tree.folder(&TreePath::parse(path)?)?, glob })
    }

    /// Whether the glob, if any, matches this file.
    pub(crate) fn matches(&self, path: &Path) -> bool {
        self.glob.as_ref().is_none_or(|glob| glob.is_match(path))
    }

    /// Whether this path is in the folder, or is one of its ancestors.
    pub(crate) fn touches(&self, path: &Path) -> bool {
        path.starts_with(&self.folder) || self.folder.starts_with(path)
    }
}

/// As in a `.gitignore`, a glob without `/` matches names in any folder, a glob with `/` matches
/// whole paths, and a glob that ends with `/` matches all files of a folder. A leading `./` means
/// the tree's root.
fn parse_glob(text: &str) -> Result<GlobMatcher, CodeError> {
    let reject = |problem: String| Err(CodeError::argument("glob", problem));
    if text.starts_with('!') {
        return reject(
            "cannot exclude files; it selects files to include (write `[!]` for a `!`)".to_owned(),
        );
    }
    let from_root = text.strip_prefix("./").map(|suffix| suffix.trim_start_matches('/'));
    let from_root = from_root.or_else(|| text.strip_prefix('/'));
    let path = from_root.unwrap_or(text);
    if path.split('/').any(|name| matches!(name, "." | "..")) {
        return reject("must not contain `.` or `..` as a name".to_owned());
    }
    let (path, suffix) = path.strip_suffix('/').map_or((path, ""), |folder| (folder, "/**"));
    let anywhere = if from_root.is_none() && !path.contains('/') { "**/" } else { "" };
    let pattern =
        if path.is_empty() { "**".to_owned() } else { format!("{anywhere}{path}{suffix}") };
    let glob = GlobBuilder::new(&pattern).literal_separator(true).build();
    // The error's full text repeats the rewritten pattern, not the caller's.
    let glob = glob.map_err(|error| CodeError::argument("glob", error.kind().to_string()))?;
    Ok(glob.compile_matcher())
}

/// A search.
#[derive(Debug)]
pub(crate) struct Query {
    pub(crate) scope: Scope,
    pub(crate) matcher: RegexMatcher,
    pub(crate) context_lines: usize,
    pub(crate) max_results: usize,
    pub(crate) line_bytes_max: usize,
}

impl Query {
    /// # Errors
    /// When an argument is invalid, which the error names, or the folder does not exist.
    pub(crate) fn parse(
        tree: &Tree,
        request: &SearchRequest,
        limits: &SearchLimits,
    ) -> Result<Self, CodeError> {
        check_length("query", &request.query, limits.query_bytes_max)?;
        Ok(Self {
            line_bytes_max: limits.line_bytes_max.max(1),
            matcher: parse_query(request)?,
            context_lines: check_range("context_lines", request.context_lines, CONTEXT_LINES)?,
            max_results: check_range(
                "max_results",
                request.max_results.unwrap_or(SEARCH_RESULTS_DEFAULT),
                SEARCH_RESULTS,
            )?,
            scope: Scope::parse(tree, &request.path, &request.glob, limits)?,
        })
    }
}

fn parse_query(request: &SearchRequest) -> Result<RegexMatcher, CodeError> {
    if request.query.is_empty() {
        return Err(CodeError::argument("query", "must not be empty"));
    }
    if !request.regex && request.query.contains(['\n', '\r']) {
        return Err(CodeError::argument("query", "must be a single line"));
    }
    if request.regex {
        check_regex(&request.query)?;
    }
    RegexMatcherBuilder::new()
        .fixed_strings(!request.regex)
        .case_insensitive(request.ignore_case)
        .multi_line(true)
        // Matches never span lines, and `$` matches before `\r\n` as well as before `\n`.
        .crlf(true)
        .size_limit(REGEX_BYTES_MAX)
        .dfa_size_limit(REGEX_CACHE_BYTES_MAX)
        .nest_limit(REGEX_NEST_MAX)
        .build(&request.query)
        .map_err(|error| CodeError::argument("query", error.to_string()))
}

/// Rejects an invalid regular expression. The matcher's builder wraps the pattern before parsing,
/// so it would accept `a)(b` and report wrong positions.
fn check_regex(pattern: &str) -> Result<(), CodeError> {
    let parsed = regex_syntax::ParserBuilder::new()
        .utf8(false)
        .nest_limit(REGEX_NEST_MAX)
        .build()
        .parse(pattern);
    let problem = match parsed {
        Ok(_) => return Ok(()),
        Err(regex_syntax::Error::Parse(error)) => describe_error(error.span(), error.kind()),
        Err(regex_syntax::Error::Translate(error)) => describe_error(error.span(), error.kind()),
        Err(error) => error.to_string(),
    };
    Err(CodeError::argument("query", problem))
}

fn describe_error(span: &Span, problem: &dyn fmt::Display) -> String {
    format!("invalid regular expression, at character {}: {problem}", span.start.column)
}

/// A listing.
#[derive(Debug)]
pub(crate) struct ListQuery {
    pub(crate) scope: Scope,
    pub(crate) max_results: usize,
}

impl ListQuery {
    /// # Errors
    /// When an argument is invalid, which the error names, or the folder does not exist.
    pub(crate) fn parse(
        tree: &Tree,
        request: &ListFilesRequest,
        limits: &SearchLimits,
    ) -> Result<Self, CodeError> {
        let max_results = request.max_results.unwrap_or(LIST_RESULTS_DEFAULT);
        Ok(Self {
            max_results: check_range("max_results", max_results, LIST_RESULTS)?,
            scope: Scope::parse(tree, &request.path, &request.glob, limits)?,
        })
    }
}

fn check_length(field: &'static str, text: &str, bytes_max: usize) -> Result<(), CodeError> {
    if text.len() > bytes_max {
        return Err(CodeError::argument(field, format!("must have at most {bytes_max} bytes")));
    }
    Ok(())
}

fn check_range(
    field: &'static str,
    value: u32,
    range: RangeInclusive<u32>,
) -> Result<usize, CodeError> {
    let problem = || format!("must be {} to {}, not {value}", range.start(), range.end());
    if !range.contains(&value) {
        return Err(CodeError::argument(field, problem()));
    }
    usize::try_from(value).map_err(|_| CodeError::argument(field, problem()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{LIMITS, Sample};

    fn error_of(request: &SearchRequest) -> String {
        let sample = Sample::of(&[("a.txt", "")]);
        Query::parse(&sample.tree(), request, &LIMITS).unwrap_err().to_string()
    }

    fn literal_request(query: &str) -> SearchRequest {
        SearchRequest { query: query.to_owned(), ..Default::default() }
    }

    fn regex_request(query: &str) -> SearchRequest {
        SearchRequest { regex: true, ..literal_request(query) }
    }

    #[test]
    fn a_query_must_be_a_single_nonempty_line() {
        assert_eq!(error_of(&literal_request("")), "`query`: must not be empty");
        assert_eq!(error_of(&regex_request("")), "`query`: must not be empty");
        assert_eq!(error_of(&literal_request("a\nb")), "`query`: must be a single line");
        assert_eq!(
            error_of(&regex_request(r"a\nb")),
            r#"`query`: the literal "\n" is not allowed in a regex"#
        );
    }

    #[test]
    fn an_invalid_regex_is_rejected_with_the_position() {
        for (query, message) in [
            ("fn (main", "at character 4: unclosed group"),
            ("ä)(b", "at character 2: unopened group"),
            (r"a\p{Nope}", "at character 2: Unicode property not found"),
        ] {
            assert_eq!(
                error_of(&regex_request(query)),
                format!("`query`: invalid regular expression, {message}")
            );
        }
    }

    #[test]
    fn a_large_or_deeply_nested_regex_is_rejected() {
        let large = error_of(&regex_request(r"(\w{1000}){1000}"));
        assert_eq!(large, "`query`: compiled regex exceeds size limit of 2097152");
        let deep = error_of(&regex_request(&format!("{}{}", "(".repeat(200), ")".repeat(200))));
        assert!(
            deep.contains("exceed the maximum number of nested parentheses/brackets"),
            "{deep}"
        );
    }

    #[test]
    fn an_overlong_query_or_glob_is_rejected() {
        let long = "x".repeat(LIMITS.query_bytes_max + 1);
        assert_eq!(error_of(&literal_request(&long)), "`query`: must have at most 4096 bytes");
        let request =
            SearchRequest { glob: "x".repeat(LIMITS.glob_bytes_max + 1), ..literal_request("a") };
        assert_eq!(error_of(&request), "`glob`: must have at most 1024 bytes");
    }

    #[test]
    fn an_invalid_glob_is_rejected() {
        let request = SearchRequest { glob: "a[".to_owned(), ..literal_request("a") };
        assert_eq!(error_of(&request), "`glob`: unclosed character class; missing ']'");
        for (glob, problem) in [
            ("!*.rs", "cannot exclude files; it selects files to include (write `[!]` for a `!`)"),
            ("../a", "must not contain `.` or `..` as a name"),
            ("a/./b", "must not contain `.` or `..` as a name"),
            (".", "must not contain `.` or `..` as a name"),
        ] {
            let request = SearchRequest { glob: glob.to_owned(), ..literal_request("a") };
            assert_eq!(error_of(&request), format!("`glob`: {problem}"), "{glob}");
        }
    }

    #[test]
    fn a_number_out_of_range_is_rejected_with_the_range() {
        let context = SearchRequest { context_lines: 21, ..literal_request("a") };
        assert_eq!(error_of(&context), "`context_lines`: must be 0 to 20, not 21");
        for max_results in [0, 1001] {
            let request = SearchRequest { max_results: Some(max_results), ..literal_request("a") };
            let message = format!("`max_results`: must be 1 to 1000, not {max_results}");
            assert_eq!(error_of(&request), message);
        }
        let list = ListFilesRequest { max_results: Some(10_001), ..Default::default() };
        let error = ListQuery::parse(&Sample::of(&[]).tree(), &list, &LIMITS).unwrap_err();
        assert_eq!(error.to_string(), "`max_results`: must be 1 to 10000, not 10001");
    }

    #[test]
    fn a_path_must_name_a_folder_of_the_tree() {
        let error_of =
            |path: &str| error_of(&SearchRequest { path: path.to_owned(), ..literal_request("a") });
        assert_eq!(error_of("../outside"), "`path`: must not contain `..`");
        assert_eq!(error_of("/etc"), "`path`: must be relative to the source tree's root");
        assert_eq!(error_of("missing"), "no such file or folder in the source tree");
        assert_eq!(error_of("a.txt"), "the path is not a folder");
    }

    #[test]
    fn a_request_without_limits_has_the_defaults() {
        let tree = Sample::of(&[]).tree();
        let query = Query::parse(&tree, &literal_request("a"), &LIMITS).unwrap();
        assert_eq!((query.max_results, query.context_lines), (100, 0));
        let list = ListQuery::parse(&tree, &ListFilesRequest::default(), &LIMITS).unwrap();
        assert_eq!(list.max_results, 1000);
    }
}
