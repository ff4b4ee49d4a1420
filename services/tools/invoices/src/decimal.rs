//! Parses exact decimals, and formats sort keys.

use rust_decimal::Decimal;

/// The maximum digits before the point. A product of two decimals still fits.
const WHOLE_DIGITS_MAX: usize = 14;
/// The maximum digits after the point, without trailing zeros.
const FRACTION_DIGITS_MAX: usize = 18;
/// The maximum digits after the point for which trailing zeros are preserved; they only express
/// precision.
const FRACTION_DIGITS_WITH_ZEROS_MAX: usize = 10;
/// The precision of sort keys, in digits after the point.
const ORDER_FRACTION_DIGITS: usize = 10;

/// Parses an XML Schema decimal: `12`, `-0.50`, `+3.`, `.5`. No exponent, no separators. Preserves
/// trailing zeros up to the tenth digit after the point; a longer fraction loses all of them.
pub(crate) fn parse(text: &str) -> Option<Decimal> {
    let text = text.trim_matches([' ', '\t', '\r', '\n']);
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole = whole.trim_start_matches('0');
    let fraction = match fraction.len() {
        0..=FRACTION_DIGITS_WITH_ZEROS_MAX => fraction,
        _ => fraction.trim_end_matches('0'),
    };
    if !digits.bytes().any(|byte| byte.is_ascii_digit())
        || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit())
        || whole.len() > WHOLE_DIGITS_MAX
        || fraction.len() > FRACTION_DIGITS_MAX
    {
        return None;
    }
    // 28 digits are exact; more are an error unless they fit into 96 bits.
    let mut value = Decimal::from_str_exact(&format!("0{whole}.{fraction}")).ok()?;
    value.rescale(u32::try_from(fraction.len()).ok()?);
    value.set_sign_negative(text.starts_with('-') && !value.is_zero());
    Some(value)
}

/// The decimal of an optional text.
pub(crate) fn parse_option(text: Option<&String>) -> Option<Decimal> {
    parse(text?)
}

/// A text whose byte order is the order of decimals of [`parse`], rounded to ten digits after the
/// point.
pub(crate) fn sort_key(value: Decimal) -> String {
    const DIGITS: usize = WHOLE_DIGITS_MAX + ORDER_FRACTION_DIGITS;
    let mut value = value;
    value.rescale(ORDER_FRACTION_DIGITS as u32);
    let digits = value.mantissa().unsigned_abs();
    if value.is_sign_negative() {
        format!("-{:0DIGITS$}", (10_u128.pow(24) - 1).saturating_sub(digits))
    } else {
        format!("0{digits:0DIGITS$}")
    }
}
