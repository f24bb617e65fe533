//! Requests to the proxy itself: the file that tells browsers to use it, and words for whoever takes it for a site.

use wmproxy_wire::head::{Known, Method, Scheme};

use super::Gateway;
use super::refusal::Refusal;
use crate::exchange::{End, Exchange, Passage};

/// Where the file for browsers is asked for: as settings name it, and as Windows finds it (WPAD).
const PAC: [&[u8]; 2] = [b"/proxy.pac", b"/wpad.dat"];

/// Answers it. Nobody has to say who they are: a browser asks for its settings before it can be told to.
pub(super) async fn answer(ex: &mut Exchange<'_, '_>, gateway: &dyn Gateway) -> Result<End, Refusal> {
    let is_read = matches!(ex.request.method, Method::Get | Method::Head);
    if is_read && PAC.contains(&ex.request.raw_path()) {
        let authority =
            ex.request.authority().and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default();
        let pac = |authority: &str| gateway.pac(authority, ex.conn.scheme == Scheme::Https);
        // Who did not say how it found us came to this address at least.
        let Some(file) = pac(authority).or_else(|| pac(&ex.conn.local.to_string())) else {
            return Err(Refusal::status(404));
        };
        ex.response.clear();
        ex.response.set_status(200);
        ex.response.fields.push_known(Known::ContentType, b"application/x-ns-proxy-autoconfig");
        ex.response.fields.push_known(Known::CacheControl, b"no-cache");
        return Ok(End::from(ex.respond(file.as_bytes(), Passage::default()).await));
    }
    Err(Refusal::not_a_site())
}
