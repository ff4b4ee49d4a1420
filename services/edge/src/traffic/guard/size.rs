//! Caps what one answer brings into a model's context.

use std::borrow::Cow;

use rmcp::model::{
    CallToolResult, ContentBlock, GetPromptResult, PromptMessage, ReadResourceResult,
    ResourceContents,
};

use super::json::{is_written, length};

/// A cap leaves room for the notice.
pub(super) const BYTES_MIN: usize = 256;
/// What is kept free for the notice that something was left out.
const NOTICE_BYTES: usize = 128;

/// The most that an answer may have, in bytes of its texts and of its base64.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cap(pub(super) usize);

/// A part of an answer.
trait Part: Sized {
    fn size(&self) -> usize;

    /// Its text, which is about to be cut. Nothing where it has none.
    fn text_to_cut(&mut self) -> Option<&mut String>;

    /// What stands in its place.
    fn replaced_by(&self, notice: String) -> Self;
}

impl Cap {
    /// A text within the cap.
    pub(super) fn text(self, text: &str) -> Cow<'_, str> {
        if text.len() <= self.0 {
            return Cow::Borrowed(text);
        }
        let kept = head(text, self.0.saturating_sub(NOTICE_BYTES));
        Cow::Owned(format!("{kept}{}", self.notice(text.len() - kept.len())))
    }

    /// A tool's result within the cap; whether it had to be changed. Structured content is not cut, which would break
    /// it: a word to the model stands in place of the result.
    pub(super) fn tool_result(self, result: &mut CallToolResult) -> bool {
        let mut repeated = false;
        if let Some(structured) = &result.structured_content {
            let bytes = length(structured);
            if bytes > self.0 {
                let told = format!(
                    "the result has {bytes} bytes, and at most {} are passed on; ask for less, by a narrower query or \
                     a lower limit",
                    self.0
                );
                *result = CallToolResult::error(vec![ContentBlock::text(told)]);
                return true;
            }
            // What repeats it counts once.
            repeated = matches!(&result.content[..], [ContentBlock::Text(text)] if is_written(&text.text, structured));
        }
        !repeated && self.parts(&mut result.content)
    }

    /// A resource's contents within the cap; whether they had to be changed.
    pub(super) fn resource(self, result: &mut ReadResourceResult) -> bool {
        self.parts(&mut result.contents)
    }

    /// A prompt within the cap; whether it had to be changed.
    pub(super) fn prompt(self, result: &mut GetPromptResult) -> bool {
        self.parts(&mut result.messages)
    }

    /// Keeps parts from the first on, as long as they fit. The one that does not is cut, those behind it go.
    fn parts<P: Part>(self, parts: &mut Vec<P>) -> bool {
        let total: usize = parts.iter().map(Part::size).sum();
        if total <= self.0 {
            return false;
        }
        let mut left = self.0.saturating_sub(NOTICE_BYTES);
        let whole = parts
            .iter()
            .take_while(|part| left.checked_sub(part.size()).map(|rest| left = rest).is_some());
        let whole = whole.count();
        let kept: usize = parts.iter().take(whole).map(Part::size).sum();
        parts.truncate(whole + 1);
        if let Some(last) = parts.get_mut(whole) {
            match last.text_to_cut() {
                Some(text) => {
                    text.truncate(head(text, left).len());
                    let notice = self.notice(total - kept - text.len());
                    text.push_str(&notice);
                }
                None => *last = last.replaced_by(self.notice(total - kept)),
            }
        }
        true
    }

    fn notice(self, left_out: usize) -> String {
        format!("\n[cut: {left_out} bytes are left out; at most {} are passed on]", self.0)
    }
}

