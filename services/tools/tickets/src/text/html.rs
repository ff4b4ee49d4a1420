//! Converts HTML to text in one pass. Blocks and breaks become lines, items get a `*`, quotations a
//! `>`, images are replaced by their `alt`; other tags, scripts, styles and comments are removed.
//!
//! It builds no tree: a hostile page with a hundred thousand open elements can keep tree-building
//! parsers busy for minutes. Here the time is linear in the length. A streaming rewriter such as
//! `lol_html` brings an engine of CSS selectors, of no use here, and does not report an end tag
//! without its start tag; entities, white space and lines would still be ours.

use html_escape::decode_html_entities;

/// Elements whose contents are dropped.
const HIDDEN: [&str; 4] = ["script", "style", "template", "title"];
/// The maximum depth of quotation marks.
const DEPTH_MAX: usize = 8;

pub(super) fn text(html: &str) -> String {
    let lower = html.to_ascii_lowercase();
    let mut builder = TextBuilder::default();
    let mut position = 0;
    while position < html.len() {
        let rest = &html[position..];
        let Some(apply_tag) = Tag::read(rest) else {
            // The first character may be a `<` that opens no tag.
            let first = rest.chars().next().map_or(1, char::len_utf8);
            let end = rest[first..].find('<').map_or(rest.len(), |end| first + end);
            builder.text(&decode_html_entities(&rest[..end]));
            position += end;
            continue;
        };
        position += apply_tag.length;
        builder.apply_tag(&apply_tag);
        if HIDDEN.contains(&&*apply_tag.name) && !apply_tag.is_closing {
            let end = lower[position..].find(&format!("</{}", apply_tag.name));
            position += end.unwrap_or(html.len() - position);
        }
    }
    builder.text
}

/// Elements that start and end a line.
fn is_block(name: &str) -> bool {
    is_paragraph(name)
        || matches!(
            name,
            "address" | "article" | "aside" | "div" | "dl" | "dt" | "dd" | "footer" | "form" | "h4"
        )
        || matches!(name, "header" | "hr" | "li" | "ol" | "pre" | "section" | "table" | "tr" | "ul")
}

/// Elements that are surrounded by empty lines.
fn is_paragraph(name: &str) -> bool {
    matches!(name, "p" | "h1" | "h2" | "h3" | "blockquote")
}

/// A tag, a comment or a declaration at the start of a text.
struct Tag<'a> {
    /// In lower case. Empty for comments and declarations.
    name: String,
    is_closing: bool,
    attributes: &'a str,
    length: usize,
}

impl<'a> Tag<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let inner = text.strip_prefix('<')?;
        let hidden =
            |length| Self { name: String::new(), is_closing: false, attributes: "", length };
        if let Some(comment) = inner.strip_prefix("!--") {
            return Some(hidden(
                comment.find("-->").map_or(text.len(), |end| "<!---->".len() + end),
            ));
        }
        if inner.starts_with(['!', '?']) {
            return Some(hidden(inner.find('>').map_or(text.len(), |end| end + 2)));
        }
        let is_closing = inner.starts_with('/');
        let inner = inner.strip_prefix('/').unwrap_or(inner);
        if !inner.starts_with(|first: char| first.is_ascii_alphabetic()) {
            return None;
        }
        let length = end_of_tag(inner).unwrap_or(inner.len());
        let name =
            inner[..length].find(|other: char| !other.is_ascii_alphanumeric()).unwrap_or(length);
        let before = text.len() - inner.len();
        Some(Self {
            name: inner[..name].to_ascii_lowercase(),
            is_closing,
            attributes: &inner[name..length],
            length: (before + length + 1).min(text.len()),
        })
    }

    /// The value of an attribute, if it is quoted.
    fn attribute(&self, name: &str) -> Option<&'a str> {
        let (_, value) = self.attributes.split_once(&format!(" {name}="))?;
        let quote = value.chars().next().filter(|first| matches!(first, '"' | '\''))?;
        value[1..].split(quote).next()
    }
}

/// The position of the `>` that ends a tag, ignoring quoted ones.
fn end_of_tag(text: &str) -> Option<usize> {
    let mut quote = None;
    for (position, byte) in text.bytes().enumerate() {
        match (quote, byte) {
            (None, b'>') => return Some(position),
            (None, b'"' | b'\'') => quote = Some(byte),
            (Some(open), byte) if open == byte => quote = None,
            _ => {}
        }
    }
    None
}

/// Builds the text.
#[derive(Default)]
struct TextBuilder {
    text: String,
    quotations: usize,
    verbatim: bool,
    /// Whether to insert a space before the next word.
    needs_space: bool,
}

