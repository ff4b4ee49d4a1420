//! Applies a guard to all parts of a result that go to a model.

use std::borrow::Cow;

use rmcp::model::{
    CallToolResult, ContentBlock, GetPromptResult, ReadResourceResult, ResourceContents,
};

use super::{
    GuardCounts, GuardKind,
    json::{TextFilter, guard_text, guard_value, is_serialized_as},
};

/// One guard applied to one result.
pub(super) struct GuardPass<'w> {
    pub(super) kind: &'w GuardKind,
    pub(super) counts: &'w mut GuardCounts,
    /// Whether it has changed anything.
    pub(super) is_changed: bool,
}

impl TextFilter for GuardPass<'_> {
    fn filter<'t>(&mut self, field: Option<&str>, text: &'t str) -> Cow<'t, str> {
        let filtered = self.kind.filter(field, text, self.counts);
        self.is_changed |= matches!(filtered, Cow::Owned(_));
        filtered
    }
}

impl GuardPass<'_> {
    pub(super) fn tool_result(&mut self, result: &mut CallToolResult) {
        if let GuardKind::Size(cap) = self.kind {
            return self.count_if(cap.tool_result(result));
        }
        let Some(structured) = &mut result.structured_content else {
            return self.blocks(&mut result.content);
        };
        match &mut result.content[..] {
            [ContentBlock::Text(text)] if is_serialized_as(&text.text, structured) => {
                guard_value(structured, self);
                if self.is_changed {
                    text.text = structured.to_string();
                }
            }
            blocks => {
                guard_value(structured, self);
                self.blocks(blocks);
            }
        }
    }

    pub(super) fn resource(&mut self, result: &mut ReadResourceResult) {
        if let GuardKind::Size(cap) = self.kind {
            return self.count_if(cap.resource(result));
        }
        result.contents.iter_mut().for_each(|contents| self.contents(contents));
    }

    pub(super) fn prompt(&mut self, result: &mut GetPromptResult) {
        if let GuardKind::Size(cap) = self.kind {
            return self.count_if(cap.prompt(result));
        }
        self.texts(result.description.as_mut());
        for message in &mut result.messages {
            self.blocks(std::slice::from_mut(&mut message.content));
        }
    }

    fn count_if(&mut self, is_changed: bool) {
        if is_changed {
            self.counts.add(self.kind.name(), 1);
        }
    }

    fn blocks(&mut self, blocks: &mut [ContentBlock]) {
        for block in blocks {
            match block {
                ContentBlock::Text(text) => guard_text(&mut text.text, self),
                ContentBlock::Resource(embedded) => self.contents(&mut embedded.resource),
                // A URI is an identifier: a changed one would name something else.
                ContentBlock::ResourceLink(link) => {
                    self.texts(
                        [&mut link.name]
                            .into_iter()
                            .chain(&mut link.title)
                            .chain(&mut link.description),
                    );
                }
                // Other blocks have no text.
                _ => {}
            }
        }
    }

    fn contents(&mut self, contents: &mut ResourceContents) {
        if let ResourceContents::TextResourceContents { text, .. } = contents {
            guard_text(text, self);
        }
    }

    pub(super) fn texts<'t>(&mut self, texts: impl IntoIterator<Item = &'t mut String>) {
        texts.into_iter().for_each(|text| guard_text(text, self));
    }
}

#[cfg(test)]
mod tests {
    use rmcp::model::Resource;
    use serde_json::json;

    use super::*;
    use crate::traffic::guard::redact::Redactor;
    use drawbridge_config::edge::PatternClass;

    fn guarded(mut result: CallToolResult) -> serde_json::Value {
        let kind = GuardKind::Redact(
            Redactor::new(&[PatternClass::Email, PatternClass::Secrets], &[]).unwrap(),
        );
        let mut counts = GuardCounts::default();
        GuardPass { kind: &kind, counts: &mut counts, is_changed: false }.tool_result(&mut result);
        serde_json::to_value(result).unwrap()
    }

    #[test]
    fn all_texts_of_a_result_are_guarded() {
        let structured = json!({
            "a@b.de": 1, "to": ["c@d.de", 4], "password": "x", "n": 4_111_111_111_111_111_u64
        });
        // The text of a service that repeats its structured content.
        let own_text = serde_json::to_string_pretty(&structured).unwrap();
        let link = Resource::new("mailto:e@f.de", "e@f.de").with_description("of e@f.de");
        let mut result = CallToolResult::success(vec![
            ContentBlock::text(own_text),
            ContentBlock::resource(ResourceContents::text("g@h.de", "x:y")),
            ContentBlock::ResourceLink(link),
            ContentBlock::image("aUBqLmRl", "image/png"),
        ]);
        result.structured_content = Some(structured);
        let guarded = guarded(result);
        let redacted = "[redacted:email]";
        let expected = json!({
            redacted: 1, "to": [redacted, 4], "password": "[redacted:field]",
            "n": 4_111_111_111_111_111_u64
        });
        assert_eq!(guarded["structuredContent"], expected);
        let blocks = &guarded["content"];
        assert_eq!(blocks[0]["text"], serde_json::to_string_pretty(&expected).unwrap());
        assert_eq!(blocks[1]["resource"]["text"], redacted);
        assert_eq!(blocks[2]["name"], redacted);
        assert_eq!(blocks[2]["description"], format!("of {redacted}"));
        assert_eq!(blocks[2]["uri"], "mailto:e@f.de");
        assert_eq!(blocks[3]["data"], "aUBqLmRl");
    }

    #[test]
    fn a_text_that_repeats_the_structured_content_is_rewritten_from_it() {
        let structured = json!({ "to": "c@d.de", "e@f.de": 1, "g@h.de": 2 });
        let mut result = CallToolResult::success(vec![ContentBlock::text(structured.to_string())]);
        result.structured_content = Some(structured);
        let guarded = guarded(result);
        let text = guarded["content"][0]["text"].as_str().unwrap();
        assert_eq!(text, guarded["structuredContent"].to_string());
        assert_eq!(
            text,
            r#"{"to":"[redacted:email]","[redacted:email]":1,"[redacted:email]#2":2}"#
        );
    }
}
