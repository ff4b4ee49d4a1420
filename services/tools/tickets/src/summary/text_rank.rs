//! Extracts the most important sentences: TextRank (Mihalcea and Tarau, 2004).
//!
//! Shared words link sentences, and a random walk over the links ranks them, as PageRank ranks
//! pages. It is language-independent and needs no model.

use std::collections::HashSet;

use drawbridge_sdk::{BlockingError, Cancellation};
use unicode_segmentation::UnicodeSegmentation as _;

/// The maximum number of sentences; all pairs are compared.
const SENTENCES_MAX: usize = 300;
/// The minimum words of a sentence: excludes greetings and signatures.
const WORDS_MIN: usize = 4;
/// The maximum length of a sentence, in bytes.
const SENTENCE_BYTES_MAX: usize = 400;
/// A line of at least this many characters may have been wrapped.
const FULL_LINE_CHARS: usize = 60;
/// The minimum length of a word, in characters: shorter ones are in every sentence.
const WORD_CHARS_MIN: usize = 3;
/// The damping factor of the paper.
const DAMPING: f64 = 0.85;
const ITERATIONS: usize = 30;

struct Sentence<'a> {
    text: &'a str,
    words: HashSet<String>,
}

/// At most `sentences_max` sentences of the texts, verbatim, in their order.
///
/// # Errors
/// When the call is cancelled or past its deadline.
pub(super) fn extract(
    texts: &[String],
    sentences_max: usize,
    cancellation: &Cancellation,
) -> Result<Vec<String>, BlockingError> {
    let texts: Vec<_> = texts.iter().map(|text| unwrap_lines(text)).collect();
    let sentences = sentences(&texts);
    let ranks = ranks(&sentences, cancellation)?;
    let mut best: Vec<usize> = (0..sentences.len()).collect();
    // The stable sort prefers the earlier of equal ones.
    best.sort_by(|one, other| ranks[*other].total_cmp(&ranks[*one]));
    best.truncate(sentences_max);
    best.sort_unstable();
    let normalized =
        |at: usize| sentences[at].text.split_whitespace().collect::<Vec<_>>().join(" ");
    Ok(best.into_iter().map(normalized).collect())
}

/// Joins wrapped lines, so that lines end only at the ends of paragraphs, headings and items.
fn unwrap_lines(text: &str) -> String {
    let mut unwrap_lines = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        unwrap_lines.push_str(line);
        let continues = lines.peek().is_some_and(|next| next.starts_with(char::is_alphanumeric));
        let is_full = line.chars().count() >= FULL_LINE_CHARS;
        unwrap_lines.push(if continues && is_full { ' ' } else { '\n' });
    }
    unwrap_lines
}

/// The candidate sentences, without quoted lines and duplicates.
fn sentences(texts: &[String]) -> Vec<Sentence<'_>> {
    let mut seen = HashSet::new();
    texts
        .iter()
        // A line end also ends a sentence: headings and items have no full stops.
        .flat_map(|text| text.unicode_sentences())
        .map(|text| crate::text::truncate(text.trim(), SENTENCE_BYTES_MAX).0)
        .filter(|text| !text.starts_with('>'))
        .map(|text| Sentence { text, words: words(text) })
        .filter(|sentence| sentence.words.len() >= WORDS_MIN && seen.insert(sentence.text))
        .take(SENTENCES_MAX)
        .collect()
}

fn words(text: &str) -> HashSet<String> {
    let words = text.unicode_words().filter(|word| word.chars().count() >= WORD_CHARS_MIN);
    words.map(str::to_lowercase).collect()
}

