//! Exact decimals, and their text.

use rust_decimal::Decimal;

/// The most digits before the point. A product of two decimals still fits.
const WHOLE_DIGITS_MAX: usize = 14;
/// The most digits after the point.
const FRACTION_DIGITS_MAX: usize = 10;

/// Reads a decimal of XML Schema: `12`, `-0.50`, `+3.`, `.5`. No exponent, no separators.
pub(crate) fn parse(text: &str) -> Option<Decimal> {
    let text = text.trim_matches([' ', '\t', '\r', '\n']);
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole = whole.trim_start_matches('0');
    if !digits.bytes().any(|byte| byte.is_ascii_digit())
        || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit())
        || whole.len() > WHOLE_DIGITS_MAX
        || fraction.len() > FRACTION_DIGITS_MAX
    {
        return None;
    }
    let mut value = Decimal::from_str_exact(&format!("0{whole}.{fraction}0")).ok()?;
    value.rescale(u32::try_from(fraction.len()).ok()?);
    value.set_sign_negative(text.starts_with('-') && !value.is_zero());
    Some(value)
}

/// The decimal of a text that `parse` made.
pub(crate) fn of(text: Option<&String>) -> Option<Decimal> {
    parse(text?)
}

/// A text that sorts, byte by byte, as the decimals of [`parse`] do.
pub(crate) fn order(value: Decimal) -> String {
    const DIGITS: usize = WHOLE_DIGITS_MAX + FRACTION_DIGITS_MAX;
    let mut value = value;
    value.rescale(10);
    let digits = value.mantissa().unsigned_abs();
    if value.is_sign_negative() {
        format!("-{:0DIGITS$}", (10_u128.pow(24) - 1).saturating_sub(digits))
    } else {
        format!("0{digits:0DIGITS$}")
    }
}
