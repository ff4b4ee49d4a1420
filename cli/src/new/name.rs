//! The name of a service, in the spellings of the places where it occurs.

use std::str::FromStr;

/// The longest name, in bytes.
const BYTES_MAX: usize = 32;

/// The namespace of a new service.
#[derive(Clone, Debug)]
pub(super) struct ServiceName(String);

/// A text is not the name of a service.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "expected 1 to {BYTES_MAX} of the characters a-z, 0-9 and _, beginning with a letter, each _ \
     between two others; for example meeting_rooms"
)]
pub(super) struct ServiceNameError;

impl ServiceName {
    /// As a namespace: `meeting_rooms`.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// As the name of a package or an image: `meeting-rooms`.
    pub(super) fn kebab(&self) -> String {
        self.0.replace('_', "-")
    }

    /// As a part of a type's name: `MeetingRooms`.
    pub(super) fn camel(&self) -> String {
        let capitalized = |word: &str| word[..1].to_ascii_uppercase() + &word[1..];
        self.0.split('_').map(capitalized).collect()
    }

    /// As a part of a variable's name: `MEETING_ROOMS`.
    pub(super) fn upper(&self) -> String {
        self.0.to_ascii_uppercase()
    }
}

impl FromStr for ServiceName {
    type Err = ServiceNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_word = |word: &str| {
            !word.is_empty()
                && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        let good = text.len() <= BYTES_MAX
            && text.starts_with(|first: char| first.is_ascii_lowercase())
            && text.split('_').all(is_word);
        if good { Ok(Self(text.to_owned())) } else { Err(ServiceNameError) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_name_has_a_spelling_for_each_place() {
        let name: ServiceName = "meeting_rooms_2".parse().unwrap();
        assert_eq!(
            [name.as_str(), &name.kebab(), &name.camel(), &name.upper()],
            ["meeting_rooms_2", "meeting-rooms-2", "MeetingRooms2", "MEETING_ROOMS_2"]
        );
    }

    #[test]
    fn a_text_that_is_not_a_namespace_is_rejected() {
        let too_long = "a".repeat(BYTES_MAX + 1);
        for text in ["", "2x", "_x", "x_", "a__b", "A", "a-b", "a.b", "é", "../x", &too_long] {
            assert!(text.parse::<ServiceName>().is_err(), "{text}");
        }
    }
}
