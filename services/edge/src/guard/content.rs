//! What of an answer goes to a model, and is guarded.

use std::borrow::Cow;

use rmcp::model::{CallToolResult, ContentBlock, GetPromptResult, ReadResourceResult, ResourceContents};

use super::{
    Kind, Tally,
    json::{Check, guard_text, guard_value, is_written},
};

/// One guard at work on one answer.
pub(super) struct Working<'w> {
    pub(super) kind: &'w Kind,
    pub(super) tally: &'w mut Tally,
    /// Whether it has changed anything.
    pub(super) changed: bool,
}

impl Check for Working<'_> {
    fn check<'t>(&mut self, field: Option<&str>, text: &'t str) -> Cow<'t, str> {
        let checked = self.kind.check(field, text, self.tally);
        self.changed |= matches!(checked, Cow::Owned(_));
        checked
    }
}

impl Working<'_> {
    pub(super) fn tool_result(&mut self, result: &mut CallToolResult) {
        if let Kind::Size(cap) = self.kind {
            return self.cut(cap.tool_result(result));
        }
        let Some(structured) = &mut result.structured_content else {
            return self.blocks(&mut result.content);
        };
        match &mut result.content[..] {
            [ContentBlock::Text(text)] if is_written(&text.text, structured) => {
                guard_value(structured, self);
                if self.changed {
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
        if let Kind::Size(cap) = self.kind {
            return self.cut(cap.resource(result));
        }
        result.contents.iter_mut().for_each(|contents| self.contents(contents));
    }

    pub(super) fn prompt(&mut self, result: &mut GetPromptResult) {
        if let Kind::Size(cap) = self.kind {
            return self.cut(cap.prompt(result));
        }
        self.texts(result.description.as_mut());
        for message in &mut result.messages {
            self.blocks(std::slice::from_mut(&mut message.content));
        }
    }

    fn cut(&mut self, changed: bool) {
        if changed {
            self.tally.add(self.kind.name(), 1);
        }
    }

    fn blocks(&mut self, blocks: &mut [ContentBlock]) {
        for block in blocks {
            match block {
                ContentBlock::Text(text) => guard_text(&mut text.text, self),
                ContentBlock::Resource(embedded) => self.contents(&mut embedded.resource),
                // A URI names what it names, or something else.
                ContentBlock::ResourceLink(link) => {
                    self.texts(
                        [&mut link.name].into_iter().chain(&mut link.title).chain(&mut link.description),
                    );
                }
                // What is no text passes.
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
