use drawbridge_proto::code::v1::SearchRequest;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::sample::{FILE_BYTES_MAX, LIMITS, Sample, no_cancellation};

fn literal_request(query: &str) -> SearchRequest {
    SearchRequest { query: query.to_owned(), ..Default::default() }
}

fn find(sample: &Sample, request: &SearchRequest) -> SearchResult {
    let tree = sample.tree();
    let query = Query::parse(&tree, request, &LIMITS).unwrap();
    search(&tree, &query, &no_cancellation(), |_| {}).unwrap()
}

fn places(result: &SearchResult) -> Vec<String> {
    result
        .matches
        .iter()
        .map(|found| format!("{}:{}:{}", found.path, found.line_number, found.line))
        .collect()
}

#[test]
fn a_literal_query_has_no_metacharacters() {
    let sample = Sample::of(&[("a.rs", "fn a.c() {}\nfn abc() {}\n"), ("b.rs", "a.c a.c")]);
    assert_eq!(
        places(&find(&sample, &literal_request("a.c"))),
        ["a.rs:1:fn a.c() {}", "b.rs:1:a.c a.c"]
    );
}

#[test]
fn a_regular_expression_matches_within_a_line() {
    let sample = Sample::of(&[("a.rs", "fn main() {\n\n  let x = 1;\r\n}")]);
    for (query, expected) in [
        (r"^\s+let", vec!["a.rs:3:  let x = 1;"]),
        (";$", vec!["a.rs:3:  let x = 1;"]),
        ("^$", vec!["a.rs:2:"]),
        (r"\{\s*let", vec![]),
        (r"(?s)main.*\}", vec![]),
        (r"^\}$", vec!["a.rs:4:}"]),
        ("x*", vec!["a.rs:1:fn main() {", "a.rs:2:", "a.rs:3:  let x = 1;", "a.rs:4:}"]),
    ] {
        let result = find(&sample, &SearchRequest { regex: true, ..literal_request(query) });
        assert_eq!(places(&result), expected, "{query}");
    }
}

#[test]
fn case_is_ignored_when_asked() {
    let sample = Sample::of(&[("a", "Straße\nSTRASSE\nÄrger\n")]);
    assert_eq!(places(&find(&sample, &literal_request("ärger"))), [""; 0]);
    let request = SearchRequest { ignore_case: true, ..literal_request("ärger") };
    assert_eq!(places(&find(&sample, &request)), ["a:3:Ärger"]);
}

#[test]
fn every_match_has_its_own_context() {
    let sample = Sample::of(&[("a", "one\nhit 1\ntwo\nhit 2\r\nthree\nfour")]);
    let result = find(&sample, &SearchRequest { context_lines: 2, ..literal_request("hit") });
    let context: Vec<_> =
        result.matches.iter().map(|found| (&found.before[..], &found.after[..])).collect();
    let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        context,
        [
            (&lines(&["one"])[..], &lines(&["two", "hit 2"])[..]),
            (&lines(&["hit 1", "two"])[..], &lines(&["three", "four"])[..]),
        ]
    );
}

#[test]
fn a_truncated_result_has_full_context_of_its_last_match() {
    let sample = Sample::of(&[("a", "hit 1\nhit 2\nthree\n")]);
    let request =
        SearchRequest { context_lines: 2, max_results: Some(1), ..literal_request("hit") };
    let result = find(&sample, &request);
    assert!(result.truncated);
    assert_eq!(result.matches[0].after, ["hit 2", "three"]);
}

#[test]
fn a_result_is_truncated_only_when_there_are_more_matches() {
    let sample = Sample::of(&[("a", "hit\nhit\n"), ("b", "hit\n"), ("c", "miss\n")]);
    for (max_results, found, truncated) in
        [(1, 1, true), (2, 2, true), (3, 3, false), (4, 3, false)]
    {
        let result = find(
            &sample,
            &SearchRequest { max_results: Some(max_results), ..literal_request("hit") },
        );
        assert_eq!((result.matches.len(), result.truncated), (found, truncated), "{max_results}");
    }
}

#[test]
fn a_result_that_exceeds_the_message_size_is_truncated() {
    let line = format!("{}\n", "x".repeat(1999));
    let sample = Sample::of(&[]);
    for name in 0..40 {
        sample.write(&format!("{name:02}"), line.repeat(49).as_bytes());
    }
    let request =
        SearchRequest { context_lines: 20, max_results: Some(1000), ..literal_request("x") };
    let result = find(&sample, &request);
    assert!(result.truncated);
    let total: usize = result.matches.iter().map(encoded_size).sum();
    assert!((RESPONSE_BYTES_MAX - 100_000..=RESPONSE_BYTES_MAX).contains(&total), "{total}");
}

#[test]
fn skipped_files_are_counted_by_reason() {
    let sample =
        Sample::of(&[("a.txt", "needle"), (".gitignore", "ignored\n"), ("ignored", "needle")]);
    sample.write("binary", b"needle\n\0");
    sample.write("large", &b"x".repeat(usize::try_from(FILE_BYTES_MAX).unwrap() + 1));
    sample.fifo("fifo");
    sample.link("out", "../outside");
    sample.link("out.txt", "../outside/secret.txt");
    sample.link("in.txt", "a.txt");
    let result = find(&sample, &literal_request("needle"));
    assert_eq!(places(&result), ["a.txt:1:needle"]);
    assert_eq!(result.files_searched, 1);
    assert_eq!(result.skipped, Some(Skipped { binary: 1, too_large: 1, unreadable: 3 }));
}

