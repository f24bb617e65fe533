use std::fmt::{Debug, Display};
use std::num::NonZeroU64;
use std::str::FromStr;

use proptest::prelude::*;
use serde_json::{from_str, from_value, json, to_value};

use super::*;

const DURATION: &str = <HumanDuration as Unit>::FORM;
const SIZE: &str = <ByteSize as Unit>::FORM;
const BYTE_RATE: &str = <ByteRate as Unit>::FORM;
const COUNT_RATE: &str = <CountRate as Unit>::FORM;

/// Checks that every text of `table` reads as its neighbour, and that its canonical form reads the same.
fn reads<T: FromStr<Err = UnitError> + Display + Debug + PartialEq>(table: &[(&str, T, &str)]) {
    for (text, value, canonical) in table {
        assert_eq!(text.parse().as_ref(), Ok(value), "{text:?}");
        assert_eq!(value.to_string(), *canonical);
        assert_eq!(canonical.parse().as_ref(), Ok(value), "{canonical:?}");
    }
}

fn refuses<T: FromStr<Err = UnitError> + Debug + PartialEq>(table: &[(&str, UnitError)]) {
    for (text, error) in table {
        assert_eq!(text.parse::<T>().as_ref(), Err(error), "{text:?}");
    }
}

#[test]
fn durations() {
    let millis = HumanDuration::from_millis;
    reads(&[
        ("250ms", millis(250), "250ms"),
        ("30s", millis(30_000), "30s"),
        ("5m", millis(300_000), "5m"),
        ("1h", millis(3_600_000), "1h"),
        ("1d", millis(86_400_000), "1d"),
        ("1h30m", millis(5_400_000), "1h30m"),
        ("90s", millis(90_000), "1m30s"),
        ("1m1ms", millis(60_001), "1m1ms"),
        ("0ms", millis(0), "0s"),
        ("007s", millis(7_000), "7s"),
        ("36500d", HumanDuration::MAX, "36500d"),
    ]);
    let malformed = UnitError::Malformed(DURATION);
    refuses::<HumanDuration>(&[
        ("", malformed),
        ("s", malformed),
        ("-5s", malformed),
        ("+5s", malformed),
        ("1.5h", malformed),
        ("5 s", malformed),
        (" 5s", malformed),
        ("5S", malformed),
        ("5min", malformed),
        ("30m1h", malformed),
        ("1s1s", malformed),
        ("1h ", malformed),
        ("٣s", malformed),
        ("5µs", malformed),
        ("99999999999999999999x", malformed),
        ("30", UnitError::NoUnit(DURATION)),
        ("1h30", UnitError::NoUnit(DURATION)),
        ("36500d1ms", UnitError::TooLarge("36500d")),
        ("18446744073709551615d", UnitError::TooLarge("36500d")),
        ("99999999999999999999s", UnitError::TooLarge("36500d")),
    ]);
    assert_eq!(HumanDuration::from_secs(u64::MAX), HumanDuration::MAX);
}

#[test]
fn sizes() {
    reads(&[
        ("0", ByteSize::new(0), "0"),
        ("0k", ByteSize::new(0), "0"),
        ("1000", ByteSize::new(1_000), "1000"),
        ("1024", ByteSize::new(1_024), "1k"),
        ("64k", ByteSize::new(65_536), "64k"),
        ("10M", ByteSize::new(10 << 20), "10m"),
        ("1g", ByteSize::new(1 << 30), "1g"),
        ("1025k", ByteSize::new(1025 << 10), "1025k"),
        ("2t", ByteSize::new(2 << 40), "2t"),
        ("18446744073709551615", ByteSize::new(u64::MAX), "18446744073709551615"),
    ]);
    let malformed = UnitError::Malformed(SIZE);
    let too_large = UnitError::TooLarge("18446744073709551615 bytes");
    refuses::<ByteSize>(&[
        ("", malformed),
        ("k", malformed),
        ("-1", malformed),
        ("64kb", malformed),
        ("64 k", malformed),
        ("1.5m", malformed),
        ("1e6", malformed),
        ("1K", malformed),
        ("18446744073709551616", too_large),
        ("16777216t", too_large),
    ]);
}

#[test]
fn rates() {
    let number = |n| NonZeroU64::new(n).unwrap();
    reads(&[
        ("1/s", ByteRate::new(number(1)), "1/s"),
        ("4m/s", ByteRate::new(number(4 << 20)), "4m/s"),
        ("1024K/s", ByteRate::new(number(1 << 20)), "1m/s"),
    ]);
    refuses::<ByteRate>(&[
        ("4m", UnitError::NoUnit(BYTE_RATE)),
        ("4m/m", UnitError::Malformed(BYTE_RATE)),
        ("/s", UnitError::Malformed(BYTE_RATE)),
        ("", UnitError::Malformed(BYTE_RATE)),
        ("0k/s", UnitError::ZeroRate(BYTE_RATE)),
        ("16777216t/s", UnitError::TooLarge("18446744073709551615 bytes")),
    ]);
    reads(&[
        ("10/s", CountRate::new(number(10), Period::Second), "10/s"),
        ("600/m", CountRate::new(number(600), Period::Minute), "600/m"),
        ("1/h", CountRate::new(number(1), Period::Hour), "1/h"),
    ]);
    refuses::<CountRate>(&[
        ("10", UnitError::NoUnit(COUNT_RATE)),
        ("10/d", UnitError::Malformed(COUNT_RATE)),
        ("10k/s", UnitError::Malformed(COUNT_RATE)),
        ("/s", UnitError::Malformed(COUNT_RATE)),
        ("0/s", UnitError::ZeroRate(COUNT_RATE)),
        ("18446744073709551616/s", UnitError::TooLarge("18446744073709551615")),
    ]);
    assert_eq!(Period::Minute.duration().as_secs(), 60);
}

