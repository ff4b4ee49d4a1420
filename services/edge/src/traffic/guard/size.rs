//! Caps the size of a result that goes into a model's context.

use std::borrow::Cow;

use rmcp::model::{
    CallToolResult, ContentBlock, GetPromptResult, PromptMessage, ReadResourceResult,
    ResourceContents,
};

use super::json::{is_serialized_as, serialized_length};

/// The bytes reserved for the notice that the result is truncated.
const NOTICE_BYTES: usize = 128;

/// The largest result, in bytes of its texts and base64.
#[derive(Clone, Copy, Debug)]
pub(super) struct SizeCap(pub(super) usize);

/// A part of a result.
trait ContentPart: Sized {
    fn size(&self) -> usize;

    /// The text of the part, to be truncated, if it has one.
    fn text_to_truncate(&mut self) -> Option<&mut String>;

    /// A replacement with this notice.
    fn replacement(&self, notice: String) -> Self;
}

impl SizeCap {
    /// A text within the cap.
    pub(super) fn text(self, text: &str) -> Cow<'_, str> {
        if text.len() <= self.0 {
            return Cow::Borrowed(text);
        }
        let head = head(text, self.0.saturating_sub(NOTICE_BYTES));
        Cow::Owned(format!("{head}{}", self.notice(text.len() - head.len())))
    }

    /// Caps a tool's result. Returns whether it was changed. Truncation would make structured
    /// content invalid, so an error for the model replaces the result.
    pub(super) fn tool_result(self, result: &mut CallToolResult) -> bool {
        let mut is_repeated = false;
        if let Some(structured) = &result.structured_content {
            let bytes = serialized_length(structured);
            if bytes > self.0 {
                let message = format!(
                    "the result has {bytes} bytes, but at most {} are allowed; \
                     use a narrower query or a lower limit",
                    self.0
                );
                *result = CallToolResult::error(vec![ContentBlock::text(message)]);
                return true;
            }
            // A text that repeats the structured content does not count.
            is_repeated = match &result.content[..] {
                [ContentBlock::Text(text)] => is_serialized_as(&text.text, structured),
                _ => false,
            };
        }
        !is_repeated && self.parts(&mut result.content)
    }

    /// Caps the contents of a resource. Returns whether they were changed.
    pub(super) fn resource(self, result: &mut ReadResourceResult) -> bool {
        self.parts(&mut result.contents)
    }

    /// Caps a prompt. Returns whether it was changed.
    pub(super) fn prompt(self, result: &mut GetPromptResult) -> bool {
        self.parts(&mut result.messages)
    }

    /// Retains the first parts that fit, truncates the next one and removes the others.
    fn parts<P: ContentPart>(self, parts: &mut Vec<P>) -> bool {
        let total: usize = parts.iter().map(ContentPart::size).sum();
        if total <= self.0 {
            return false;
        }
        let mut remaining = self.0.saturating_sub(NOTICE_BYTES);
        let whole = parts.iter().take_while(|part| {
            remaining.checked_sub(part.size()).map(|rest| remaining = rest).is_some()
        });
        let whole = whole.count();
        let retained: usize = parts.iter().take(whole).map(ContentPart::size).sum();
        parts.truncate(whole + 1);
        if let Some(last) = parts.get_mut(whole) {
            match last.text_to_truncate() {
                Some(text) => {
                    text.truncate(head(text, remaining).len());
                    let notice = self.notice(total - retained - text.len());
                    text.push_str(&notice);
                }
                None => *last = last.replacement(self.notice(total - retained)),
            }
        }
        true
    }

    fn notice(self, omitted: usize) -> String {
        format!("\n[truncated: {omitted} bytes omitted; at most {} are allowed]", self.0)
    }
}

