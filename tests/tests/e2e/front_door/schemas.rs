//! Input and output schemas as model APIs accept them.
