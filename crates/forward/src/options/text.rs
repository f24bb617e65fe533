//! Options that are one text of a certain form.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use wmproxy_wire::units::ByteSize;

pub(super) use wmproxy_http::text_option;

/// A port, or a range of them; none for whichever is free.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortRange(Option<RangeInclusive<u16>>);

/// How many bytes may pass, and in which time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// So many, both ways together.
    pub bytes: ByteSize,
    /// In this time; it begins anew at midnight, UTC.
    pub period: QuotaPeriod,
}

/// What a quota is counted over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotaPeriod {
    /// A day.
    Day,
    /// A month of the calendar.
    Month,
}

/// Where a route of an egress leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Via {
    /// No proxy.
    Direct,
    /// Nowhere.
    Reject,
    /// A chain, by its name.
    Chain(Box<str>),
}

const PORTS: &str =
    "expected a port like \"443\", a range like \"20000-20100\", or \"0\" for whichever is free";
const QUOTA: &str = "expected an amount for a day or a month, like \"10g/day\" or \"500g/month\"";

impl PortRange {
    /// Whichever is free.
    pub const FREE: PortRange = PortRange(None);

    /// The ports; none for whichever is free.
    pub fn get(&self) -> Option<RangeInclusive<u16>> {
        self.0.clone()
    }
}

impl FromStr for PortRange {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |text: &str| text.trim().parse::<u16>().map_err(|_| PORTS);
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(text)?, number(text)?),
        };
        match (first, last) {
            (0, 0) => Ok(PortRange::FREE),
            (0, _) => Err("port 0 is none that a range could begin with"),
            _ if first > last => Err("the range ends before it begins"),
            _ => Ok(PortRange(Some(first..=last))),
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => f.write_str("0"),
            Some(range) if range.start() == range.end() => range.start().fmt(f),
            Some(range) => write!(f, "{}-{}", range.start(), range.end()),
        }
    }
}

impl FromStr for Quota {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (bytes, period) = text.split_once('/').ok_or(QUOTA)?;
        let period = match period.trim() {
            "day" => QuotaPeriod::Day,
            "month" => QuotaPeriod::Month,
            _ => return Err(QUOTA.to_owned()),
        };
        let bytes: ByteSize = bytes.trim().parse().map_err(|_| QUOTA)?;
        match bytes.get() {
            0 => Err("nobody could use it; leave `quota` out for no limit".to_owned()),
            _ => Ok(Quota { bytes, period }),
        }
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let period = match self.period {
            QuotaPeriod::Day => "day",
            QuotaPeriod::Month => "month",
        };
        write!(f, "{}/{period}", self.bytes)
    }
}

impl FromStr for Via {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "" => Err("expected the name of a [chain], \"direct\" or \"reject\""),
            "direct" => Ok(Via::Direct),
            "reject" => Ok(Via::Reject),
            name => Ok(Via::Chain(name.into())),
        }
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Via::Direct => "direct",
            Via::Reject => "reject",
            Via::Chain(name) => name,
        })
    }
}

text_option!(Quota, "an amount of bytes for a day or a month, like 10g/day or 500g/month");
text_option!(Via, "the name of a chain, direct or reject");

impl<'de> serde::Deserialize<'de> for PortRange {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl serde::de::Visitor<'_> for Either {
            type Value = PortRange;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(PORTS.trim_start_matches("expected "))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<PortRange, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<PortRange, E> {
                match u16::try_from(number) {
                    Ok(0) => Ok(PortRange::FREE),
                    Ok(port) => Ok(PortRange(Some(port..=port))),
                    Err(_) => Err(E::custom(PORTS)),
                }
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<PortRange, E> {
                self.visit_u64(u64::try_from(number).unwrap_or(u64::MAX))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl serde::Serialize for PortRange {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            None => serializer.serialize_u16(0),
            Some(range) if range.start() == range.end() => serializer.serialize_u16(*range.start()),
            Some(_) => serializer.collect_str(self),
        }
    }
}

impl schemars::JsonSchema for PortRange {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PortRange".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "anyOf": [
                { "type": "integer", "minimum": 0, "maximum": 65535 },
                { "type": "string", "description": "a port, or a range of ports like 20000-20100" },
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_one_or_a_range_or_free() {
        for (text, expected) in [("0", None), ("53", Some(53..=53)), ("1-65535", Some(1..=65535))] {
            let ports: PortRange = text.parse().unwrap();
            assert_eq!((ports.get(), ports.to_string().as_str()), (expected, text));
        }
        for text in ["", "-", "5-4", "0-9", "65536", "1-2-3", "x"] {
            assert!(text.parse::<PortRange>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_quota_is_an_amount_for_a_day_or_a_month() {
        for (text, bytes, period) in
            [("10g/day", 10 << 30, QuotaPeriod::Day), ("1k/month", 1024, QuotaPeriod::Month)]
        {
            let quota: Quota = text.parse().unwrap();
            assert_eq!((quota.bytes.get(), quota.period, quota.to_string().as_str()), (bytes, period, text));
        }
        for text in ["10g", "10g/week", "/day", "0/day", "many/day"] {
            assert!(text.parse::<Quota>().is_err(), "{text}");
        }
    }
}