#[test]
fn errors_say_what_would_be_right() {
    let message = |text: &str| text.parse::<HumanDuration>().unwrap_err().to_string();
    assert_eq!(message("fast"), r#"expected a duration like "250ms", "30s", "5m" or "1h30m""#);
    assert_eq!(
        message("30"),
        r#"the number has no unit; expected a duration like "250ms", "30s", "5m" or "1h30m""#
    );
    assert_eq!(message("99999d"), "too large; the most is 36500d");
}

#[test]
fn deserializes_text_and_the_numbers_that_are_legal() {
    assert_eq!(from_str::<HumanDuration>(r#""30s""#).unwrap(), HumanDuration::from_secs(30));
    assert_eq!(from_str::<ByteSize>("4096").unwrap(), ByteSize::new(4096));
    assert_eq!(from_str::<ByteSize>(r#""4k""#).unwrap(), ByteSize::new(4096));

    let refusal = from_value::<HumanDuration>(json!(30)).unwrap_err().to_string();
    assert!(refusal.contains("no unit"), "{refusal}");
    let refusal = from_value::<ByteSize>(json!(-1)).unwrap_err().to_string();
    assert!(refusal.contains("expected a size"), "{refusal}");
    let refusal = from_value::<ByteSize>(json!(1.5)).unwrap_err().to_string();
    assert!(refusal.contains("expected a size"), "{refusal}");
    assert!(from_value::<ByteRate>(json!(10)).is_err());
    assert!(from_value::<CountRate>(json!([])).is_err());
}

#[test]
fn schemas_are_inline_strings_with_a_pattern() {
    fn schema<T: schemars::JsonSchema>() -> serde_json::Value {
        assert!(T::inline_schema());
        schemars::SchemaGenerator::default().into_root_schema_for::<T>().to_value()
    }
    for schema in [schema::<HumanDuration>(), schema::<ByteRate>(), schema::<CountRate>()] {
        assert_eq!(schema["type"], "string");
        assert!(schema["pattern"].is_string() && schema["description"].is_string());
    }
    assert_eq!(schema::<ByteSize>()["type"], json!(["string", "integer"]));
    assert_eq!(schema::<Secret>()["type"], "string");
}

#[test]
fn a_secret_never_shows() {
    let secret = Secret::new("hunter2").unwrap();
    assert_eq!(format!("{secret} {secret:?}"), "*** ***");
    assert_eq!(to_value(&secret).unwrap(), json!("***"));
    assert_eq!(secret.expose(), "hunter2");
    for shown in [json!(714171), json!(-714171), json!(714171.5), json!(true)] {
        let refusal = from_value::<Secret>(shown).unwrap_err().to_string();
        assert!(refusal.contains("a secret") && !refusal.contains("714171"), "{refusal}");
    }
    assert_eq!(Secret::new(""), Err(UnitError::EmptySecret));
    assert!(from_str::<Secret>(r#""""#).is_err());
}

#[test]
fn a_secret_matches_itself_only() {
    let secret: Secret = "abcabc".parse().unwrap();
    assert!(secret.matches(b"abcabc"));
    for other in [&b""[..], b"abc", b"abcabd", b"Abcabc", b"abcabca", b"abcabcabcabc"] {
        assert!(!secret.matches(other), "{other:?}");
    }
    assert_eq!(secret, Secret::new("abcabc").unwrap());
    assert_ne!(secret, Secret::new("abc").unwrap());
}

proptest! {
    #[test]
    fn durations_round_trip(millis in 0..=HumanDuration::MAX.as_millis()) {
        let value = HumanDuration::from_millis(millis);
        prop_assert_eq!(value.to_string().parse(), Ok(value));
        prop_assert_eq!(from_value::<HumanDuration>(to_value(value).unwrap()).unwrap(), value);
    }

    #[test]
    fn sizes_and_rates_round_trip(number: u64, shift in 0u32..64) {
        let size = ByteSize::new(number << shift);
        prop_assert_eq!(size.to_string().parse(), Ok(size));
        prop_assert_eq!(from_value::<ByteSize>(to_value(size).unwrap()).unwrap(), size);
        let Some(number) = NonZeroU64::new(number << shift) else { return Ok(()) };
        let rate = ByteRate::new(number);
        prop_assert_eq!(rate.to_string().parse(), Ok(rate));
        for period in [Period::Second, Period::Minute, Period::Hour] {
            let rate = CountRate::new(number, period);
            prop_assert_eq!(rate.to_string().parse(), Ok(rate));
        }
    }

    #[test]
    fn any_text_reads_or_is_refused(text in "[0-9dhmskgt/ .µ-]{0,24}|.{0,24}") {
        // What is read must survive its own canonical form; nothing may panic.
        if let Ok(value) = text.parse::<HumanDuration>() {
            prop_assert_eq!(value.to_string().parse(), Ok(value));
        }
        if let Ok(value) = text.parse::<ByteSize>() {
            prop_assert_eq!(value.to_string().parse(), Ok(value));
        }
        if let Ok(value) = text.parse::<ByteRate>() {
            prop_assert_eq!(value.to_string().parse(), Ok(value));
        }
        if let Ok(value) = text.parse::<CountRate>() {
            prop_assert_eq!(value.to_string().parse(), Ok(value));
        }
    }
}