fn ranks(
    sentences: &[Sentence<'_>],
    cancellation: &Cancellation,
) -> Result<Vec<f64>, BlockingError> {
    let mut links: Vec<Vec<f64>> = Vec::new();
    for one in sentences {
        cancellation.check()?;
        links.push(sentences.iter().map(|other| similarity(one, other)).collect());
    }
    let sums: Vec<f64> = links.iter().map(|row| row.iter().sum()).collect();
    let mut ranks = vec![1.0; sentences.len()];
    for _ in 0..ITERATIONS {
        cancellation.check()?;
        let inflow = |to: usize| -> f64 {
            let from = links.iter().zip(&sums).zip(&ranks).filter(|((_, sum), _)| **sum > 0.0);
            from.map(|((row, sum), rank)| row[to] / sum * rank).sum()
        };
        ranks = (0..ranks.len()).map(|to| 1.0 - DAMPING + DAMPING * inflow(to)).collect();
    }
    Ok(ranks)
}

/// The number of shared words, normalized by the sentences' lengths. A sentence does not link to
/// itself.
fn similarity(one: &Sentence<'_>, other: &Sentence<'_>) -> f64 {
    if one.text == other.text {
        return 0.0;
    }
    let common = one.words.intersection(&other.words).count() as f64;
    common / ((one.words.len() as f64).ln() + (other.words.len() as f64).ln())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use tokio_util::sync::CancellationToken;

    use super::*;

    fn extract(texts: &[String], sentences_max: usize) -> Vec<String> {
        let no_cancellation =
            Cancellation::new(CancellationToken::new(), Instant::now() + Duration::from_secs(60));
        super::extract(texts, sentences_max, &no_cancellation).unwrap()
    }

    #[test]
    fn an_extract_past_its_deadline_stops() {
        let past_deadline = Cancellation::new(CancellationToken::new(), Instant::now());
        let result =
            super::extract(&texts(&["This text has only one sentence."]), 5, &past_deadline);
        assert!(matches!(result, Err(BlockingError::DeadlinePassed)), "{result:?}");
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn the_best_linked_sentences_are_extracted_in_their_order() {
        let texts = texts(&[
            "Hello team,\n\nthe badge printer on the third floor prints empty badges since Monday. \
             The weather is lovely here this morning.\n\nKind regards, Tim",
            "I have replaced the ribbon of the badge printer on the third floor. Please print a \
             badge again.",
            "> the badge printer on the third floor prints empty badges\nThe printer still prints \
             empty badges.",
        ]);
        assert_eq!(
            extract(&texts, 2),
            [
                "the badge printer on the third floor prints empty badges since Monday.",
                "I have replaced the ribbon of the badge printer on the third floor."
            ]
        );
        assert_eq!(extract(&texts, 100).len(), 5);
    }

    #[test]
    fn a_sentence_continues_over_the_end_of_a_full_line() {
        let mail = "Steps so far\nthe badge printer on the third floor was restarted several times \
            and\nstill prints empty badges. No other printers are affected today.\n> the badge \
            printer prints nothing";
        let sentences = [
            "the badge printer on the third floor was restarted several times and still prints \
             empty badges.",
            "No other printers are affected today.",
        ];
        assert_eq!(extract(&texts(&[mail]), 5), sentences);
    }

    #[test]
    fn a_text_without_sentences_has_no_extract_and_a_single_sentence_is_the_extract() {
        for nothing in [&[][..], &[""], &["Hi.", "Ok, thanks!"]] {
            assert!(extract(&texts(nothing), 5).is_empty());
        }
        let alone = "This text has only one sentence.";
        assert_eq!(extract(&texts(&[alone, alone]), 5), [alone]);
    }

    #[test]
    fn a_text_of_any_length_is_handled() {
        let long = (0..20_000)
            .map(|number| format!("Sentence number {number} speaks of the broken printer. "));
        assert_eq!(extract(&[long.collect::<String>()], 3).len(), 3);
        assert_eq!(extract(&["word ".repeat(10_000)], 3).len(), 0, "one word, however often");
        let unbroken = (0..5_000).map(|number| format!("word{number} ")).collect::<String>();
        assert!(extract(&[unbroken], 3)[0].len() <= SENTENCE_BYTES_MAX);
    }
}