#[test]
fn glob_and_path_restrict_what_is_searched_and_counted() {
    let sample = Sample::of(&[("src/a.rs", "hit"), ("src/a.md", "hit"), ("b.rs", "hit")]);
    let request =
        SearchRequest { glob: "*.rs".to_owned(), path: "src".to_owned(), ..literal_request("hit") };
    let result = find(&sample, &request);
    assert_eq!(places(&result), ["src/a.rs:1:hit"]);
    assert_eq!(result.files_searched, 1);
}

#[test]
fn line_numbers_and_context_span_the_pieces_of_a_large_file() {
    let text: String = (1..=10_000).map(|number| format!("line {number}\n")).collect();
    assert!(text.len() > PIECE_BYTES && text.len() < usize::try_from(FILE_BYTES_MAX).unwrap());
    let sample = Sample::of(&[("a", &text)]);
    let request =
        SearchRequest { regex: true, context_lines: 1, ..literal_request("^line [0-9]+00$") };
    let result = find(&sample, &request);
    assert_eq!(result.matches.len(), 100);
    for found in &result.matches {
        let number = found.line_number;
        assert_eq!(found.line, format!("line {number}"));
        assert_eq!(found.before, [format!("line {}", number - 1)]);
        let after = Some(number + 1).filter(|number| *number <= 10_000);
        assert_eq!(found.after, Vec::from_iter(after.map(|number| format!("line {number}"))));
    }
}

#[test]
fn a_byte_order_mark_is_not_part_of_the_first_line() {
    let sample = Sample::of(&[("a", "\u{feff}first\nsecond\n")]);
    let result = find(&sample, &SearchRequest { regex: true, ..literal_request("^first$") });
    assert_eq!(places(&result), ["a:1:first"]);
}

#[test]
fn text_around_invalid_utf8_is_found() {
    let sample = Sample::of(&[]);
    sample.write("latin1", b"gr\xfc\xdfe needle\n");
    assert_eq!(
        places(&find(&sample, &literal_request("needle"))),
        ["latin1:1:gr\u{fffd}\u{fffd}e needle"]
    );
}

#[test]
fn repeated_searches_return_matches_in_the_same_order() {
    let names: Vec<_> = (0..50).rev().map(|name| format!("{}/{}.txt", name % 7, name)).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), "hit\nhit\n")).collect();
    let sample = Sample::of(&files);
    let first = find(&sample, &literal_request("hit"));
    assert_eq!(first, find(&sample, &literal_request("hit")));
    let order: Vec<_> = first
        .matches
        .iter()
        .map(|found| (std::path::Path::new(&found.path), found.line_number))
        .collect();
    assert!(order.is_sorted());
}

#[test]
fn a_cancelled_or_expired_search_stops() {
    let sample = Sample::of(&[("a", "hit")]);
    let tree = sample.tree();
    let query = Query::parse(&tree, &literal_request("hit"), &LIMITS).unwrap();
    let past_deadline = Cancellation::new(CancellationToken::new(), Instant::now());
    assert!(matches!(
        search(&tree, &query, &past_deadline, |_| {}),
        Err(CodeError::DeadlinePassed)
    ));
    let token = CancellationToken::new();
    token.cancel();
    let cancelled = Cancellation::new(token, Instant::now() + Duration::from_secs(60));
    assert!(matches!(search(&tree, &query, &cancelled, |_| {}), Err(CodeError::Cancelled)));
}

#[test]
fn progress_grows_and_is_sent_at_intervals() {
    let mut immediate = ProgressTicker::new(Instant::now(), Duration::ZERO);
    let events: Vec<_> = [0, 1, 1, 3]
        .into_iter()
        .map(|files| immediate.tick(files).map(|tick| tick.progress))
        .collect();
    assert_eq!(events, [None, Some(1.0), None, Some(3.0)]);
    let mut slow = ProgressTicker::new(Instant::now(), Duration::from_secs(60));
    assert!(slow.tick(1).is_none());
}

#[test]
fn only_the_beginning_of_an_overlong_line_is_searched_and_counted() {
    let long = "x".repeat(LIMITS.line_bytes_max);
    let sample = Sample::of(&[("a", &format!("one\nhit{long}hit\nthree hit\n")), ("b", &long)]);
    let result = find(&sample, &SearchRequest { context_lines: 1, ..literal_request("hit") });
    assert_eq!(result.lines_cut, 1, "the line of `b` is exactly as long as allowed");
    let lines: Vec<_> =
        result.matches.iter().map(|found| (found.line_number, &found.after[..])).collect();
    assert_eq!(lines, [(2, &["three hit".to_owned()][..]), (3, &[])]);
    assert_eq!(places(&find(&sample, &literal_request("xhit"))), [""; 0]);
}

#[test]
fn files_that_may_hold_keys_are_skipped() {
    let sample = Sample::of(&[("a.txt", "hit"), ("server.PEM", "hit"), ("keys.key/a.txt", "hit")]);
    sample.hard_link("harmless.txt", "server.PEM");
    sample.link("link.txt", "server.PEM");
    assert_eq!(places(&find(&sample, &literal_request("hit"))), ["a.txt:1:hit"]);
    for glob in ["*.PEM", "harmless.txt", "**/a.txt"] {
        let found =
            find(&sample, &SearchRequest { glob: glob.to_owned(), ..literal_request("hit") });
        assert!(places(&found).iter().all(|place| place == "a.txt:1:hit"), "{glob}: {found:?}");
    }
}
