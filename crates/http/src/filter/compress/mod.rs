//! Compressing responses on the fly (RFC 9110 section 12.5.3).
//!
//! What lives here: which [coding](negotiate) a client takes best, which responses are [worth](worth) it and how their heads
//! change, the [coders](coder) and the [encoder](Encoder) that sits between a peer and a client. What must not: how a
//! body is framed.
//!
//! A secret and something that a client chose, compressed in one body, can be guessed from its length (BREACH). So nothing is
//! compressed unless the route says so.

mod coder;
mod encoder;
mod worth;

#[cfg(test)]
mod tests;

use wmproxy_wire::head::{Request, Response, coding};

use crate::options::Encoding;
pub(crate) use encoder::Encoder;

/// Less is one packet anyhow, and grows by the frame around it.
const SMALLEST: u64 = 1024;

/// Which responses of a route are compressed, and how.
#[derive(Debug)]
pub(crate) struct Compress {
    /// The best first.
    codings: Box<[Encoding]>,
}

impl Compress {
    /// With these, the best first; none without any.
    pub(crate) fn new(codings: &[Encoding]) -> Option<Compress> {
        (!codings.is_empty()).then(|| Compress { codings: codings.into() })
    }

    /// The coding that a client takes best, if any.
    pub(crate) fn negotiate(&self, request: &Request) -> Option<Encoding> {
        coding::best(&self.codings, &request.fields)
    }

    /// Decides whether a response is compressed for who takes `coding` best, and changes its head if so. Without a body to
    /// send, as in the answer to a HEAD, that is all there is to do.
    pub(crate) fn encoder(
        &self,
        coding: Option<Encoding>,
        request: &Request,
        response: &mut Response,
        has_body: bool,
    ) -> Option<Encoder> {
        if !worth::may_change(request, response) || !worth::gains(response) {
            return None;
        }
        let length = worth::length(response);
        if length.is_some_and(|length| length < SMALLEST) {
            return None;
        }
        worth::vary(response);
        let coding = coding?;
        let encoder = if has_body { Some(Encoder::new(coding, length)?) } else { None };
        worth::encode_head(coding.token(), response);
        encoder
    }
}
