use drawbridge_proto::code::v1::SearchRequest;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::sample::{FILE_BYTES_MAX, LIMITS, Sample, waiting};

fn ask(query: &str) -> SearchRequest {
    SearchRequest { query: query.to_owned(), ..Default::default() }
}

fn find(sample: &Sample, request: &SearchRequest) -> SearchResult {
    let tree = sample.tree();
    let query = Query::parse(&tree, request, &LIMITS).unwrap();
    search(&tree, &query, &waiting(), |_| {}).unwrap()
}

fn places(result: &SearchResult) -> Vec<String> {
    result
        .matches
        .iter()
        .map(|found| format!("{}:{}:{}", found.path, found.line_number, found.line))
        .collect()
}

#[test]
fn a_literal_query_means_what_it_says() {
    let sample = Sample::of(&[("a.rs", "fn a.c() {}\nfn abc() {}\n"), ("b.rs", "a.c a.c")]);
    assert_eq!(places(&find(&sample, &ask("a.c"))), ["a.rs:1:fn a.c() {}", "b.rs:1:a.c a.c"]);
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
        let result = find(&sample, &SearchRequest { regex: true, ..ask(query) });
        assert_eq!(places(&result), expected, "{query}");
    }
}

#[test]
fn case_is_ignored_when_asked() {
    let sample = Sample::of(&[("a", "Straße\nSTRASSE\nÄrger\n")]);
    assert_eq!(places(&find(&sample, &ask("ärger"))), [""; 0]);
    let request = SearchRequest { ignore_case: true, ..ask("ärger") };
    assert_eq!(places(&find(&sample, &request)), ["a:3:Ärger"]);
}

#[test]
fn every_match_has_its_own_context() {
    let sample = Sample::of(&[("a", "one\nhit 1\ntwo\nhit 2\r\nthree\nfour")]);
    let result = find(&sample, &SearchRequest { context_lines: 2, ..ask("hit") });
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
fn context_of_the_last_match_is_whole_though_the_result_is_truncated() {
    let sample = Sample::of(&[("a", "hit 1\nhit 2\nthree\n")]);
    let request = SearchRequest { context_lines: 2, max_results: Some(1), ..ask("hit") };
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
        let result = find(&sample, &SearchRequest { max_results: Some(max_results), ..ask("hit") });
        assert_eq!((result.matches.len(), result.truncated), (found, truncated), "{max_results}");
    }
}

#[test]
fn a_result_that_would_not_fit_a_message_is_truncated() {
    let line = format!("{}\n", "x".repeat(1999));
    let sample = Sample::of(&[]);
    for name in 0..40 {
        sample.write(&format!("{name:02}"), line.repeat(49).as_bytes());
    }
    let request = SearchRequest { context_lines: 20, max_results: Some(1000), ..ask("x") };
    let result = find(&sample, &request);
    assert!(result.truncated);
    let total: usize = result.matches.iter().map(bytes).sum();
    assert!((RESPONSE_BYTES_MAX - 100_000..=RESPONSE_BYTES_MAX).contains(&total), "{total}");
}

#[test]
fn what_is_left_out_is_counted_by_reason() {
    let sample =
        Sample::of(&[("a.txt", "needle"), (".gitignore", "ignored\n"), ("ignored", "needle")]);
    sample.write("binary", b"needle\n\0");
    sample.write("large", &b"x".repeat(usize::try_from(FILE_BYTES_MAX).unwrap() + 1));
    sample.fifo("fifo");
    sample.link("out", "../outside");
    sample.link("out.txt", "../outside/secret.txt");
    sample.link("in.txt", "a.txt");
    let result = find(&sample, &ask("needle"));
    assert_eq!(places(&result), ["a.txt:1:needle"]);
    assert_eq!(result.files_searched, 1);
    assert_eq!(result.skipped, Some(Skipped { binary: 1, too_large: 1, unreadable: 3 }));
}

#[test]
fn glob_and_path_restrict_what_is_searched_and_counted() {
    let sample = Sample::of(&[("src/a.rs", "hit"), ("src/a.md", "hit"), ("b.rs", "hit")]);
    let request = SearchRequest { glob: "*.rs".to_owned(), path: "src".to_owned(), ..ask("hit") };
    let result = find(&sample, &request);
    assert_eq!(places(&result), ["src/a.rs:1:hit"]);
    assert_eq!(result.files_searched, 1);
}

