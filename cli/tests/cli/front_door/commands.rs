//! Commands that say yes have done what they say.
