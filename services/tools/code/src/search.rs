//! Searching, file by file and line by line.

use std::{
    io,
    time::{Duration, Instant},
};

use drawbridge_proto::{
    code::v1::{Match, SearchResult, Skipped},
    mcp::v1::Progress,
};
use drawbridge_sdk::Cancellation;
use grep_matcher::LineTerminator;
use grep_searcher::{BinaryDetection, Searcher, SearcherBuilder, Sink, SinkMatch};
use tracing::field::Empty;

use crate::{
    error::CodeError,
    lines::{self, Piece},
    links::SecretLinks,
    metrics::{FILES_SEARCHED, SEARCH_DURATION},
    query::{Query, RESPONSE_BYTES_MAX},
    tree::Tree,
    walk::{Entry, Walk},
};

/// The least time between two progress events, and before the first.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);
/// Approximately how much text is searched between two cancellation checks, in bytes. A line may be
/// longer.
const PIECE_BYTES: usize = 16 * 1024;
const UTF8_BOM: &[u8] = b"\xef\xbb\xbf";

/// Searches the tree, and reports progress at intervals.
///
/// # Errors
/// When the call is cancelled or past its deadline. Files that cannot be searched are counted
/// instead.
pub(crate) fn search(
    tree: &Tree,
    query: &Query,
    cancellation: &Cancellation,
    mut on_progress: impl FnMut(Progress),
) -> Result<SearchResult, CodeError> {
    let span = tracing::info_span!("search", files_searched = Empty, matches = Empty).entered();
    let started = Instant::now();
    let mut ticker = ProgressTicker::new(started, PROGRESS_INTERVAL);
    let mut search = Search::new(tree, query, cancellation);
    let mut outcome = Ok(());
    for visit in Walk::new(tree, &query.scope, cancellation) {
        outcome = visit.and_then(|visit| search.visit(&visit));
        if outcome.is_err() || search.result.truncated {
            break;
        }
        if let Some(progress) = ticker.tick(search.result.files_searched) {
            on_progress(progress);
        }
    }
    let result = search.result;
    span.record("files_searched", result.files_searched);
    span.record("matches", result.matches.len());
    FILES_SEARCHED.get().increment(u64::from(result.files_searched));
    SEARCH_DURATION.get().record(started.elapsed());
    outcome.map(|()| result)
}

/// Decides when to send progress.
#[derive(Debug)]
struct ProgressTicker {
    interval: Duration,
    last_sent_at: Instant,
    last_sent: u32,
}

impl ProgressTicker {
    fn new(started: Instant, interval: Duration) -> Self {
        Self { interval, last_sent_at: started, last_sent: 0 }
    }

    /// An event, if the interval has passed and more files were searched.
    fn tick(&mut self, files_searched: u32) -> Option<Progress> {
        if files_searched <= self.last_sent || self.last_sent_at.elapsed() < self.interval {
            return None;
        }
        self.last_sent = files_searched;
        self.last_sent_at = Instant::now();
        // The total is unknown until the walk ends.
        Some(Progress {
            progress: f64::from(files_searched),
            total: None,
            message: format!("{files_searched} files searched"),
        })
    }
}

/// The state of a search.
struct Search<'a> {
    tree: &'a Tree,
    query: &'a Query,
    cancellation: &'a Cancellation,
    secret_links: SecretLinks<'a>,
    searcher: Searcher,
    contents: Vec<u8>,
    result: SearchResult,
    result_bytes: usize,
}

impl<'a> Search<'a> {
    fn new(tree: &'a Tree, query: &'a Query, cancellation: &'a Cancellation) -> Self {
        let searcher = SearcherBuilder::new()
            .line_terminator(LineTerminator::crlf())
            .line_number(false)
            // Text is searched as UTF-8 bytes, and the tree has rejected binary files already.
            .bom_sniffing(false)
            .binary_detection(BinaryDetection::none())
            .build();
        let result = SearchResult { skipped: Some(Skipped::default()), ..Default::default() };
        Self {
            tree,
            query,
            cancellation,
            secret_links: SecretLinks::new(tree, cancellation),
            searcher,
            contents: Vec::new(),
            result,
            result_bytes: 0,
        }
    }

