//! An extract of the most telling sentences: TextRank (Mihalcea and Tarau, 2004).
//!
//! Sentences recommend one another by the words that they share, and a random walk over these recommendations ranks them,
//! as PageRank ranks pages. It needs no language model and knows no language.

use std::collections::HashSet;

use drawbridge_sdk::{BlockingError, Cancellation};
use unicode_segmentation::UnicodeSegmentation as _;

/// Sentences that are compared; each is with each other.
const SENTENCES_MAX: usize = 300;
/// A sentence has so many words at least: greetings and signatures say nothing.
const WORDS_MIN: usize = 4;
/// Of one sentence, in bytes: lines without an end are cut.
const SENTENCE_BYTES_MAX: usize = 400;
/// A line of so many characters may have been wrapped.
const FULL_LINE_CHARS: usize = 60;
/// The shortest word that counts, in characters: shorter ones are in every sentence.
const WORD_CHARS_MIN: usize = 3;
/// The part of a rank that is passed on, as in the paper.
const DAMPING: f64 = 0.85;
const ROUNDS: usize = 30;

struct Sentence<'a> {
    text: &'a str,
    words: HashSet<String>,
}

/// At most so many sentences of the texts, word for word, in their order.
///
/// # Errors
/// When nobody waits any more.
pub(super) fn extract(
    texts: &[String],
    sentences_max: usize,
    cancellation: &Cancellation,
) -> Result<Vec<String>, BlockingError> {
    let texts: Vec<_> = texts.iter().map(|text| unwrapped(text)).collect();
    let sentences = sentences(&texts);
    let ranks = ranks(&sentences, cancellation)?;
    let mut best: Vec<usize> = (0..sentences.len()).collect();
    // Of equal ones the earlier.
    best.sort_by(|one, other| ranks[*other].total_cmp(&ranks[*one]));
    best.truncate(sentences_max);
    best.sort_unstable();
    let whole = |at: usize| sentences[at].text.split_whitespace().collect::<Vec<_>>().join(" ");
    Ok(best.into_iter().map(whole).collect())
}

/// Text whose lines end where its paragraphs, headings and items do. A full line was only wrapped.
fn unwrapped(text: &str) -> String {
    let mut unwrapped = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        unwrapped.push_str(line);
        let goes_on = lines.peek().is_some_and(|next| next.starts_with(char::is_alphanumeric));
        let is_full = line.chars().count() >= FULL_LINE_CHARS;
        unwrapped.push(if goes_on && is_full { ' ' } else { '\n' });
    }
    unwrapped
}

/// The sentences that may be chosen: no quoted lines, and none twice.
fn sentences(texts: &[String]) -> Vec<Sentence<'_>> {
    let mut seen = HashSet::new();
    texts
        .iter()
        // A line's end is a sentence's too: headings and items have no full stops.
        .flat_map(|text| text.unicode_sentences())
        .map(|text| crate::text::cut(text.trim(), SENTENCE_BYTES_MAX).0)
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
        links.push(sentences.iter().map(|other| likeness(one, other)).collect());
    }
    let sums: Vec<f64> = links.iter().map(|row| row.iter().sum()).collect();
    let mut ranks = vec![1.0; sentences.len()];
    for _ in 0..ROUNDS {
        cancellation.check()?;
        let passed = |to: usize| -> f64 {
            let from = links.iter().zip(&sums).zip(&ranks).filter(|((_, sum), _)| **sum > 0.0);
            from.map(|((row, sum), rank)| row[to] / sum * rank).sum()
        };
        ranks = (0..ranks.len()).map(|to| 1.0 - DAMPING + DAMPING * passed(to)).collect();
    }
    Ok(ranks)
}

/// Words in common, held against the sentences' lengths. A sentence does not recommend itself.
fn likeness(one: &Sentence<'_>, other: &Sentence<'_>) -> f64 {
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
        let waiting =
            Cancellation::new(CancellationToken::new(), Instant::now() + Duration::from_secs(60));
        super::extract(texts, sentences_max, &waiting).unwrap()
    }

    #[test]
    fn an_extract_that_nobody_waits_for_ends() {
        let late = Cancellation::new(CancellationToken::new(), Instant::now());
        let ended = super::extract(&texts(&["Only one sentence stands here."]), 5, &late);
        assert!(matches!(ended, Err(BlockingError::DeadlinePassed)), "{ended:?}");
    }

    fn texts(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn the_sentences_that_others_speak_of_are_chosen_in_their_order() {
        let texts = texts(&[
            "Hello team,\n\nthe badge printer on the third floor prints empty badges since Monday. The weather is \
             lovely here this morning.\n\nKind regards, Tim",
            "I have replaced the ribbon of the badge printer on the third floor. Please print a badge again.",
            "> the badge printer on the third floor prints empty badges\nThe printer still prints empty badges.",
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
    fn a_sentence_goes_on_over_the_end_of_a_full_line() {
        let mail = "Steps so far\nthe badge printer on the third floor was restarted several times and\nstill prints \
                    empty badges. Nobody else is affected today.\n> the badge printer prints nothing";
        let sentences = [
            "the badge printer on the third floor was restarted several times and still prints empty badges.",
            "Nobody else is affected today.",
        ];
        assert_eq!(extract(&texts(&[mail]), 5), sentences);
    }

    #[test]
    fn what_has_no_sentence_has_no_extract_and_what_is_alone_is_it() {
        for nothing in [&[][..], &[""], &["Hi.", "Ok, thanks!"]] {
            assert!(extract(&texts(nothing), 5).is_empty());
        }
        let alone = "Only one sentence stands here.";
        assert_eq!(extract(&texts(&[alone, alone]), 5), [alone]);
    }

    #[test]
    fn a_text_of_any_length_ends() {
        let long = (0..20_000)
            .map(|number| format!("Sentence number {number} speaks of the broken printer. "));
        assert_eq!(extract(&[long.collect::<String>()], 3).len(), 3);
        assert_eq!(extract(&["word ".repeat(10_000)], 3).len(), 0, "one word, however often");
        let unbroken = (0..5_000).map(|number| format!("word{number} ")).collect::<String>();
        assert!(extract(&[unbroken], 3)[0].len() <= SENTENCE_BYTES_MAX);
    }
}
