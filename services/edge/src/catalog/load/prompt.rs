//! Reads methods as prompts.

use drawbridge_proto::mcp::v1 as mcp;
use prost_reflect::{Kind, MethodDescriptor};
use rmcp::model::{Prompt, PromptArgument};

use super::{ContractReader, ItemError};
use crate::catalog::PromptItem;

impl ContractReader<'_> {
    pub(super) fn prompt(
        &mut self,
        name: String,
        method: &MethodDescriptor,
        options: mcp::PromptOptions,
    ) -> Result<PromptItem, ItemError> {
        let mut target = self.target(method, None)?;
        target.idempotent = true;
        let input = method.input();
        let arguments =
            input.fields().filter(|field| field.kind() == Kind::String && !field.is_list());
        let arguments = arguments.map(|field| {
            // A field without `optional` is a required argument.
            let mut argument =
                PromptArgument::new(field.name()).with_required(!field.supports_presence());
            argument.description = self.comments.of_field(&field);
            argument
        });
        let arguments: Vec<_> = arguments.collect();
        let description = self.description(method, options.description);
        let mut prompt = Prompt::new(name.clone(), description, Some(arguments));
        prompt.title = Some(options.title).filter(|title| !title.is_empty());
        Ok(PromptItem { prompt, item: self.item(name, &target, options.scopes), target })
    }
}