/// The beginning of a text, of at most so many bytes.
fn head(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

impl Part for ContentBlock {
    fn size(&self) -> usize {
        match self {
            Self::Text(text) => text.text.len(),
            Self::Image(image) => image.data.len(),
            Self::Audio(audio) => audio.data.len(),
            Self::Resource(embedded) => embedded.resource.size(),
            Self::ResourceLink(link) => {
                let said = [&link.title, &link.description];
                let said = said.into_iter().flatten().map(String::len).sum::<usize>();
                link.uri.len() + link.name.len() + said
            }
            _ => 0,
        }
    }

    fn text_to_cut(&mut self) -> Option<&mut String> {
        match self {
            Self::Text(text) => Some(&mut text.text),
            Self::Resource(embedded) => embedded.resource.text_to_cut(),
            _ => None,
        }
    }

    fn replaced_by(&self, notice: String) -> Self {
        Self::text(notice)
    }
}

impl Part for ResourceContents {
    fn size(&self) -> usize {
        match self {
            Self::TextResourceContents { text, .. } => text.len(),
            Self::BlobResourceContents { blob, .. } => blob.len(),
            _ => 0,
        }
    }

    fn text_to_cut(&mut self) -> Option<&mut String> {
        match self {
            Self::TextResourceContents { text, mime_type, .. } => {
                // A part of JSON, or of anything that has an end, is no such thing.
                *mime_type = Some("text/plain".to_owned());
                Some(text)
            }
            _ => None,
        }
    }

    fn replaced_by(&self, notice: String) -> Self {
        let uri = match self {
            Self::TextResourceContents { uri, .. } | Self::BlobResourceContents { uri, .. } => {
                uri.as_str()
            }
            _ => "",
        };
        Self::text(notice, uri)
    }
}

impl Part for PromptMessage {
    fn size(&self) -> usize {
        self.content.size()
    }

    fn text_to_cut(&mut self) -> Option<&mut String> {
        self.content.text_to_cut()
    }

    fn replaced_by(&self, notice: String) -> Self {
        Self::new_text(self.role.clone(), notice)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rmcp::model::Role;
    use serde_json::json;

    use super::*;

    const CAP: Cap = Cap(300);

    #[test]
    fn a_text_is_cut_between_characters_and_says_how_much_is_missing() {
        assert!(matches!(CAP.text(&"x".repeat(300)), Cow::Borrowed(_)));
        let cut = CAP.text(&"é".repeat(151)).into_owned();
        assert_eq!(
            cut,
            format!("{}\n[cut: 130 bytes are left out; at most 300 are passed on]", "é".repeat(86))
        );
    }

    #[test]
    fn structured_content_is_whole_or_not_there() {
        let structured = |bytes: usize| {
            let value = json!({ "x": "y".repeat(bytes - 8) });
            let mut result = CallToolResult::success(vec![ContentBlock::text(value.to_string())]);
            result.structured_content = Some(value);
            result
        };
        let mut fits = structured(300);
        assert!(!CAP.tool_result(&mut fits), "what is said twice counts once");
        let mut large = structured(301);
        assert!(CAP.tool_result(&mut large));
        assert_eq!((large.is_error, &large.structured_content), (Some(true), &None));
        let told = large.content[0].as_text().unwrap().text.as_str();
        assert!(
            told.starts_with("the result has 301 bytes, and at most 300 are passed on"),
            "{told}"
        );
    }

    #[test]
    fn parts_are_kept_in_order_and_what_cannot_be_cut_is_replaced() {
        let mut result = CallToolResult::success(vec![
            ContentBlock::text("a".repeat(100)),
            ContentBlock::image("b".repeat(200), "image/png"),
            ContentBlock::text("c"),
        ]);
        assert!(CAP.tool_result(&mut result));
        assert_eq!(result.content.len(), 2);
        let notice = "\n[cut: 201 bytes are left out; at most 300 are passed on]";
        assert_eq!(result.content[1].as_text().unwrap().text, notice);

        let mut result = ReadResourceResult::new(vec![
            ResourceContents::text("d".repeat(400), "x:y").with_mime_type("application/json"),
        ]);
        assert!(CAP.resource(&mut result));
        let ResourceContents::TextResourceContents { uri, mime_type, text, .. } =
            &result.contents[0]
        else {
            panic!("{result:?}")
        };
        assert_eq!((uri.as_str(), mime_type.as_deref()), ("x:y", Some("text/plain")));
        assert!(text.starts_with(&format!("{}\n[cut: 228 bytes", "d".repeat(172))), "{text}");

        let mut prompt =
            GetPromptResult::new(vec![PromptMessage::new_text(Role::Assistant, "e".repeat(400))]);
        assert!(CAP.prompt(&mut prompt));
        assert_eq!(prompt.messages[0].role, Role::Assistant);
    }

    proptest! {
        #[test]
        fn nothing_is_longer_than_the_cap_and_is_cut_once(texts in prop::collection::vec("(\\PC){0,200}", 0..5)) {
            let mut result = CallToolResult::success(texts.into_iter().map(ContentBlock::text).collect());
            CAP.tool_result(&mut result);
            prop_assert!(result.content.iter().map(Part::size).sum::<usize>() <= CAP.0);
            prop_assert!(!CAP.tool_result(&mut result));
        }

        #[test]
        fn a_text_is_cut_once(text in "(\\PC){0,400}", cap in BYTES_MIN..600) {
            let once = Cap(cap).text(&text).into_owned();
            prop_assert!(once.len() <= cap);
            prop_assert!(matches!(Cap(cap).text(&once), Cow::Borrowed(_)));
        }
    }
}
