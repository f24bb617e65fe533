//! What clients are told: the one place where reasons become codes.

use std::net::SocketAddr;

use wmproxy_http::forward::{Kind, Unknown};
use wmproxy_net::connect::Fault;
use wmproxy_net::record::Outcome;
use wmproxy_wire::socks::{v4, v5};

/// A version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// SOCKS 4 and 4a.
    V4,
    /// SOCKS 5.
    V5,
}

impl Version {
    /// As rules and logs call it.
    pub(crate) fn kind(self) -> Kind {
        match self {
            Version::V4 => Kind::Socks4,
            Version::V5 => Kind::Socks5,
        }
    }
}

/// What there is to say to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// Granted; with an address of ours, or of who has come.
    Granted(SocketAddr),
    /// It could not be done, or may not be.
    Failed(Fault),
    /// Who asks is not let in.
    Unknown(Unknown),
    /// Nobody does that here.
    NoSuchCommand,
    /// There are no such addresses.
    NoSuchAddress,
}

impl Answer {
    /// Writes it in the words of a version.
    pub(super) fn write(self, version: Version, out: &mut Vec<u8>) {
        let bound = match self {
            Answer::Granted(bound) => bound,
            _ => NOWHERE,
        };
        match version {
            Version::V4 => out.extend_from_slice(&v4::reply(self.v4_code(), bound)),
            Version::V5 => out.extend_from_slice(&v5::reply(self.v5_code(), bound)),
        }
    }

    /// How a connection ends to which this is the last word.
    pub(super) fn outcome(self) -> Outcome {
        match self {
            Answer::Granted(_) => Outcome::Done,
            Answer::Failed(fault) => fault.outcome(),
            Answer::Unknown(unknown) => outcome_of(unknown),
            Answer::NoSuchCommand => Outcome::Denied,
            Answer::NoSuchAddress => Outcome::BadSocks,
        }
    }

    fn v4_code(self) -> v4::Code {
        match self {
            Answer::Granted(_) => v4::Code::GRANTED,
            Answer::Unknown(Unknown::Unauthenticated | Unknown::Later(_)) => v4::Code::OTHER_USER,
            Answer::Unknown(Unknown::Limited(_))
            | Answer::Failed(_)
            | Answer::NoSuchCommand
            | Answer::NoSuchAddress => v4::Code::REJECTED,
        }
    }

    fn v5_code(self) -> v5::Code {
        match self {
            Answer::Granted(_) => v5::Code::SUCCEEDED,
            Answer::Failed(fault) => v5_code(fault),
            Answer::Unknown(_) => v5::Code::NOT_ALLOWED,
            Answer::NoSuchCommand => v5::Code::COMMAND_UNSUPPORTED,
            Answer::NoSuchAddress => v5::Code::ADDRESS_UNSUPPORTED,
        }
    }
}

/// What stands where an address has to be and there is none.
pub(super) const NOWHERE: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0);

/// How a connection ends whose client is not let in.
pub(super) fn outcome_of(unknown: Unknown) -> Outcome {
    match unknown {
        Unknown::Unauthenticated | Unknown::Later(_) => Outcome::Unauthenticated,
        Unknown::Limited(_) => Outcome::Denied,
    }
}

fn v5_code(fault: Fault) -> v5::Code {
    match fault {
        Fault::Denied | Fault::Limited => v5::Code::NOT_ALLOWED,
        Fault::NetworkUnreachable => v5::Code::NETWORK_UNREACHABLE,
        // There is no code for names.
        Fault::HostUnreachable | Fault::Unresolved => v5::Code::HOST_UNREACHABLE,
        Fault::Refused => v5::Code::REFUSED,
        // The nearest to it; curl and others take it for that.
        Fault::TimedOut => v5::Code::TTL_EXPIRED,
        Fault::Unsupported => v5::Code::COMMAND_UNSUPPORTED,
        Fault::Reset
        | Fault::Tls
        | Fault::Unauthorized
        | Fault::Broken
        | Fault::HopDown
        | Fault::Resources
        | Fault::NoWay
        | Fault::Other => v5::Code::FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_reason_has_its_code() {
        let cases = [
            (Answer::Failed(Fault::Denied), 2, 0x5b),
            (Answer::Failed(Fault::Limited), 2, 0x5b),
            (Answer::Failed(Fault::NetworkUnreachable), 3, 0x5b),
            (Answer::Failed(Fault::HostUnreachable), 4, 0x5b),
            (Answer::Failed(Fault::Unresolved), 4, 0x5b),
            (Answer::Failed(Fault::Refused), 5, 0x5b),
            (Answer::Failed(Fault::TimedOut), 6, 0x5b),
            (Answer::Failed(Fault::Unsupported), 7, 0x5b),
            (Answer::Failed(Fault::Reset), 1, 0x5b),
            (Answer::Failed(Fault::Tls), 1, 0x5b),
            (Answer::Failed(Fault::Unauthorized), 1, 0x5b),
            (Answer::Failed(Fault::Broken), 1, 0x5b),
            (Answer::Failed(Fault::Resources), 1, 0x5b),
            (Answer::Failed(Fault::NoWay), 1, 0x5b),
            (Answer::Failed(Fault::Other), 1, 0x5b),
            (Answer::Unknown(Unknown::Unauthenticated), 2, 0x5d),
            (Answer::Unknown(Unknown::Later(Duration::ZERO)), 2, 0x5d),
            (Answer::Unknown(Unknown::Limited("")), 2, 0x5b),
            (Answer::NoSuchCommand, 7, 0x5b),
            (Answer::NoSuchAddress, 8, 0x5b),
        ];
        for (answer, five, four) in cases {
            let (mut v5, mut v4) = (Vec::new(), Vec::new());
            answer.write(Version::V5, &mut v5);
            answer.write(Version::V4, &mut v4);
            assert_eq!(v5, [5, five, 0, 1, 0, 0, 0, 0, 0, 0], "{answer:?}");
            assert_eq!(v4, [0, four, 0, 0, 0, 0, 0, 0], "{answer:?}");
            assert_ne!(answer.outcome(), Outcome::Done);
        }
    }

    #[test]
    fn a_grant_has_the_address() {
        let mut out = Vec::new();
        Answer::Granted("192.0.2.7:80".parse().unwrap()).write(Version::V5, &mut out);
        assert_eq!(out, [5, 0, 0, 1, 192, 0, 2, 7, 0, 80]);
        out.clear();
        Answer::Granted("192.0.2.7:80".parse().unwrap()).write(Version::V4, &mut out);
        assert_eq!(out, [0, 0x5a, 0, 80, 192, 0, 2, 7]);
        out.clear();
        Answer::Granted("[::1]:80".parse().unwrap()).write(Version::V5, &mut out);
        assert_eq!(out.len(), 22);
    }
}
