//! The JSON of a tool in lists, which is serialized once.

use std::sync::OnceLock;

use serde_json::value::{RawValue, to_raw_value};

use super::{ToolItem, has_ui, meta::without_ui};

/// The form of a tool in a list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ToolForm {
    /// With its UI page, if it has one (MCP Apps).
    pub(crate) with_ui: bool,
    /// With an output schema that is not the schema of an object. Clients of older revisions do not
    /// support that (SEP-2106).
    pub(crate) with_any_output: bool,
}

/// The JSON of a tool in its forms, each serialized when it is first needed. A clone has none,
/// because the cloned tool is changed.
#[derive(Debug, Default)]
pub(crate) struct ToolJson([OnceLock<Option<Box<RawValue>>>; 4]);

impl Clone for ToolJson {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl ToolItem {
    /// The tool in a list. `None`: it cannot be serialized, so it cannot be shown.
    pub(crate) fn json(&self, form: ToolForm) -> Option<&RawValue> {
        let removes_ui = !form.with_ui && has_ui(self.tool.meta.as_ref());
        let removes_output = !form.with_any_output && !self.has_object_output();
        let number = usize::from(removes_ui) + 2 * usize::from(removes_output);
        let json = self.json.0[number].get_or_init(|| {
            let mut tool = self.tool.clone();
            if removes_ui {
                tool.meta = without_ui(tool.meta.as_ref());
            }
            if removes_output {
                tool.output_schema = None;
            }
            to_raw_value(&tool).ok()
        });
        json.as_deref()
    }

    /// Whether every revision supports its output schema.
    fn has_object_output(&self) -> bool {
        let schema = self.tool.output_schema.as_ref();
        schema.is_none_or(|schema| schema.get("type").is_some_and(|kind| kind == "object"))
    }
}
