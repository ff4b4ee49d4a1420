//! What a signature says of a bundle.

use std::fmt;

use data_encoding::HEXLOWER;
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};

/// The first line of a note about a bundle. It keeps other notes of the same keys apart.
const KIND: &str = "drawbridge policy bundle v1";

/// A statement about one bundle: the text of its signed note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Which policies these are, such as those of one environment.
    pub name: String,
    /// The SHA-256 of the bundle's bytes.
    pub sha256: [u8; 32],
    /// Its number. A later bundle has a larger one.
    pub revision: u64,
    /// When it was made.
    pub created: Timestamp,
    /// After this time, auth warns that no newer bundle has arrived.
    pub not_after: Option<Timestamp>,
    /// The largest revision that it may replace although its own is smaller.
    pub allow_rollback: Option<u64>,
}

/// A statement about a bundle cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// The text of the note has another form.
    #[error("the signed text is not about a policy bundle: {0}")]
    Format(String),
    /// The revision is older than the one in force.
    #[error(
        "revision {offered} may not replace revision {current}; sign it with a revision above \
         {current}, or with `drawbridge policy bundle --allow-rollback {current}`"
    )]
    Rollback {
        /// The revision of the bundle.
        offered: u64,
        /// The revision that it has to exceed.
        current: u64,
    },
    /// A revision is used twice.
    #[error("revision {0} already has another content; sign this one with a revision above {0}")]
    Reused(u64),
}

impl Release {
    /// The digest of a bundle.
    #[must_use]
    pub fn digest(packed: &[u8]) -> [u8; 32] {
        Sha256::digest(packed).into()
    }

    /// The digest, in hexadecimal.
    #[must_use]
    pub fn sha256_hex(&self) -> String {
        HEXLOWER.encode(&self.sha256)
    }

    /// The revision that a later bundle has to exceed.
    fn floor(&self) -> u64 {
        self.revision.max(self.allow_rollback.unwrap_or(0))
    }

    /// Checks that this bundle may replace `current`.
    ///
    /// A permission to roll back names the revision up to which it holds, so it is of no use once a
    /// later bundle was in force; and the bundles that it has replaced cannot return.
    ///
    /// # Errors
    /// If its revision is older, or that of `current` with another content.
    pub fn check_replaces(&self, current: &Self) -> Result<(), ReleaseError> {
        let (floor, is_newer) = (current.floor(), self.created > current.created);
        let is_signed_anew = self.revision == current.revision
            && self.sha256 == current.sha256
            && self.floor() >= floor
            && self.created >= current.created;
        let may_roll_back = is_newer && self.allow_rollback.is_some_and(|from| from >= floor);
        if self.revision > floor || is_signed_anew || may_roll_back {
            Ok(())
        } else if self.revision == current.revision && self.sha256 != current.sha256 {
            Err(ReleaseError::Reused(self.revision))
        } else {
            Err(ReleaseError::Rollback { offered: self.revision, current: floor })
        }
    }

    /// Whether its `not_after` has passed.
    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.not_after.is_some_and(|not_after| now > not_after)
    }

    /// Parses the text of a note.
    ///
    /// # Errors
    /// If it has another form. Fields have a fixed order, so that a text has one meaning.
    pub fn parse(text: &str) -> Result<Self, ReleaseError> {
        let mut fields = Fields { lines: text.lines().peekable() };
        let kind = fields.lines.next().unwrap_or_default();
        if kind != KIND {
            return Err(ReleaseError::Format(format!("its first line is {kind:?}, not {KIND:?}")));
        }
        let name = fields.required("name", |name| is_name(name).then(|| name.to_owned()))?;
        let sha256 = fields.required("sha256", |hex| {
            let bytes = HEXLOWER.decode(hex.as_bytes()).ok()?;
            bytes.try_into().ok()
        })?;
        let release = Self {
            name,
            sha256,
            revision: fields.required("revision", number)?,
            created: fields.required("created", time)?,
            not_after: fields.optional("not_after", time)?,
            allow_rollback: fields.optional("allow_rollback", number)?,
        };
        match fields.lines.next() {
            None => Ok(release),
            Some(line) => Err(ReleaseError::Format(format!("unexpected line {line:?}"))),
        }
    }
}

/// Whether a text names a set of policies: letters, digits, `-`, `_`, `.` and `/`.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    (1..=128).contains(&name.len()) && name.bytes().all(is_allowed)
}

fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|number: &u64| number.to_string() == text)
}

fn time(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// The lines `name value` of a text.
struct Fields<'a> {
    lines: std::iter::Peekable<std::str::Lines<'a>>,
}

impl Fields<'_> {
    fn required<T>(
        &mut self,
        name: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<T, ReleaseError> {
        let value = self.optional(name, parse)?;
        value.ok_or_else(|| ReleaseError::Format(format!("it has no {name}")))
    }

    fn optional<T>(
        &mut self,
        name: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, ReleaseError> {
        let value = |line: &str| {
            let (key, value) = line.split_once(' ')?;
            (key == name).then(|| value.to_owned())
        };
        let Some(value) = self.lines.peek().and_then(|line| value(line)) else { return Ok(None) };
        self.lines.next();
        let parsed = parse(&value);
        parsed.map(Some).ok_or_else(|| ReleaseError::Format(format!("invalid {name} {value:?}")))
    }
}

impl fmt::Display for Release {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{KIND}")?;
        writeln!(formatter, "name {}", self.name)?;
        writeln!(formatter, "sha256 {}", self.sha256_hex())?;
        writeln!(formatter, "revision {}", self.revision)?;
        writeln!(formatter, "created {}", self.created)?;
        if let Some(not_after) = self.not_after {
            writeln!(formatter, "not_after {not_after}")?;
        }
        match self.allow_rollback {
            Some(revision) => writeln!(formatter, "allow_rollback {revision}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(revision: u64, content: u8, second: i64, allow_rollback: Option<u64>) -> Release {
        Release {
            name: "policies".to_owned(),
            sha256: [content; 32],
            revision,
            created: Timestamp::from_second(second).unwrap(),
            not_after: None,
            allow_rollback,
        }
    }

    #[test]
    fn a_text_has_one_meaning_and_is_written_as_it_was_read() {
        let mut full = release(7, 3, 1_000, Some(9));
        full.not_after = Some(Timestamp::from_second(2_000).unwrap());
        let text = full.to_string();
        insta::assert_snapshot!(text, @r"
        drawbridge policy bundle v1
        name policies
        sha256 0303030303030303030303030303030303030303030303030303030303030303
        revision 7
        created 1970-01-01T00:16:40Z
        not_after 1970-01-01T00:33:20Z
        allow_rollback 9
        ");
        assert_eq!(Release::parse(&text).unwrap(), full);
        let check = |from: &str, to: &str, wanted: &str| {
            let error = Release::parse(&text.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        };
        check("v1", "v2", "its first line is");
        check("name policies", "name a b", r#"invalid name "a b""#);
        check("sha256 03", "sha256 3", "invalid sha256");
        check("revision 7\n", "", "it has no revision");
        check("revision 7", "revision 07", r#"invalid revision "07""#);
        check("revision 7", "revision -1", "invalid revision");
        check("created 1970", "created yesterday 1970", "invalid created");
        check("allow_rollback 9", "more 9", r#"unexpected line "more 9""#);
        check("revision 7\n", "revision 7\nrevision 8\n", "it has no created");
    }

    #[test]
    fn a_revision_falls_only_where_that_is_signed_and_never_twice() {
        let check = |offered: &Release, current: &Release, accepted: bool| {
            let checked = offered.check_replaces(current);
            assert_eq!(checked.is_ok(), accepted, "{offered:?} {current:?}: {checked:?}");
        };
        let (first, second) = (release(1, 1, 1, None), release(2, 2, 2, None));
        check(&second, &first, true);
        check(&first, &second, false);
        // Signed anew, such as with a later `not_after`; but not with another content.
        check(&release(2, 2, 3, None), &second, true);
        check(&release(2, 3, 3, None), &second, false);
        assert_eq!(release(2, 3, 3, None).check_replaces(&second), Err(ReleaseError::Reused(2)));
        // An older one that may replace the second.
        let back = release(1, 1, 4, Some(2));
        check(&back, &second, true);
        // What was rolled back does not return, and the permission ends with the next revision.
        check(&second, &back, false);
        check(&release(1, 1, 5, None), &back, false);
        let third = release(3, 3, 5, None);
        check(&third, &back, true);
        check(&back, &third, false);
        // Of two permissions, the one that was made later holds.
        check(&back, &release(1, 9, 6, Some(2)), false);
    }
}