impl TextBuilder {
    fn text(&mut self, text: &str) {
        for (push_line_end, position) in text.split('\n').zip(0..) {
            if position > 0 && self.verbatim {
                self.push_line_end();
            }
            if self.verbatim {
                self.push_word(push_line_end.trim_end());
                continue;
            }
            self.needs_space |= push_line_end.starts_with(char::is_whitespace) || position > 0;
            for (push_word, position) in push_line_end.split_whitespace().zip(0..) {
                self.needs_space |= position > 0;
                self.push_word(push_word);
            }
            self.needs_space |= push_line_end.ends_with(char::is_whitespace);
        }
    }

    fn push_word(&mut self, push_word: &str) {
        if push_word.is_empty() {
            return;
        }
        if self.text.is_empty() || self.text.ends_with('\n') {
            self.text.extend(std::iter::repeat_n("> ", self.quotations.min(DEPTH_MAX)));
        } else if self.needs_space {
            self.text.push(' ');
        }
        self.needs_space = false;
        self.text.push_str(push_word);
    }

    fn push_line_end(&mut self) {
        self.needs_space = false;
        self.text.push('\n');
    }

    /// Ends the line if it is not empty.
    fn end_line(&mut self) {
        if !self.text.is_empty() && !self.text.ends_with('\n') {
            self.push_line_end();
        }
    }

    fn apply_tag(&mut self, apply_tag: &Tag<'_>) {
        let name = &*apply_tag.name;
        if is_block(name) {
            self.end_line();
            if is_paragraph(name) && !self.text.is_empty() && !self.text.ends_with("\n\n") {
                self.push_line_end();
            }
        }
        match (name, apply_tag.is_closing) {
            ("br", _) => self.push_line_end(),
            ("blockquote", false) => self.quotations += 1,
            ("blockquote", true) => self.quotations = self.quotations.saturating_sub(1),
            ("pre", is_closing) => self.verbatim = !is_closing,
            ("li", false) => {
                self.push_word("*");
                self.needs_space = true;
            }
            ("td" | "th", _) => self.needs_space = true,
            ("img", _) => {
                let alt = decode_html_entities(apply_tag.attribute("alt").unwrap_or_default());
                self.text(&alt);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visible_text_remains() {
        for (html, expected) in [
            (
                "Hello,<br>the printer is <b>dead</b>.<br/><br />Tim",
                "Hello,\nthe printer is dead.\n\nTim",
            ),
            (
                "<div>One</div>\n <div>Two &amp; three &lt;b&gt; &uuml;&#33;&#x21;</div>",
                "One\nTwo & three <b> ü!!",
            ),
            ("<p>One</p><p>Two</p>", "One\n\nTwo"),
            ("<p>See <a href=\"https://x.example/?t=1>2\">the page</a>.</p>", "See the page."),
            ("<ul><li>One</li><li> Two</li></ul>", "* One\n* Two"),
            ("<script>if (a < b) alert(1)</script><STYLE>p > a {}</STYLE><p>Text", "Text"),
            (
                "<table><tr><td>Name</td><td>Tim</td></tr><tr><td>Age</td></tr></table>",
                "Name Tim\nAge",
            ),
            ("<img src='cid:1' alt=\"a > b &amp; c\">", "a > b & c"),
            ("<!-- <p>hidden</p> --><!doctype html><?xml?>shown", "shown"),
            ("<pre>a\n  b</pre>c", "a\n  b\nc"),
            (
                "yes<blockquote>no<blockquote>maybe</blockquote></blockquote>end",
                "yes\n\n> no\n\n> > maybe\n\nend",
            ),
            ("a < b <3 <> </ > c", "a < b <3 <> </ > c"),
            ("wor<b>d</b>s &nbsp; stay", "words stay"),
            ("", ""),
            ("<p", ""),
            ("<p>never <b>closed <i>at all <a href='x", "never closed at all"),
        ] {
            assert_eq!(text(html).trim_end(), expected, "{html}");
        }
    }

    #[test]
    fn a_hostile_page_takes_linear_time_and_space() {
        const BYTES: usize = 256 * 1024;
        for part in [
            "<div>",
            "<b><i>",
            "<table><tr><td>",
            "<blockquote>x",
            "<",
            "</",
            "<!--",
            "<!",
            "&",
            "&#",
            "<a '",
            "<a \"",
            "<script>",
            "<script></",
            "<pre>\n",
            "<li>",
            "<img alt=",
            "\u{0}<\u{fffd}",
            "<title></title>",
            "ß<p>",
        ] {
            let long = part.repeat(BYTES / part.len());
            // Quotation marks make the text of blockquotes longer than the HTML.
            assert!(text(&long).len() <= 4 * BYTES, "{part}");
        }
    }
}
