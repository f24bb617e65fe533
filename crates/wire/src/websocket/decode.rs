//! The streaming decoder: bytes in any pieces go in, payload and control frames come out.

use super::close::Close;
use super::frame::{FrameHead, OpCode};
use super::utf8::Utf8;
use super::{HEAD_MAX, Mask, Role, Violation};

/// What a decoder does not let pass.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// The longest message in bytes; 0 is no limit, for nothing is kept of one.
    pub message: u64,
}

/// What a message carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8, which is checked.
    Text,
    /// Any bytes.
    Binary,
}

/// What the bytes were.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// All bytes are used, and nothing is complete.
    NeedMore,
    /// A data frame begins: its message's kind, the length of its payload, and whether it is the message's last.
    Frame {
        /// What the message carries.
        kind: Kind,
        /// The length of this frame's payload.
        len: u64,
        /// Whether the message ends with this frame.
        fin: bool,
    },
    /// The next payload of the message, unmasked in place; never empty. It is the last part of the bytes that were
    /// used.
    Payload(&'a mut [u8]),
    /// The message is whole.
    MessageEnd,
    /// Wants a pong with the same body.
    Ping(&'a [u8]),
    /// Answers a ping.
    Pong(&'a [u8]),
    /// The other side has ended. Whatever follows is discarded.
    Close(Close<'a>),
}

/// One step of a decoder.
#[derive(Debug, PartialEq, Eq)]
pub struct Step<'a> {
    /// How many bytes of the input it took.
    pub used: usize,
    /// What they were.
    pub event: Event<'a>,
}

/// Reads the frames of one direction of a connection. Holds no more than the head or the body of a control frame that
/// came in pieces.
#[derive(Debug)]
pub struct Decoder {
    from: Role,
    limits: Limits,
    state: State,
    /// The message under way.
    message: Option<Message>,
    /// The part of a head, or of a control frame's body, that is there; empty between frames.
    held: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Message {
    kind: Kind,
    /// Of all its frames so far.
    len: u64,
    utf8: Utf8,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Between two frames; what is held is of the last one.
    Border,
    Head,
    /// Within the payload of a data frame.
    Data {
        left: u64,
        mask: Option<Mask>,
        fin: bool,
    },
    /// The last payload of a message is out.
    End,
    Control(FrameHead),
    /// A close frame has come.
    Closed,
    Failed(Violation),
}

impl Decoder {
    /// A decoder for what `from` sends after its part of the handshake.
    pub fn new(from: Role, limits: Limits) -> Decoder {
        Decoder { from, limits, state: State::Border, message: None, held: Vec::new() }
    }

    /// Takes bytes from the front of `input` and says what they were. Call it again with the rest until it needs more,
    /// even when there is no rest: an end or an empty message is told without a byte of its own.
    ///
    /// # Errors
    /// The sender broke the protocol; from then on every call says so.
    pub fn decode<'a>(&'a mut self, input: &'a mut [u8]) -> Result<Step<'a>, Violation> {
        if matches!(self.state, State::Border) {
            self.held.clear();
            self.state = State::Head;
        }
        let mut used = 0;
        if matches!(self.state, State::Head) {
            let (taken, head) = self.head(input).map_err(|violation| self.fail(violation))?;
            used = taken;
            let Some(head) = head else { return Ok(Step { used, event: Event::NeedMore }) };
            if head.opcode.is_control() {
                self.held.clear();
                self.state = State::Control(head);
            } else {
                let event = self.begin(head).map_err(|violation| self.fail(violation))?;
                return Ok(Step { used, event });
            }
        }
        match self.state {
            State::Data { left, mask, fin } => self.data(input, left, mask, fin),
            State::End => self.end(),
            State::Control(head) => self.control(&mut input[used..], head, used),
            State::Failed(violation) => Err(violation),
            State::Border | State::Head | State::Closed => {
                Ok(Step { used: input.len(), event: Event::NeedMore })
            }
        }
    }

    /// Whether a message or a frame is under way.
    pub fn is_within(&self) -> bool {
        let between = match self.state {
            State::Border | State::Closed => true,
            State::Head => self.held.is_empty(),
            _ => false,
        };
        self.message.is_some() || !between
    }

    fn fail(&mut self, violation: Violation) -> Violation {
        self.state = State::Failed(violation);
        violation
    }

    /// Reads a head, of which an earlier input may have brought a part. Answers what of `input` it took.
    fn head(&mut self, input: &[u8]) -> Result<(usize, Option<FrameHead>), Violation> {
        if self.held.is_empty() {
            return match FrameHead::parse(input, self.from)? {
                Some((head, len)) => Ok((len, Some(head))),
                None => {
                    self.held.extend_from_slice(input);
                    Ok((input.len(), None))
                }
            };
        }
        let before = self.held.len();
        self.held.extend_from_slice(&input[..input.len().min(HEAD_MAX - before)]);
        match FrameHead::parse(&self.held, self.from)? {
            Some((head, len)) => Ok((len - before, Some(head))),
            // All of it, for no head is longer than what is held then.
            None => Ok((input.len(), None)),
        }
    }

    /// Enters a data frame.
    fn begin(&mut self, head: FrameHead) -> Result<Event<'static>, Violation> {
        let FrameHead { fin, opcode, len, mask } = head;
        let kind = match opcode {
            OpCode::Text => Some(Kind::Text),
            OpCode::Binary => Some(Kind::Binary),
            _ => None,
        };
        let message = match (self.message, kind) {
            (Some(message), None) => message,
            (None, Some(kind)) => Message { kind, len: 0, utf8: Utf8::default() },
            _ => return Err(Violation::Order),
        };
        // Each is below 2^63, but their sum need not be.
        let total = message.len.saturating_add(len);
        if self.limits.message != 0 && total > self.limits.message {
            return Err(Violation::TooLong);
        }
        self.message = Some(Message { len: total, ..message });
        self.state = State::after(len, mask.map(Mask::new), fin);
        Ok(Event::Frame { kind: message.kind, len, fin })
    }

    /// Unmasks what there is of a frame's payload.
    fn data<'a>(
        &'a mut self,
        input: &'a mut [u8],
        left: u64,
        mut mask: Option<Mask>,
        fin: bool,
    ) -> Result<Step<'a>, Violation> {
        let used = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
        if used == 0 {
            return Ok(Step { used, event: Event::NeedMore });
        }
        let payload = &mut input[..used];
        if let Some(mask) = &mut mask {
            mask.apply(payload);
        }
        if let Some(message) = &mut self.message
            && message.kind == Kind::Text
            && message.utf8.take(payload).is_err()
        {
            return Err(self.fail(Violation::Utf8));
        }
        self.state = State::after(left - used as u64, mask, fin);
        Ok(Step { used, event: Event::Payload(payload) })
    }

    fn end(&mut self) -> Result<Step<'static>, Violation> {
        match self.message.take() {
            Some(message) if !message.utf8.is_whole() => Err(self.fail(Violation::Utf8)),
            _ => {
                self.state = State::Border;
                Ok(Step { used: 0, event: Event::MessageEnd })
            }
        }
    }

    /// Collects the body of a control frame, unless all of it lies in `input`. `before` bytes were its head.
    fn control<'a>(
        &'a mut self,
        input: &'a mut [u8],
        head: FrameHead,
        before: usize,
    ) -> Result<Step<'a>, Violation> {
        let missing = head.len as usize - self.held.len();
        let taken = missing.min(input.len());
        let used = before + taken;
        let whole = taken == missing;
        let body = if self.held.is_empty() && whole {
            &mut input[..taken]
        } else {
            self.held.extend_from_slice(&input[..taken]);
            if !whole {
                return Ok(Step { used, event: Event::NeedMore });
            }
            &mut self.held[..]
        };
        if let Some(key) = head.mask {
            Mask::new(key).apply(body);
        }
        self.state = State::Border;
        let event = match head.opcode {
            OpCode::Ping => Event::Ping(body),
            OpCode::Pong => Event::Pong(body),
            _ => match Close::parse(body) {
                Ok(close) => {
                    self.state = State::Closed;
                    Event::Close(close)
                }
                Err(violation) => {
                    self.state = State::Failed(violation);
                    return Err(violation);
                }
            },
        };
        Ok(Step { used, event })
    }
}

impl State {
    /// Where a data frame stands with `left` bytes to come.
    fn after(left: u64, mask: Option<Mask>, fin: bool) -> State {
        match (left, fin) {
            (0, true) => State::End,
            (0, false) => State::Border,
            _ => State::Data { left, mask, fin },
        }
    }
}
