use super::DESCRIPTORS;

/// The parts of a contract that differ from the original.
#[derive(Clone, Copy, Debug, Default)]
pub struct ContractChanges {
    pub(super) tools: bool,
    pub(super) prompts: bool,
}

impl ContractChanges {
    /// The contract. A changed part has another description of the same length.
    pub(super) fn descriptors(self) -> &'static [u8] {
        let mut contract = DESCRIPTORS.to_vec();
        for (is_changed, text) in
            [(self.tools, "Returns a text."), (self.prompts, "A prompt that needs input.")]
        {
            let start = contract.windows(text.len()).position(|window| window == text.as_bytes());
            let start = start.expect("the description");
            if is_changed {
                contract[start..start + text.len()].make_ascii_uppercase();
            }
        }
        contract.leak()
    }
}
