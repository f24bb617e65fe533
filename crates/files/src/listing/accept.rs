//! Which of the two forms of a listing a client would rather have (RFC 9110 section 12.5.1).

use wmproxy_wire::head::coding::quality;
use wmproxy_wire::head::{Fields, Known};

/// More members than any client has reason to send; the rest is not looked at.
const MOST: usize = 32;

/// How well a range of types fits a type: the most precise one counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    #[default]
    Not,
    Anything,
    Group,
    Exact,
}

/// What a client says of a type: in thousandths, by how precise a member, and at which place of the list.
#[derive(Debug, Clone, Copy, Default)]
struct Wish {
    fit: Fit,
    weight: u16,
    place: usize,
}

/// Whether it is JSON: it weighs more than HTML, or as much and was named more precisely, or before. Who says nothing, or
/// `*/*`, gets a page.
pub(super) fn prefers_json(fields: &Fields) -> bool {
    let (mut json, mut html) = (Wish::default(), Wish::default());
    for (place, member) in fields.list(Known::Accept).take(MOST).enumerate() {
        let mut parts = member.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let range = parts.next().unwrap_or_default();
        let weight = parts.find_map(quality).unwrap_or(1000);
        for (wish, group, exact) in [
            (&mut json, &b"application/*"[..], &b"application/json"[..]),
            (&mut html, b"text/*", b"text/html"),
        ] {
            let fit = match range {
                b"*/*" => Fit::Anything,
                range if range.eq_ignore_ascii_case(group) => Fit::Group,
                range if range.eq_ignore_ascii_case(exact) => Fit::Exact,
                _ => Fit::Not,
            };
            if fit > wish.fit {
                *wish = Wish { fit, weight, place };
            }
        }
    }
    json.weight > 0 && (json.weight, json.fit, html.place).cmp(&(html.weight, html.fit, json.place)).is_gt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_that_ask_for_json_get_it_and_people_a_page() {
        for (accept, is_json) in [
            (None, false),
            (Some("*/*"), false),
            (Some("application/json"), true),
            (Some("Application/JSON;charset=utf-8"), true),
            (Some("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"), false),
            (Some("application/json, text/plain, */*"), true),
            (Some("application/json, text/html"), true),
            (Some("text/html, application/json"), false),
            (Some("text/html;q=0.9, application/json"), true),
            (Some("text/html, application/json;q=0.9"), false),
            (Some("text/*;q=0.5, application/*;q=0.6"), true),
            (Some("application/json;q=0.5, */*"), false),
            (Some("application/json;q=0"), false),
            (Some("application/json;q=0, text/html;q=0"), false),
            (Some("application/json;q=2, text/html;q=0.001"), false),
            (Some("*/*, text/html;q=0"), true),
            (Some(""), false),
        ] {
            let mut fields = Fields::new();
            accept.into_iter().for_each(|accept| fields.push_known(Known::Accept, accept.as_bytes()));
            assert_eq!(prefers_json(&fields), is_json, "{accept:?}");
        }
    }
}
