//! HTML to text, in one pass: tags go, blocks and breaks become lines, items get a `*`, quotations a `>`, images their
//! `alt`, and scripts, styles and comments leave nothing.
//!
//! It builds no tree. A page that is made to hurt, with a hundred thousand open elements, makes parsers that mend trees
//! take minutes; here the time grows with the length and with nothing else.

use html_escape::decode_html_entities;

/// Elements whose contents are no text.
const HIDDEN: [&str; 4] = ["script", "style", "template", "title"];
/// Quotations in quotations are shown to this depth.
const DEPTH_MAX: usize = 8;

pub(super) fn text(html: &str) -> String {
    let lower = html.to_ascii_lowercase();
    let mut page = Page::default();
    let mut at = 0;
    while at < html.len() {
        let rest = &html[at..];
        let Some(tag) = Tag::read(rest) else {
            // The first character may be a `<` that opens nothing.
            let first = rest.chars().next().map_or(1, char::len_utf8);
            let end = rest[first..].find('<').map_or(rest.len(), |end| first + end);
            page.text(&decode_html_entities(&rest[..end]));
            at += end;
            continue;
        };
        at += tag.length;
        page.tag(&tag);
        if HIDDEN.contains(&&*tag.name) && !tag.closes {
            let end = lower[at..].find(&format!("</{}", tag.name));
            at += end.unwrap_or(html.len() - at);
        }
    }
    page.text
}

/// Elements that begin and end a line.
fn is_block(name: &str) -> bool {
    is_paragraph(name)
        || matches!(
            name,
            "address" | "article" | "aside" | "div" | "dl" | "dt" | "dd" | "footer" | "form" | "h4"
        )
        || matches!(name, "header" | "hr" | "li" | "ol" | "pre" | "section" | "table" | "tr" | "ul")
}

/// Elements that stand between empty lines.
fn is_paragraph(name: &str) -> bool {
    matches!(name, "p" | "h1" | "h2" | "h3" | "blockquote")
}

/// A tag, a comment or a declaration at the beginning of a text.
struct Tag<'a> {
    /// Lower case. Empty: nothing that is shown.
    name: String,
    closes: bool,
    attributes: &'a str,
    length: usize,
}

impl<'a> Tag<'a> {
    fn read(text: &'a str) -> Option<Self> {
        let inner = text.strip_prefix('<')?;
        let silent = |length| Self { name: String::new(), closes: false, attributes: "", length };
        if let Some(comment) = inner.strip_prefix("!--") {
            return Some(silent(
                comment.find("-->").map_or(text.len(), |end| "<!---->".len() + end),
            ));
        }
        if inner.starts_with(['!', '?']) {
            return Some(silent(inner.find('>').map_or(text.len(), |end| end + 2)));
        }
        let closes = inner.starts_with('/');
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
            closes,
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

/// Where the `>` is that ends a tag: not one within quotes.
fn end_of_tag(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, byte) in text.bytes().enumerate() {
        match (quote, byte) {
            (None, b'>') => return Some(at),
            (None, b'"' | b'\'') => quote = Some(byte),
            (Some(open), byte) if open == byte => quote = None,
            _ => {}
        }
    }
    None
}

/// What is shown.
#[derive(Default)]
struct Page {
    text: String,
    quotations: usize,
    verbatim: bool,
    /// A space is due before the next word.
    space: bool,
}

impl Page {
    fn text(&mut self, text: &str) {
        for (line, at) in text.split('\n').zip(0..) {
            if at > 0 && self.verbatim {
                self.line();
            }
            if self.verbatim {
                self.word(line.trim_end());
                continue;
            }
            self.space |= line.starts_with(char::is_whitespace) || at > 0;
            for (word, at) in line.split_whitespace().zip(0..) {
                self.space |= at > 0;
                self.word(word);
            }
            self.space |= line.ends_with(char::is_whitespace);
        }
    }

    fn word(&mut self, word: &str) {
        if word.is_empty() {
            return;
        }
        if self.text.is_empty() || self.text.ends_with('\n') {
            self.text.extend(std::iter::repeat_n("> ", self.quotations.min(DEPTH_MAX)));
        } else if self.space {
            self.text.push(' ');
        }
        self.space = false;
        self.text.push_str(word);
    }

    fn line(&mut self) {
        self.space = false;
        self.text.push('\n');
    }

    /// Ends the line, if something stands on it.
    fn end_line(&mut self) {
        if !self.text.is_empty() && !self.text.ends_with('\n') {
            self.line();
        }
    }

    fn tag(&mut self, tag: &Tag<'_>) {
        let name = &*tag.name;
        if is_block(name) {
            self.end_line();
            if is_paragraph(name) && !self.text.is_empty() && !self.text.ends_with("\n\n") {
                self.line();
            }
        }
        match (name, tag.closes) {
            ("br", _) => self.line(),
            ("blockquote", false) => self.quotations += 1,
            ("blockquote", true) => self.quotations = self.quotations.saturating_sub(1),
            ("pre", closes) => self.verbatim = !closes,
            ("li", false) => {
                self.word("*");
                self.space = true;
            }
            ("td" | "th", _) => self.space = true,
            ("img", _) => {
                let alt = decode_html_entities(tag.attribute("alt").unwrap_or_default());
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
    fn what_a_reader_sees_is_left() {
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
    fn a_page_that_is_made_to_hurt_costs_no_more_than_its_length() {
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
            // A blockquote's text is longer than itself by its marks.
            assert!(text(&long).len() <= 4 * BYTES, "{part}");
        }
    }
}