    fn visit(&mut self, visit: &Entry) -> Result<(), CodeError> {
        let skipped = self.result.skipped.get_or_insert_default();
        let Entry::File(path) = visit else {
            skipped.unreadable += 1;
            return Ok(());
        };
        match self.tree.read_into(path.as_ref(), &mut self.contents) {
            Ok(metadata) if self.secret_links.contain(&metadata)? => Ok(()),
            Ok(_) => {
                self.result.files_searched += 1;
                self.search_file(path)
            }
            Err(error) => {
                match error {
                    CodeError::Binary => skipped.binary += 1,
                    CodeError::TooLarge { .. } => skipped.too_large += 1,
                    _ => skipped.unreadable += 1,
                }
                tracing::debug!(path, %error, "skipping a file");
                Ok(())
            }
        }
    }

    /// Searches the file that was read last.
    fn search_file(&mut self, path: &str) -> Result<(), CodeError> {
        let text = self.contents.strip_prefix(UTF8_BOM).unwrap_or(&self.contents);
        let mut collector = Collector {
            path,
            text,
            query: self.query,
            cancellation: self.cancellation,
            piece_start: 0,
            lines_counted_to: 0,
            lines_counted: 0,
            result: &mut self.result,
            result_bytes: &mut self.result_bytes,
        };
        for piece in lines::pieces(text, PIECE_BYTES, self.query.line_bytes_max) {
            let range = piece.range();
            collector.piece_start = range.start;
            self.searcher
                .search_slice(&self.query.matcher, &text[range], &mut collector)
                .map_err(|error| CodeError::Failed(error.into()))?;
            self.cancellation.check()?;
            if matches!(piece, Piece::Beginning(_)) {
                collector.result.lines_cut += 1;
            }
            if collector.result.truncated {
                break;
            }
        }
        Ok(())
    }
}

/// Collects one file's matches.
struct Collector<'a> {
    path: &'a str,
    text: &'a [u8],
    query: &'a Query,
    cancellation: &'a Cancellation,
    /// The start of the current piece in the text.
    piece_start: usize,
    /// The position up to which lines are counted, and their number.
    lines_counted_to: usize,
    lines_counted: usize,
    result: &'a mut SearchResult,
    result_bytes: &'a mut usize,
}

impl Collector<'_> {
    fn line_number(&mut self, line_start: usize) -> u32 {
        self.lines_counted += lines::count(&self.text[self.lines_counted_to..line_start]);
        self.lines_counted_to = line_start;
        u32::try_from(self.lines_counted + 1).unwrap_or(u32::MAX)
    }
}

impl Sink for Collector<'_> {
    type Error = io::Error;

    fn matched(&mut self, _: &Searcher, found: &SinkMatch<'_>) -> io::Result<bool> {
        if self.cancellation.check().is_err() {
            return Ok(false);
        }
        if self.result.matches.len() == self.query.max_results {
            self.result.truncated = true;
            return Ok(false);
        }
        let offset = usize::try_from(found.absolute_byte_offset()).map_err(io::Error::other)?;
        let start = self.piece_start + offset;
        let context_lines = self.query.context_lines;
        let found = Match {
            path: self.path.to_owned(),
            line_number: self.line_number(start),
            line: lines::display_line(found.bytes()),
            before: lines::before(self.text, start, context_lines),
            after: lines::after(
                self.text,
                lines::end(self.text, start + found.bytes().len()),
                context_lines,
            ),
        };
        *self.result_bytes += encoded_size(&found);
        if *self.result_bytes > RESPONSE_BYTES_MAX {
            self.result.truncated = true;
            return Ok(false);
        }
        self.result.matches.push(found);
        Ok(true)
    }
}

/// The approximate encoded size of a match, in bytes.
fn encoded_size(found: &Match) -> usize {
    let context = found.before.iter().chain(&found.after).map(|line| line.len() + 4);
    found.path.len() + found.line.len() + 16 + context.sum::<usize>()
}

#[cfg(test)]
mod tests;
