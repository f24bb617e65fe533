//! What a route asks of a request beside its host and path.

use regex::bytes::{Regex, RegexBuilder};
use wmproxy_net::acl::Acl;
use wmproxy_wire::head::Request;

use super::Sought;
use crate::options::{MatchSpec, MethodName, REGEX_SIZE, ValuePattern};
use crate::vars::Name;

/// What has to hold. What is empty always does.
#[derive(Debug)]
pub(super) struct Conditions {
    methods: Vec<MethodName>,
    headers: Vec<(Name, Value)>,
    query: Vec<(Box<[u8]>, Value)>,
    clients: Option<Acl>,
}

/// What a field or parameter has to be.
#[derive(Debug)]
enum Value {
    Any,
    Exact(Box<[u8]>),
    Regex(Regex),
}

impl Conditions {
    /// None where there is nothing to ask.
    ///
    /// # Errors
    /// A regular expression that does not compile.
    pub(super) fn new(spec: &MatchSpec) -> Result<Option<Conditions>, regex::Error> {
        let is_free = spec.methods.is_empty()
            && spec.headers.is_empty()
            && spec.query.is_empty()
            && spec.clients.is_empty();
        if is_free {
            return Ok(None);
        }
        let nets: Vec<_> = spec.clients.iter().map(|prefix| prefix.net()).collect();
        // What is no name of a field was refused with the config.
        let names = spec.headers.iter().filter_map(|(name, value)| Some((Name::new(name)?, value)));
        let headers = names.map(|(name, value)| Ok((name, Value::new(value)?)));
        let query = spec.query.iter().map(|(name, value)| Ok((name.as_bytes().into(), Value::new(value)?)));
        Ok(Some(Conditions {
            methods: spec.methods.clone(),
            headers: headers.collect::<Result<_, _>>()?,
            query: query.collect::<Result<_, _>>()?,
            clients: (!nets.is_empty()).then(|| Acl::new(&nets, &[])),
        }))
    }

    /// Whether all hold.
    pub(super) fn hold(&self, sought: &Sought<'_>) -> bool {
        let request = sought.request;
        (self.methods.is_empty() || self.has_method(request))
            && self.clients.as_ref().is_none_or(|nets| sought.client.is_some_and(|ip| nets.permits(ip)))
            && self.headers.iter().all(|(name, value)| has_field(request, name, value))
            && self.query.iter().all(|(name, value)| has_parameter(request, name, value))
    }

    fn has_method(&self, request: &Request) -> bool {
        self.methods.iter().any(|method| method.as_str().as_bytes() == request.method_name())
    }
}

impl Value {
    fn new(pattern: &ValuePattern) -> Result<Value, regex::Error> {
        Ok(match pattern {
            ValuePattern::Any => Value::Any,
            ValuePattern::Exact(value) => Value::Exact(value.as_bytes().into()),
            ValuePattern::Regex(regex) => {
                Value::Regex(RegexBuilder::new(regex).size_limit(REGEX_SIZE).build()?)
            }
        })
    }

    fn fits(&self, value: &[u8]) -> bool {
        match self {
            Value::Any => true,
            Value::Exact(wanted) => **wanted == *value,
            Value::Regex(regex) => regex.is_match(value),
        }
    }

    /// The same for what is encoded as in a query.
    fn fits_encoded(&self, encoded: &[u8]) -> bool {
        match self {
            Value::Any => true,
            Value::Exact(wanted) => decoded(encoded).eq(wanted.iter().copied()),
            Value::Regex(regex) => regex.is_match(&decoded(encoded).collect::<Vec<u8>>()),
        }
    }
}

fn has_field(request: &Request, name: &Name, value: &Value) -> bool {
    request.fields.all_named(name.as_str().as_bytes()).any(|line| value.fits(line))
}

fn has_parameter(request: &Request, name: &[u8], value: &Value) -> bool {
    let query = request.query().unwrap_or_default();
    let pairs = query.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty());
    pairs.into_iter().any(|pair| {
        let equals = pair.iter().position(|byte| *byte == b'=');
        let (key, text) = equals.map_or((pair, &[][..]), |at| (&pair[..at], &pair[at + 1..]));
        decoded(key).eq(name.iter().copied()) && value.fits_encoded(text)
    })
}

/// What a part of a query stands for: a plus is a blank, and escapes are what they say. Those that say nothing stay.
fn decoded(text: &[u8]) -> impl Iterator<Item = u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    let mut rest = text;
    std::iter::from_fn(move || {
        let (first, behind) = rest.split_first()?;
        rest = behind;
        if *first == b'%'
            && let [high, low, behind @ ..] = behind
            && let (Some(high), Some(low)) = (digit(high), digit(low))
        {
            rest = behind;
            return Some((high * 16 + low) as u8);
        }
        Some(if *first == b'+' { b' ' } else { *first })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_query_are_decoded() {
        for (text, expected) in [("a+b", "a b"), ("%61%2B", "a+"), ("%zz%6", "%zz%6"), ("", "")] {
            assert_eq!(decoded(text.as_bytes()).collect::<Vec<u8>>(), expected.as_bytes(), "{text}");
        }
    }
}
