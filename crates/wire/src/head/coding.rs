//! Codings of contents, and which of them a client takes (RFC 9110 sections 8.4.1 and 12.5.3).

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Fields, Known};

/// A way to compress (RFC 9110 section 8.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Encoding {
    /// Zstandard (RFC 8878).
    Zstd,
    /// Brotli (RFC 7932).
    Br,
    /// gzip (RFC 1952).
    Gzip,
}

impl Encoding {
    /// So many there are.
    pub const COUNT: usize = 3;

    /// As in `Accept-Encoding` and `Content-Encoding`.
    pub fn token(self) -> &'static str {
        match self {
            Encoding::Zstd => "zstd",
            Encoding::Br => "br",
            Encoding::Gzip => "gzip",
        }
    }
}

/// More members than any client has reason to send; the rest is not looked at.
const MOST: usize = 32;

/// The weight that nothing says otherwise of, in thousandths.
const FULL: u16 = 1000;

/// Codings that a client takes, in the order in which it gets them.
pub type Preferred = [Option<Encoding>; Encoding::COUNT];

/// The coding that a client gives the most weight, of those that have the same the first of ours. None where it takes none of
/// them, or gives it less weight than nothing at all (`identity`).
pub fn best(ours: &[Encoding], fields: &Fields) -> Option<Encoding> {
    preferred(ours, fields)[0]
}

/// All those of `ours` that a client takes, no two the same: the one first that it gives the most weight, of those that have
/// the same the one that comes first in `ours`. Without those that it gives less weight than nothing at all (`identity`).
pub fn preferred(ours: &[Encoding], fields: &Fields) -> Preferred {
    let (mut named, mut identity, mut any) = ([None; Encoding::COUNT], None, None);
    for member in fields.list(Known::AcceptEncoding).take(MOST) {
        let mut parts = member.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let name = parts.next().unwrap_or_default();
        let weight = parts.find_map(quality).unwrap_or(FULL);
        if name == b"*" {
            any.get_or_insert(weight);
        } else if name.eq_ignore_ascii_case(b"identity") {
            identity.get_or_insert(weight);
        } else if let Some(coding) = coding(name) {
            named[coding as usize].get_or_insert(weight);
        }
    }
    let weight = |coding: Encoding| named[coding as usize].or(any).unwrap_or(0);
    let least = identity.unwrap_or(0).max(1);
    let mut preferred = [None; Encoding::COUNT];
    let mut below = FULL + 1;
    let mut taken = 0;
    // From the highest weight down; each round takes all that share the next one.
    while let Some(next) =
        ours.iter().map(|&coding| weight(coding)).filter(|&w| w < below && w >= least).max()
    {
        for &coding in ours.iter().filter(|&&coding| weight(coding) == next) {
            if taken < Encoding::COUNT && !preferred.contains(&Some(coding)) {
                preferred[taken] = Some(coding);
                taken += 1;
            }
        }
        below = next;
    }
    preferred
}

fn coding(name: &[u8]) -> Option<Encoding> {
    let is = |token: &[u8]| name.eq_ignore_ascii_case(token);
    match () {
        () if is(b"zstd") => Some(Encoding::Zstd),
        () if is(b"br") => Some(Encoding::Br),
        // RFC 9110 section 8.4.1.3 has both for the same.
        () if is(b"gzip") || is(b"x-gzip") => Some(Encoding::Gzip),
        () => None,
    }
}

/// A weight in thousandths, of the parameter `q=0.5` (RFC 9110 section 12.4.2); None for another parameter. One that is no
/// number from 0 to 1 counts as zero: in doubt nothing is compressed.
pub fn quality(parameter: &[u8]) -> Option<u16> {
    let value = match parameter {
        [b'q' | b'Q', rest @ ..] => rest.trim_ascii_start().strip_prefix(b"=")?.trim_ascii_start(),
        _ => return None,
    };
    let (whole, digits) = match value {
        [b'0'] | [b'0', b'.'] => return Some(0),
        [b'1'] => return Some(FULL),
        [whole @ (b'0' | b'1'), b'.', digits @ ..] => (whole - b'0', digits),
        _ => return Some(0),
    };
    if digits.len() > 3 || !digits.iter().all(u8::is_ascii_digit) {
        return Some(0);
    }
    let thousandths =
        digits.iter().zip([100, 10, 1]).map(|(digit, place)| u16::from(digit - b'0') * place).sum();
    match (whole, thousandths) {
        (0, thousandths) => Some(thousandths),
        (_, 0) => Some(FULL),
        _ => Some(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(lines: &[&str]) -> Option<Encoding> {
        let mut fields = Fields::new();
        lines.iter().for_each(|line| fields.push_known(Known::AcceptEncoding, line.as_bytes()));
        best(&[Encoding::Zstd, Encoding::Br, Encoding::Gzip], &fields)
    }

    #[test]
    fn the_clients_weights_go_first_and_then_our_order() {
        use Encoding::{Br, Gzip, Zstd};
        for (line, expected) in [
            ("gzip, deflate, br, zstd", Some(Zstd)),
            ("gzip, deflate, br", Some(Br)),
            ("gzip;q=1.0, zstd;q=0.9", Some(Gzip)),
            ("GZIP ; Q=0.5 , br;q=0.500", Some(Br)),
            ("x-gzip", Some(Gzip)),
            ("*", Some(Zstd)),
            ("*;q=0.1, zstd;q=0, gzip;q=0.1", Some(Br)),
            ("zstd;q=0, *", Some(Br)),
            ("identity, gzip;q=0.9", None),
            ("identity;q=0.9, gzip", Some(Gzip)),
            ("identity;q=0, gzip;q=0.001", Some(Gzip)),
            ("gzip;q=0", None),
            ("*;q=0", None),
            ("deflate", None),
            ("", None),
            ("gzip;q=2, br;q=1.001, zstd;q=x", None),
            ("gzip;q=0.0001", None),
            ("gzip;level=9;q=0.5", Some(Gzip)),
            ("gzip;q=0, gzip", None),
        ] {
            assert_eq!(choose(&[line]), expected, "{line}");
        }
        assert_eq!(choose(&[]), None);
        assert_eq!(choose(&["gzip;q=0.5", "br;q=0.6"]), Some(Br));
    }

    #[test]
    fn a_long_list_has_an_end() {
        let line = "x, ".repeat(MOST) + "gzip";
        assert_eq!(choose(&[&line]), None);
    }

    #[test]
    fn all_that_a_client_takes_are_in_its_order() {
        use Encoding::{Br, Gzip, Zstd};
        let all = |line: &str| {
            let mut fields = Fields::new();
            fields.push_known(Known::AcceptEncoding, line.as_bytes());
            preferred(&[Zstd, Br, Gzip], &fields)
        };
        assert_eq!(all("gzip, br;q=0.5, zstd"), [Some(Zstd), Some(Gzip), Some(Br)]);
        assert_eq!(all("gzip;q=0.2, identity;q=0.5, br;q=0.7, zstd;q=0"), [Some(Br), None, None]);
        assert_eq!(all("*;q=0.3, gzip"), [Some(Gzip), Some(Zstd), Some(Br)]);
        assert_eq!(all("identity"), [None; 3]);
    }
}
