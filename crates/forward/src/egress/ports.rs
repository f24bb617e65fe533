//! Sets of ports.

use std::ops::RangeInclusive;

/// Ports, looked up in the time it takes to halve their ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct Ports {
    /// First and last, in order, with gaps between.
    ranges: Box<[(u16, u16)]>,
}

impl Ports {
    /// Reads `443`, `8000-8099`, or several with commas between.
    ///
    /// # Errors
    /// What would be right.
    pub(super) fn parse(text: &str) -> Result<Ports, String> {
        let ranges: Result<Vec<_>, String> = text.split(',').map(range).collect();
        Ok(ranges?.into_iter().collect())
    }

    /// Whether this one is in it.
    pub(super) fn contains(&self, port: u16) -> bool {
        let at = self.ranges.partition_point(|(first, _)| *first <= port);
        at.checked_sub(1).is_some_and(|at| self.ranges[at].1 >= port)
    }

    /// The ranges, in order.
    pub(super) fn ranges(&self) -> impl Iterator<Item = RangeInclusive<u16>> {
        self.ranges.iter().map(|(first, last)| *first..=*last)
    }

    /// Whether it is one alone.
    pub(super) fn is_single(&self) -> bool {
        matches!(*self.ranges, [(first, last)] if first == last)
    }
}

fn range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let port = |text: &str| {
        let port = text.parse::<u16>().ok().filter(|port| *port != 0 && !text.starts_with('+'));
        port.ok_or_else(|| {
            format!("`{text}` is no port: a port is a number from 1 to 65535, or a range \"8000-8099\"")
        })
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (port(first)?, port(last)?);
    if first > last {
        return Err(format!("the range of ports `{text}` is empty; \"{last}-{first}\" is meant, perhaps"));
    }
    Ok(first..=last)
}

impl FromIterator<RangeInclusive<u16>> for Ports {
    fn from_iter<I: IntoIterator<Item = RangeInclusive<u16>>>(ranges: I) -> Ports {
        let mut sorted: Vec<(u16, u16)> = ranges.into_iter().map(RangeInclusive::into_inner).collect();
        sorted.sort_unstable();
        let mut merged: Vec<(u16, u16)> = Vec::new();
        for (first, last) in sorted {
            match merged.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        Ports { ranges: merged.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_found() {
        let ports = Ports::parse("443,8000-8010,8005-8020,8021,1,65535").unwrap();
        assert_eq!(&*ports.ranges, [(1, 1), (443, 443), (8000, 8021), (65535, 65535)]);
        for port in 0..=u16::MAX {
            let is_in = matches!(port, 1 | 443 | 8000..=8021 | 65535);
            assert_eq!(ports.contains(port), is_in, "{port}");
        }
        assert!(!Ports::default().contains(0));
        assert!(Ports::parse("80").unwrap().is_single() && !Ports::parse("80-81").unwrap().is_single());
    }
}