/// The start of a text, up to a character boundary within the given number of bytes.
fn head(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

impl ContentPart for ContentBlock {
    fn size(&self) -> usize {
        match self {
            Self::Text(text) => text.text.len(),
            Self::Image(image) => image.data.len(),
            Self::Audio(audio) => audio.data.len(),
            Self::Resource(embedded) => embedded.resource.size(),
            Self::ResourceLink(link) => {
                let optional = [&link.title, &link.description];
                let optional = optional.into_iter().flatten().map(String::len).sum::<usize>();
                link.uri.len() + link.name.len() + optional
            }
            _ => 0,
        }
    }

    fn text_to_truncate(&mut self) -> Option<&mut String> {
        match self {
            Self::Text(text) => Some(&mut text.text),
            Self::Resource(embedded) => embedded.resource.text_to_truncate(),
            _ => None,
        }
    }

    fn replacement(&self, notice: String) -> Self {
        Self::text(notice)
    }
}

impl ContentPart for ResourceContents {
    fn size(&self) -> usize {
        match self {
            Self::TextResourceContents { text, .. } => text.len(),
            Self::BlobResourceContents { blob, .. } => blob.len(),
            _ => 0,
        }
    }

    fn text_to_truncate(&mut self) -> Option<&mut String> {
        match self {
            Self::TextResourceContents { text, mime_type, .. } => {
                // A truncated document is not valid in its own format.
                *mime_type = Some("text/plain".to_owned());
                Some(text)
            }
            _ => None,
        }
    }

    fn replacement(&self, notice: String) -> Self {
        let uri = match self {
            Self::TextResourceContents { uri, .. } | Self::BlobResourceContents { uri, .. } => {
                uri.as_str()
            }
            _ => "",
        };
        Self::text(notice, uri)
    }
}

impl ContentPart for PromptMessage {
    fn size(&self) -> usize {
        self.content.size()
    }

    fn text_to_truncate(&mut self) -> Option<&mut String> {
        self.content.text_to_truncate()
    }

    fn replacement(&self, notice: String) -> Self {
        Self::new_text(self.role.clone(), notice)
    }
}

#[cfg(test)]
mod tests {
    use drawbridge_config::edge::GUARD_BYTES_MIN;
    use proptest::prelude::*;
    use rmcp::model::Role;
    use serde_json::json;

    use super::*;

    const CAP: SizeCap = SizeCap(300);

    #[test]
    fn a_text_is_truncated_between_characters_with_a_notice() {
        assert!(matches!(CAP.text(&"x".repeat(300)), Cow::Borrowed(_)));
        let truncated = CAP.text(&"é".repeat(151)).into_owned();
        assert_eq!(
            truncated,
            format!("{}\n[truncated: 130 bytes omitted; at most 300 are allowed]", "é".repeat(86))
        );
    }

    #[test]
    fn structured_content_is_whole_or_replaced_by_an_error() {
        let structured = |bytes: usize| {
            let value = json!({ "x": "y".repeat(bytes - 8) });
            let mut result = CallToolResult::success(vec![ContentBlock::text(value.to_string())]);
            result.structured_content = Some(value);
            result
        };
        let mut fits = structured(300);
        assert!(!CAP.tool_result(&mut fits), "a repeated text does not count");
        let mut large = structured(301);
        assert!(CAP.tool_result(&mut large));
        assert_eq!((large.is_error, &large.structured_content), (Some(true), &None));
        let message = large.content[0].as_text().unwrap().text.as_str();
        assert!(
            message.starts_with("the result has 301 bytes, but at most 300 are allowed"),
            "{message}"
        );
    }

    #[test]
    fn the_first_parts_are_retained_and_a_part_without_text_is_replaced() {
        let mut result = CallToolResult::success(vec![
            ContentBlock::text("a".repeat(100)),
            ContentBlock::image("b".repeat(200), "image/png"),
            ContentBlock::text("c"),
        ]);
        assert!(CAP.tool_result(&mut result));
        assert_eq!(result.content.len(), 2);
        let notice = "\n[truncated: 201 bytes omitted; at most 300 are allowed]";
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
        assert!(text.starts_with(&format!("{}\n[truncated: 228 bytes", "d".repeat(172))), "{text}");

        let mut prompt =
            GetPromptResult::new(vec![PromptMessage::new_text(Role::Assistant, "e".repeat(400))]);
        assert!(CAP.prompt(&mut prompt));
        assert_eq!(prompt.messages[0].role, Role::Assistant);
    }

    proptest! {
        #[test]
        fn capping_a_result_is_bounded_and_idempotent(
            texts in prop::collection::vec("(\\PC){0,200}", 0..5),
        ) {
            let blocks = texts.into_iter().map(ContentBlock::text).collect();
            let mut result = CallToolResult::success(blocks);
            CAP.tool_result(&mut result);
            prop_assert!(result.content.iter().map(ContentPart::size).sum::<usize>() <= CAP.0);
            prop_assert!(!CAP.tool_result(&mut result));
        }

        #[test]
        fn capping_a_text_is_bounded_and_idempotent(
            text in "(\\PC){0,400}",
            cap in usize::try_from(GUARD_BYTES_MIN).unwrap()..600,
        ) {
            let once = SizeCap(cap).text(&text).into_owned();
            prop_assert!(once.len() <= cap);
            prop_assert!(matches!(SizeCap(cap).text(&once), Cow::Borrowed(_)));
        }
    }
}
