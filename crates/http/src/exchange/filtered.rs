//! An exchange whose route has filters.

use std::future::poll_fn;
use std::task::Poll;

use wmproxy_net::record::Outcome;
use wmproxy_wire::head::{Known, Method};
use wmproxy_wire::http1::Length;

use super::respond::{Nothing, decimal};
use super::{Cut, Exchange, Passage, Source, date};
use crate::filter::limit::pacer::Pacer;
use crate::filter::{Filters, Pass, Turn, Verdict};
use crate::options::ErrorPage;
use crate::reply::Failure;

impl Exchange<'_, '_> {
    /// What filters see of it.
    fn turn(&mut self) -> Turn<'_> {
        Turn { conn: self.conn, request: self.request, facts: self.facts, response: self.response }
    }

    /// Whether the request passes its route's filters. If not, the head of the response is there.
    pub(crate) async fn admit(&mut self, filters: &Filters, pass: &mut Pass) -> Result<Verdict, Failure> {
        poll_fn(|cx| match filters.poll_request(cx, pass, &mut self.turn()) {
            Poll::Ready(verdict) => Poll::Ready(Ok(verdict)),
            // Nobody waits in line any more.
            Poll::Pending if self.front.is_gone(cx) => Poll::Ready(Err(Failure::Gone(Outcome::ClientReset))),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// Answers with the response that is there and this body, or the error page that stands for it.
    pub(crate) async fn deliver(&mut self, filters: &Filters, pass: &Pass, body: &[u8]) -> Result<(), Cut> {
        let page = filters.error_page(self.response.status);
        if let Some(page) = page {
            self.put_page(page);
        }
        let body = page.map_or(body, |page| &page.body);
        let mut digits = [0; 20];
        self.response.fields.set(Known::ContentLength, decimal(body.len() as u64, &mut digits));
        let encoder = filters.on_response(pass, &mut self.turn(), true);
        let encoded = encoder.map(|encoder| encoder.all(body)).transpose().map_err(Cut::Peer)?;
        let passage = Passage { encoder: None, pacer: pacer(filters) };
        self.respond(encoded.as_deref().unwrap_or(body), passage).await
    }

    /// Answers with the response that is there and a body of this length that is yet to come: one that says so where that is
    /// not known. It stands for itself, and no error page for it.
    pub(crate) async fn deliver_from(
        &mut self,
        filters: &Filters,
        pass: &Pass,
        source: &mut impl Source,
        length: Option<u64>,
    ) -> Result<(), Cut> {
        if let Some(length) = length {
            self.response.fields.set(Known::ContentLength, decimal(length, &mut [0; 20]));
        }
        let passage = self.begin_filtered(filters, pass, length.map_or(Length::UntilClose, Length::Known));
        if self.request.method == Method::Head {
            return self.send(&mut Nothing, Passage::default()).await;
        }
        self.send(source, passage).await
    }

    /// Makes the head that of an error page: what says something of the body that was says nothing of this one.
    fn put_page(&mut self, page: &ErrorPage) {
        let fields = &mut self.response.fields;
        for known in [
            Known::ContentEncoding,
            Known::ContentRange,
            Known::AcceptRanges,
            Known::ETag,
            Known::LastModified,
            Known::TransferEncoding,
        ] {
            fields.remove(known);
        }
        fields.set(Known::ContentType, page.content_type.as_bytes());
    }

    /// Begins a peer's response, with a body of this length, and says what that goes through.
    pub(crate) fn begin_filtered(&mut self, filters: &Filters, pass: &Pass, body: Length) -> Passage {
        date::put(self.response);
        let has_body = self.request.method != Method::Head && body != Length::None;
        let encoder = filters.on_response(pass, &mut self.turn(), has_body).map(Box::new);
        // How long it will be is known when it is over.
        self.begin(if encoder.is_some() { Length::UntilClose } else { body });
        Passage { encoder, pacer: pacer(filters) }
    }
}

fn pacer(filters: &Filters) -> Option<Box<Pacer>> {
    filters.rate().map(|rate| Box::new(Pacer::new(rate)))
}
