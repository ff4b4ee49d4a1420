//! Numbers with check digits.

/// The most characters of a number, without separators.
const LENGTH_MAX: usize = 34;

/// The length of the card number at the start of a text.
pub(super) fn card(text: &str) -> Option<usize> {
    longest(text, u8::is_ascii_digit, |digits| {
        (13..=19).contains(&digits.len()) && is_issued(digits) && luhn(digits)
    })
}

/// The length of the IBAN at the start of a text (ISO 13616).
pub(super) fn iban(text: &str) -> Option<usize> {
    let country = text.get(..2)?.to_ascii_uppercase();
    let (_, length) = IBAN_LENGTHS.iter().find(|(code, _)| *code == country)?;
    longest(text, u8::is_ascii_alphanumeric, |characters| {
        characters.len() == *length && mod_97(characters) == Some(1)
    })
}

/// The length of the longest valid prefix, in groups separated by one space or hyphen, that does
/// not end within a word.
fn longest(
    text: &str,
    is_part: fn(&u8) -> bool,
    is_valid: impl Fn(&[u8]) -> bool,
) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut characters = Vec::with_capacity(LENGTH_MAX);
    let (mut found, mut is_separated) = (None, false);
    for (place, byte) in bytes.iter().enumerate() {
        if is_part(byte) && characters.len() < LENGTH_MAX {
            is_separated = false;
            characters.push(*byte);
            let is_end = !bytes.get(place + 1).is_some_and(u8::is_ascii_alphanumeric);
            if is_end && is_valid(&characters) {
                found = Some(place + 1);
            }
        } else if matches!(byte, b' ' | b'-') && !is_separated {
            is_separated = true;
        } else {
            break;
        }
    }
    found
}

/// Whether an issuer uses this prefix: Visa, Mastercard, American Express, Diners, Discover, JCB,
/// UnionPay, Maestro.
fn is_issued(digits: &[u8]) -> bool {
    let first = |count: usize| {
        digits[..count].iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0'))
    };
    match first(1) {
        2 => (2221..=2720).contains(&first(4)),
        3 => matches!(first(2), 30 | 34..=39),
        4..=6 => true,
        _ => false,
    }
}

fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| match (place % 2, u32::from(digit - b'0')) {
            (0, digit) => digit,
            (_, digit) => digit * 2 / 10 + digit * 2 % 10,
        })
        .sum();
    sum.is_multiple_of(10)
}

fn mod_97(characters: &[u8]) -> Option<u32> {
    let (head, tail) = characters.split_at_checked(4)?;
    tail.iter().chain(head).try_fold(0, |rest, character| {
        let value = char::from(*character).to_digit(36)?;
        Some(if value < 10 { rest * 10 + value } else { rest * 100 + value } % 97)
    })
}

/// The length of IBANs by country, from SWIFT's registry.
const IBAN_LENGTHS: [(&str, usize); 88] = [
    ("AD", 24),
    ("AE", 23),
    ("AL", 28),
    ("AT", 20),
    ("AZ", 28),
    ("BA", 20),
    ("BE", 16),
    ("BG", 22),
    ("BH", 22),
    ("BI", 27),
    ("BR", 29),
    ("BY", 28),
    ("CH", 21),
    ("CR", 22),
    ("CY", 28),
    ("CZ", 24),
    ("DE", 22),
    ("DJ", 27),
    ("DK", 18),
    ("DO", 28),
    ("EE", 20),
    ("EG", 29),
    ("ES", 24),
    ("FI", 18),
    ("FK", 18),
    ("FO", 18),
    ("FR", 27),
    ("GB", 22),
    ("GE", 22),
    ("GI", 23),
    ("GL", 18),
    ("GR", 27),
    ("GT", 28),
    ("HN", 28),
    ("HR", 21),
    ("HU", 28),
    ("IE", 22),
    ("IL", 23),
    ("IQ", 23),
    ("IS", 26),
    ("IT", 27),
    ("JO", 30),
    ("KW", 30),
    ("KZ", 20),
    ("LB", 28),
    ("LC", 32),
    ("LI", 21),
    ("LT", 20),
    ("LU", 20),
    ("LV", 21),
    ("LY", 25),
    ("MC", 27),
    ("MD", 24),
    ("ME", 22),
    ("MK", 19),
    ("MN", 20),
    ("MR", 27),
    ("MT", 31),
    ("MU", 30),
    ("NI", 28),
    ("NL", 18),
    ("NO", 15),
    ("OM", 23),
    ("PK", 24),
    ("PL", 28),
    ("PS", 29),
    ("PT", 25),
    ("QA", 29),
    ("RO", 24),
    ("RS", 22),
    ("RU", 33),
    ("SA", 24),
    ("SC", 31),
    ("SD", 18),
    ("SE", 24),
    ("SI", 19),
    ("SK", 24),
    ("SM", 27),
    ("SO", 23),
    ("ST", 25),
    ("SV", 28),
    ("TL", 23),
    ("TN", 24),
    ("TR", 26),
    ("UA", 29),
    ("VA", 22),
    ("VG", 24),
    ("XK", 20),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_number_passes_luhn_and_has_an_issuer_prefix() {
        for number in [
            "4111111111111111",
            "4111 1111 1111 1111",
            "5555-5555-5555-4444",
            "378282246310005",
            "3530111333300000",
            "6011000990139424",
            "2223003122003222",
            "4222222222222",
        ] {
            assert_eq!(card(number), Some(number.len()), "{number}");
        }
        // A wrong digit, a time in nanoseconds, a phone number, nothing but zeros.
        for number in
            ["4111111111111112", "1764000000000000000", "0049 30 901820 001", "0000000000000000"]
        {
            assert_eq!(card(number), None, "{number}");
        }
        assert_eq!(card("4111 1111 1111 1111 25"), Some(19), "digits after it are not part of it");
        assert_eq!(
            card("41111111111111112"),
            None,
            "the prefix of a longer number is not a card number"
        );
    }

    #[test]
    fn an_iban_has_the_right_length_and_checksum() {
        for number in [
            "DE89370400440532013000",
            "DE89 3704 0044 0532 0130 00",
            "GB29NWBK60161331926819",
            "NO9386011117947",
            "MT84MALT011000012345MTLCAST001S",
            "fr1420041010050500013m02606",
        ] {
            assert_eq!(iban(number), Some(number.len()), "{number}");
        }
        for number in ["DE88370400440532013000", "DE8937040044053201300", "XX89370400440532013000"]
        {
            assert_eq!(iban(number), None, "{number}");
        }
        assert_eq!(iban("NO9386011117947 BIC DNBANOKK"), Some(15));
    }
}
