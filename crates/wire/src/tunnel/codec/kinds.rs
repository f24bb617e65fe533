//! The types of messages.

pub(super) const HELLO: u16 = 1;
pub(super) const CHALLENGE: u16 = 2;
pub(super) const PROOF: u16 = 3;
pub(super) const WELCOME: u16 = 4;
pub(super) const REFUSED: u16 = 5;
pub(super) const JOIN: u16 = 6;
pub(super) const REGISTER: u16 = 7;
pub(super) const REGISTERED: u16 = 8;
pub(super) const STATE: u16 = 9;
pub(super) const PING: u16 = 10;
pub(super) const PONG: u16 = 11;
pub(super) const NEED: u16 = 12;
pub(super) const START: u16 = 13;
pub(super) const VISIT: u16 = 14;
pub(super) const DARE: u16 = 15;
pub(super) const ANSWER: u16 = 16;
pub(super) const GRANTED: u16 = 17;
pub(super) const FAILED: u16 = 18;
pub(super) const LEAVING: u16 = 19;

/// Those that have a meaning.
pub(super) const ALL: std::ops::RangeInclusive<u16> = HELLO..=LEAVING;
