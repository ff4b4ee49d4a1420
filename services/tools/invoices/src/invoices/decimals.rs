use proptest::prelude::*;
use rust_decimal::Decimal;

use crate::decimal;

proptest! {
    #[test]
    fn a_decimal_is_formatted_as_it_was_parsed(
        units in -99_999_999_999_999_i64..=99_999_999_999_999,
        scale in 0_u32..=10,
    ) {
        let value = Decimal::new(units, scale);
        let text = value.to_string();
        let read = decimal::parse(&text).unwrap();
        prop_assert_eq!((read, read.scale(), read.to_string()), (value, scale, text.clone()));
        prop_assert_eq!(decimal::parse_option(Some(&text)), Some(value));
    }

    #[test]
    fn signs_zeros_and_white_space_do_not_change_the_value(
        units in 0_i64..=99_999_999,
        scale in 0_u32..=8,
    ) {
        let value = Decimal::new(units, scale);
        for text in [format!("+{value}"), format!("000{value}"), format!("\n {value}\t")] {
            prop_assert_eq!(decimal::parse(&text), Some(value));
        }
        prop_assert_eq!(decimal::parse(&format!("-{value}")), Some(-value));
    }

    #[test]
    fn any_text_is_a_decimal_of_the_contract_or_none(text in "[-+0-9.eE_, ]{0,30}|.{0,12}") {
        if let Some(value) = decimal::parse(&text) {
            let written = value.to_string();
            let digits = written.strip_prefix('-').unwrap_or(&written);
            let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
            let is_digits = |part: &str, max| {
                (1..=max).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
            };
            prop_assert!(is_digits(whole, 15) && is_digits(fraction, 18), "{text} is {written}");
            prop_assert_eq!(decimal::parse(&written), Some(value));
        }
    }
}

#[test]
fn a_text_that_is_not_an_xml_schema_decimal_is_rejected() {
    for text in
        ["", " ", ".", "-", "+", "1e3", "1_000", "1,5", "1.2.3", "--1", "NaN", "0x1", "1 0", "١"]
    {
        assert_eq!(decimal::parse(text), None, "{text}");
    }
    assert_eq!(decimal::parse("123456789012345"), None, "too large");
    assert_eq!(decimal::parse("0.1234567890123456789"), None, "too fine");
    assert_eq!(decimal::parse("99999999999.123456789012345678"), None, "too many digits");
    for (text, written) in
        [(".5", "0.5"), ("5.", "5"), ("-0.00", "0.00"), ("007", "7"), ("1.50", "1.50")]
    {
        assert_eq!(decimal::parse(text).unwrap().to_string(), written);
    }
}

#[test]
fn decimals_have_up_to_18_places_and_lose_zeros_beyond_the_tenth() {
    for (text, written) in [
        ("33.33333333333", "33.33333333333"),
        ("0.123456789012345678", "0.123456789012345678"),
        ("99999999.123456789012345678", "99999999.123456789012345678"),
        ("2.00000000000", "2"),
        ("2.0000000000", "2.0000000000"),
        ("2.5000000000000000000000000", "2.5"),
        ("-0.00000000000000000000", "0"),
    ] {
        assert_eq!(decimal::parse(text).unwrap().to_string(), written, "{text}");
    }
    let order = |text| decimal::sort_key(decimal::parse(text).unwrap());
    assert!(order("-1.000000000000001") <= order("-1") && order("0.99999999999") <= order("1"));
    assert!(order("0.9999999999") < order("1") && order("-2") < order("-1.5"));
}
