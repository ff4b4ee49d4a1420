//! Comments of `.proto` files, which become the descriptions that clients see.

use std::collections::HashMap;

use drawbridge_contract::option;
use drawbridge_proto::mcp::v1 as mcp;
use prost_reflect::{FieldDescriptor, FileDescriptor};

/// The leading comments of one file, by descriptor path.
#[derive(Debug, Default)]
pub(crate) struct Comments {
    files: HashMap<String, HashMap<Vec<i32>, String>>,
}

impl Comments {
    /// The description of a field: its option, or else its comment.
    pub(crate) fn of_field(&mut self, field: &FieldDescriptor) -> Option<String> {
        let options: Option<mcp::FieldOptions> =
            option(&field.options(), "drawbridge.mcp.v1.field");
        let option = options.map(|options| options.description).filter(|text| !text.is_empty());
        option.or_else(|| self.of(&field.parent_file(), field.path()))
    }

    /// The comment on the descriptor at `path` of `file`, without line breaks except between
    /// paragraphs.
    pub(crate) fn of(&mut self, file: &FileDescriptor, path: &[i32]) -> Option<String> {
        let comments = self.files.entry(file.name().to_owned()).or_insert_with(|| leading(file));
        comments.get(path).cloned()
    }
}

fn leading(file: &FileDescriptor) -> HashMap<Vec<i32>, String> {
    let info = file.file_descriptor_proto().source_code_info.as_ref();
    let locations = info.into_iter().flat_map(|info| &info.location);
    locations
        .filter_map(|location| {
            let text = unwrapped(location.leading_comments.as_deref()?);
            (!text.is_empty()).then(|| (location.path.clone(), text))
        })
        .collect()
}

/// Joins the lines of a paragraph; an empty line ends it.
fn unwrapped(comment: &str) -> String {
    let mut text = String::new();
    let mut paragraph_ended = false;
    for line in comment.lines().map(str::trim) {
        if line.is_empty() {
            paragraph_ended = !text.is_empty();
            continue;
        }
        if !text.is_empty() {
            text.push_str(if paragraph_ended { "\n\n" } else { " " });
        }
        paragraph_ended = false;
        text.push_str(line);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_joined_within_paragraphs() {
        assert_eq!(unwrapped(" One\n two.\n\n\n Three.\n"), "One two.\n\nThree.");
        assert_eq!(unwrapped("\n \n"), "");
    }
}
