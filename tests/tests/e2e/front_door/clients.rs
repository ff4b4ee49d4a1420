//! Real clients of the field run the whole flow.
