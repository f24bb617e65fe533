//! rustls's unbuffered interface, reduced to the few things that a session wants of it.

use rustls::client::UnbufferedClientConnection;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};

use super::TlsError;

/// One side of the protocol.
pub(super) enum Engine {
    Server(UnbufferedServerConnection),
    Client(UnbufferedClientConnection),
}

/// What is wanted of rustls once it is ready for it.
pub(super) enum Want<'a> {
    /// To open what came.
    Open,
    /// To encrypt data into a buffer.
    Seal(&'a [u8], &'a mut [u8]),
    /// To say that nothing more will be sent.
    Close,
}

/// What a step of rustls came to.
pub(super) enum Step {
    /// There is more to do with what is there.
    Again,
    /// So many bytes of ciphertext for the wanted data.
    Sealed(usize),
    /// The other side has said that it is done.
    Ended,
    /// Nothing more can be done before more comes.
    Starved,
}

/// Where opened data goes: to the reader's buffer first.
pub(super) struct Sink<'a> {
    pub(super) buffer: &'a mut [u8],
    pub(super) filled: usize,
}

impl Engine {
    /// One step over what has come. Messages of its own are appended to `outgoing`; data goes to `sink`, and what that has
    /// no room for to `opened`. Beside the step: how much of what came is done with.
    pub(super) fn step(
        &mut self,
        came: &mut [u8],
        outgoing: &mut Vec<u8>,
        opened: &mut Vec<u8>,
        sink: &mut Sink<'_>,
        want: Want<'_>,
    ) -> (usize, Result<Step, TlsError>) {
        match self {
            Engine::Server(server) => handle(server.process_tls_records(came), outgoing, opened, sink, want),
            Engine::Client(client) => handle(client.process_tls_records(came), outgoing, opened, sink, want),
        }
    }
}

impl Sink<'_> {
    /// Takes none, for none can come.
    pub(super) fn none() -> Sink<'static> {
        Sink { buffer: &mut [], filled: 0 }
    }
}

/// Does what rustls asks for, and once it asks for nothing, what is wanted. Beside it how much of the input is done
/// with.
fn handle<Data>(
    status: UnbufferedStatus<'_, '_, Data>,
    outgoing: &mut Vec<u8>,
    opened: &mut Vec<u8>,
    sink: &mut Sink<'_>,
    want: Want<'_>,
) -> (usize, Result<Step, TlsError>) {
    let mut discard = status.discard;
    let state = match status.state {
        Ok(state) => state,
        Err(error) => return (discard, Err(error.into())),
    };
    let step = match state {
        ConnectionState::ReadTraffic(mut traffic) => loop {
            match traffic.next_record() {
                Some(Ok(record)) => {
                    discard += record.discard;
                    sink.put(record.payload, opened);
                }
                Some(Err(error)) => break Err(error.into()),
                None => break Ok(Step::Again),
            }
        },
        ConnectionState::EncodeTlsData(mut message) => encode(outgoing, |room| match message.encode(room) {
            Ok(bytes) => Ok(bytes),
            Err(EncodeError::InsufficientSize(needed)) => Err(Some(needed.required_size)),
            Err(EncodeError::AlreadyEncoded) => Err(None),
        })
        .map(|_| Step::Again),
        ConnectionState::TransmitTlsData(message) => {
            // It is ours now, and is sent before anything else.
            message.done();
            Ok(Step::Again)
        }
        ConnectionState::WriteTraffic(mut traffic) => match want {
            Want::Open => Ok(Step::Starved),
            Want::Seal(data, into) => traffic.encrypt(data, into).map(Step::Sealed).map_err(exhausted),
            Want::Close => encode(outgoing, |room| {
                traffic.queue_close_notify(room).map_err(|error| match error {
                    EncryptError::InsufficientSize(needed) => Some(needed.required_size),
                    EncryptError::EncryptExhausted => None,
                })
            })
            .map(Step::Sealed),
        },
        ConnectionState::PeerClosed => Ok(Step::Ended),
        // No early data is ever asked for: it could be replayed.
        _ => Ok(Step::Starved),
    };
    (discard, step)
}

/// Appends a message to what is to be sent. `encode` says how much room it needs if there is too little.
fn encode(
    outgoing: &mut Vec<u8>,
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>,
) -> Result<usize, TlsError> {
    let at = outgoing.len();
    let encoded = encode(&mut []).or_else(|needed| {
        outgoing.resize(at + needed.unwrap_or_default(), 0);
        encode(&mut outgoing[at..])
    });
    outgoing.truncate(at + encoded.as_ref().map_or(0, |bytes| *bytes));
    encoded.map_err(|_| rustls::Error::EncryptError.into())
}

fn exhausted(_: EncryptError) -> TlsError {
    rustls::Error::EncryptError.into()
}

impl Sink<'_> {
    /// Takes data: what the reader's buffer has no room for is kept for the next read.
    fn put(&mut self, data: &[u8], kept: &mut Vec<u8>) {
        let room = &mut self.buffer[self.filled..];
        let n = if kept.is_empty() { data.len().min(room.len()) } else { 0 };
        room[..n].copy_from_slice(&data[..n]);
        self.filled += n;
        kept.extend_from_slice(&data[n..]);
    }
}