#[test]
fn line_numbers_and_context_hold_across_the_pieces_of_a_large_file() {
    let text: String = (1..=10_000).map(|number| format!("line {number}\n")).collect();
    assert!(text.len() > PIECE_BYTES && text.len() < usize::try_from(FILE_BYTES_MAX).unwrap());
    let sample = Sample::of(&[("a", &text)]);
    let request = SearchRequest { regex: true, context_lines: 1, ..ask("^line [0-9]+00$") };
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
fn a_byte_order_mark_is_no_part_of_the_first_line() {
    let sample = Sample::of(&[("a", "\u{feff}first\nsecond\n")]);
    let result = find(&sample, &SearchRequest { regex: true, ..ask("^first$") });
    assert_eq!(places(&result), ["a:1:first"]);
}

#[test]
fn text_that_is_not_utf_8_is_found_around_its_bad_bytes() {
    let sample = Sample::of(&[]);
    sample.write("latin1", b"gr\xfc\xdfe needle\n");
    assert_eq!(places(&find(&sample, &ask("needle"))), ["latin1:1:gr\u{fffd}\u{fffd}e needle"]);
}

#[test]
fn two_searches_find_the_same_in_the_same_order() {
    let names: Vec<_> = (0..50).rev().map(|name| format!("{}/{}.txt", name % 7, name)).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), "hit\nhit\n")).collect();
    let sample = Sample::of(&files);
    let first = find(&sample, &ask("hit"));
    assert_eq!(first, find(&sample, &ask("hit")));
    let order: Vec<_> = first
        .matches
        .iter()
        .map(|found| (std::path::Path::new(&found.path), found.line_number))
        .collect();
    assert!(order.is_sorted());
}

#[test]
fn a_search_that_nobody_waits_for_stops() {
    let sample = Sample::of(&[("a", "hit")]);
    let tree = sample.tree();
    let query = Query::parse(&tree, &ask("hit"), &LIMITS).unwrap();
    let late = Cancellation::new(CancellationToken::new(), Instant::now());
    assert!(matches!(search(&tree, &query, &late, |_| {}), Err(CodeError::DeadlinePassed)));
    let token = CancellationToken::new();
    token.cancel();
    let left = Cancellation::new(token, Instant::now() + Duration::from_secs(60));
    assert!(matches!(search(&tree, &query, &left, |_| {}), Err(CodeError::Cancelled)));
}

#[test]
fn progress_grows_and_comes_at_intervals() {
    let mut eager = Pace::new(Instant::now(), Duration::ZERO);
    let told: Vec<_> =
        [0, 1, 1, 3].into_iter().map(|files| eager.due(files).map(|due| due.progress)).collect();
    assert_eq!(told, [None, Some(1.0), None, Some(3.0)]);
    let mut patient = Pace::new(Instant::now(), Duration::from_secs(60));
    assert!(patient.due(1).is_none());
}

#[test]
fn of_a_long_line_the_beginning_is_searched_and_the_result_says_so() {
    let long = "x".repeat(LIMITS.line_bytes_max);
    let sample = Sample::of(&[("a", &format!("one\nhit{long}hit\nthree hit\n")), ("b", &long)]);
    let result = find(&sample, &SearchRequest { context_lines: 1, ..ask("hit") });
    assert_eq!(result.lines_cut, 1, "that of `b` is just as long as a line may be");
    let lines: Vec<_> =
        result.matches.iter().map(|found| (found.line_number, &found.after[..])).collect();
    assert_eq!(lines, [(2, &["three hit".to_owned()][..]), (3, &[])]);
    assert_eq!(places(&find(&sample, &ask("xhit"))), [""; 0]);
}

#[test]
fn files_that_may_hold_keys_are_left_out() {
    let sample = Sample::of(&[("a.txt", "hit"), ("server.PEM", "hit"), ("keys.key/a.txt", "hit")]);
    sample.hard_link("harmless.txt", "server.PEM");
    sample.link("link.txt", "server.PEM");
    assert_eq!(places(&find(&sample, &ask("hit"))), ["a.txt:1:hit"]);
    for glob in ["*.PEM", "harmless.txt", "**/a.txt"] {
        let found = find(&sample, &SearchRequest { glob: glob.to_owned(), ..ask("hit") });
        assert!(places(&found).iter().all(|place| place == "a.txt:1:hit"), "{glob}: {found:?}");
    }
}
