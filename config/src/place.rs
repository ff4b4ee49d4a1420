//! Places in a file, and how the lines there are shown.

use std::{fmt, ops::Range};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The line, from 1.
    pub line: usize,
    /// The column, in characters from 1.
    pub column: usize,
    /// Absent where the file has secrets.
    #[serde(flatten)]
    quote: Option<Quote>,
}

/// The text of a place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Quote {
    /// The length of the marked part of the line, in characters.
    length: usize,
    /// The line.
    text: String,
    #[serde(skip)]
    excerpt: Excerpt,
}

/// Whole lines of a file with marks, whose positions are bytes of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Excerpt {
    first_line: usize,
    text: String,
    marked: Range<usize>,
    labels: Vec<(Range<usize>, String)>,
}

impl Place {
    /// The place of these bytes of a text. Of several lines it is the part on the first one.
    #[must_use]
    pub fn new(source: &str, span: Range<usize>) -> Self {
        Self::with_labels(source, span, Vec::new())
    }

    /// The place of these bytes of a text, shown with other places of the same text and what they
    /// are.
    #[must_use]
    pub fn with_labels(
        source: &str,
        span: Range<usize>,
        labels: Vec<(Range<usize>, String)>,
    ) -> Self {
        let (line, marked) = marked_part(source, span);
        let mut labels: Vec<_> =
            labels.into_iter().map(|(span, label)| (marked_part(source, span), label)).collect();
        labels.sort_by_key(|((_, part), _)| part.start);
        let lines = labels.iter().map(|((line, _), _)| line).chain([&line]);
        let (start, end) = lines.fold((line.start, line.end), |(start, end), line| {
            (start.min(line.start), end.max(line.end))
        });
        let in_excerpt = |part: Range<usize>| part.start - start..part.end - start;
        let excerpt = Excerpt {
            first_line: line_number(source, start),
            text: source[start..end].to_owned(),
            marked: in_excerpt(marked.clone()),
            labels: labels
                .into_iter()
                .map(|((_, part), label)| (in_excerpt(part), label))
                .collect(),
        };
        Self {
            line: line_number(source, line.start),
            column: source[line.start..marked.start].chars().count() + 1,
            quote: Some(Quote {
                length: source[marked].chars().count().max(1),
                text: source[line].to_owned(),
                excerpt,
            }),
        }
    }

    /// The place without the text, of a file with secrets.
    pub(crate) fn without_text(self) -> Self {
        Self { quote: None, ..self }
    }

    /// Writes a problem: line and column, what is wrong, the lines with carets, and how to correct
    /// it.
    ///
    /// # Errors
    /// When the formatter fails.
    pub fn write_problem(
        place: Option<&Self>,
        problem: &str,
        help: Option<&str>,
        f: &mut fmt::Formatter<'_>,
    ) -> fmt::Result {
        if let Some(Self { line, column, .. }) = place {
            write!(f, "{line}:{column}: ")?;
        }
        f.write_str(problem)?;
        if let Some(Quote { excerpt, .. }) = place.and_then(|place| place.quote.as_ref()) {
            write!(f, "\n{}", excerpt.render())?;
        }
        match help {
            Some(help) => {
                let last_line = place.map_or(0, Self::last_line);
                write!(f, "\n{:1$} = help: {help}", "", last_line.to_string().len())
            }
            None => Ok(()),
        }
    }

    /// The last line that is shown.
    fn last_line(&self) -> usize {
        self.quote.as_ref().map_or(self.line, |Quote { excerpt, .. }| {
            excerpt.first_line + excerpt.text.matches('\n').count()
        })
    }
}

impl Excerpt {
    fn render(&self) -> String {
        let labels = self
            .labels
            .iter()
            .map(|(span, label)| AnnotationKind::Context.span(span.clone()).label(label.as_str()));
        let snippet = Snippet::source(self.text.as_str())
            .line_start(self.first_line)
            .annotation(AnnotationKind::Primary.span(self.marked.clone()))
            .annotations(labels);
        Renderer::plain().render(&[Group::with_level(Level::ERROR).element(snippet)])
    }
}

/// The line in which a span begins, and the part of the span in it, in bytes.
fn marked_part(source: &str, span: Range<usize>) -> (Range<usize>, Range<usize>) {
    let start = source.floor_char_boundary(span.start);
    let (before, rest) = source.split_at(start);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let rest = rest.split(['\n', '\r']).next().unwrap_or_default();
    let length = rest.floor_char_boundary(span.end.saturating_sub(start).max(1));
    (line_start..start + rest.len(), start..start + length)
}

fn line_number(source: &str, at: usize) -> usize {
    source[..at].matches('\n').count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(place: &Place, help: Option<&str>) -> String {
        struct Shown<'a>(&'a Place, Option<&'a str>);
        impl fmt::Display for Shown<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                Place::write_problem(Some(self.0), "wrong", self.1, f)
            }
        }
        Shown(place, help).to_string()
    }

    /// The span of the last occurrence.
    fn span(source: &str, part: &str) -> Range<usize> {
        let start = source.rfind(part).unwrap();
        start..start + part.len()
    }

    #[test]
    fn every_label_is_below_its_own_part_of_the_file() {
        let source = "// Types.\nentity Group;\n\n\n\n\n\n\n\tentity User, Group;\n";
        let first = source.find("Group").unwrap();
        let labels = vec![(first..first + 5, "defined here first".to_owned())];
        let place = Place::with_labels(source, span(source, "Group"), labels);
        insta::assert_snapshot!(shown(&place, Some("rename one")), @"
        9:15: wrong
          |
        2 | entity Group;
          |        ----- defined here first
        ...
        9 |     entity User, Group;
          |                  ^^^^^
          = help: rename one
        ");
    }

    #[test]
    fn a_span_of_several_lines_is_marked_on_its_first_line() {
        let source = "a\npermit (é,\n  action);\n";
        let place = Place::new(source, 2..source.len());
        insta::assert_snapshot!(shown(&place, None), @"
        2:1: wrong
          |
        2 | permit (é,
          | ^^^^^^^^^^
        ");
        insta::assert_json_snapshot!(place, @r#"
        {
          "line": 2,
          "column": 1,
          "length": 10,
          "text": "permit (é,"
        }
        "#);
        insta::assert_json_snapshot!(place.without_text(), @r#"
        {
          "line": 2,
          "column": 1
        }
        "#);
    }

    #[test]
    fn a_place_after_the_end_is_the_end() {
        insta::assert_snapshot!(shown(&Place::new("a\nb", 9..12), None), @"
        2:2: wrong
          |
        2 | b
          |  ^
        ");
        insta::assert_snapshot!(shown(&Place::new("", 0..0), None), @"
        1:1: wrong
          |
        1 |
          | ^
        ");
    }
}
