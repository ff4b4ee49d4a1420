use std::{fmt, str::FromStr};

use crate::error::TicketError;

/// The id of a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TicketId(u64);

impl TicketId {
    pub(crate) fn number(self) -> u64 {
        self.0
    }
}

impl FromStr for TicketId {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // One spelling only: `007` or `+7` must not evade a policy that names `7`.
        let id = text.parse().ok().filter(|id: &u64| *id > 0 && id.to_string() == text);
        id.map(Self)
            .ok_or(TicketError::argument("ticket_id", "must be a ticket's id in decimal digits"))
    }
}

impl fmt::Display for TicketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_spelling() {
        assert_eq!("4711".parse::<TicketId>().unwrap().number(), 4711);
        for text in ["", "0", "007", "+7", " 7", "-7", "7/../8", "99999999999999999999", "\u{667}"]
        {
            assert!(text.parse::<TicketId>().is_err(), "{text}");
        }
    }
}
