//! The names of fields that a proxy looks for, as numbers: found once, then compared for nothing.

macro_rules! known {
    ($($name:ident = $text:literal,)*) => {
        /// A field by its name. `Other` is every name that is not here.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Known {
            $(#[doc = concat!("`", $text, "`")] $name,)*
            /// None of these.
            Other,
        }

        impl Known {
            /// Every one of them but `Other`.
            pub const ALL: &[Known] = &[$(Known::$name,)*];

            /// Its usual name; empty for `Other`.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Known::$name => $text,)*
                    Known::Other => "",
                }
            }
        }
    };
}

known! {
    Accept = "Accept",
    AcceptEncoding = "Accept-Encoding",
    AcceptRanges = "Accept-Ranges",
    Age = "Age",
    Allow = "Allow",
    Authorization = "Authorization",
    CacheControl = "Cache-Control",
    Connection = "Connection",
    ContentEncoding = "Content-Encoding",
    ContentLength = "Content-Length",
    ContentRange = "Content-Range",
    ContentType = "Content-Type",
    Cookie = "Cookie",
    Date = "Date",
    ETag = "ETag",
    Expect = "Expect",
    Forwarded = "Forwarded",
    Host = "Host",
    Http2Settings = "HTTP2-Settings",
    IfMatch = "If-Match",
    IfModifiedSince = "If-Modified-Since",
    IfNoneMatch = "If-None-Match",
    IfRange = "If-Range",
    IfUnmodifiedSince = "If-Unmodified-Since",
    KeepAlive = "Keep-Alive",
    LastModified = "Last-Modified",
    Location = "Location",
    MaxForwards = "Max-Forwards",
    Origin = "Origin",
    ProxyAuthenticate = "Proxy-Authenticate",
    ProxyAuthorization = "Proxy-Authorization",
    ProxyConnection = "Proxy-Connection",
    Range = "Range",
    Referer = "Referer",
    RetryAfter = "Retry-After",
    SecWebSocketAccept = "Sec-WebSocket-Accept",
    SecWebSocketKey = "Sec-WebSocket-Key",
    SecWebSocketProtocol = "Sec-WebSocket-Protocol",
    SecWebSocketVersion = "Sec-WebSocket-Version",
    Server = "Server",
    SetCookie = "Set-Cookie",
    Te = "TE",
    Trailer = "Trailer",
    TransferEncoding = "Transfer-Encoding",
    Upgrade = "Upgrade",
    UserAgent = "User-Agent",
    Vary = "Vary",
    Via = "Via",
    WwwAuthenticate = "WWW-Authenticate",
    XForwardedFor = "X-Forwarded-For",
    XForwardedHost = "X-Forwarded-Host",
    XForwardedProto = "X-Forwarded-Proto",
    XRealIp = "X-Real-IP",
    XRequestId = "X-Request-Id",
}

/// The most names that share a length and a first letter.
const BUCKET: usize = 4;

/// Longer than the longest name.
const LENGTHS: usize = 24;

/// A name as three numbers, in lower case: two names of one length are the same if these are.
type Key = [u64; 3];

/// Names by length and first letter: one look finds the few that it can be.
static TABLE: [[[Known; BUCKET]; 26]; LENGTHS] = table();

/// By the number of each.
static KEYS: [Key; Known::ALL.len()] = keys();

const fn table() -> [[[Known; BUCKET]; 26]; LENGTHS] {
    let mut table = [[[Known::Other; BUCKET]; 26]; LENGTHS];
    let mut index = 0;
    while index < Known::ALL.len() {
        let text = Known::ALL[index].as_str().as_bytes();
        let letter = (text[0].to_ascii_lowercase() - b'a') as usize;
        let mut slot = 0;
        // An index out of bounds here fails the build.
        while !matches!(table[text.len()][letter][slot], Known::Other) {
            slot += 1;
        }
        table[text.len()][letter][slot] = Known::ALL[index];
        index += 1;
    }
    table
}

const fn keys() -> [Key; Known::ALL.len()] {
    let mut keys = [[0; 3]; Known::ALL.len()];
    let mut index = 0;
    while index < keys.len() {
        keys[index] = key(Known::ALL[index].as_str().as_bytes());
        index += 1;
    }
    keys
}

/// Its first bytes, its last ones, and those between, which overlap where it is short. This is half of what a loop over the
/// bytes costs, and each field of each message pays it.
///
/// A set 0x20 makes one of upper and lower case. It makes one of `-` and CR as well, but no CR is in a token.
#[inline]
const fn key(name: &[u8]) -> Key {
    const fn eight(name: &[u8], at: usize) -> u64 {
        match name.split_at(at).1.first_chunk() {
            Some(bytes) => u64::from_le_bytes(*bytes) | 0x2020_2020_2020_2020,
            None => 0,
        }
    }
    const fn four(name: &[u8], at: usize) -> u64 {
        match name.split_at(at).1.first_chunk() {
            Some(bytes) => (u32::from_le_bytes(*bytes) | 0x2020_2020) as u64,
            None => 0,
        }
    }
    match name.len() {
        0 => [0; 3],
        len @ 16.. => [eight(name, 0), eight(name, 8), eight(name, len - 8)],
        len @ 8.. => [eight(name, 0), 0, eight(name, len - 8)],
        len @ 4.. => [four(name, 0), 0, four(name, len - 4)],
        len => [(name[0] | 0x20) as u64, (name[len / 2] | 0x20) as u64, (name[len - 1] | 0x20) as u64],
    }
}

impl Known {
    /// Which field a name is, in whatever case. The name is a [token](super::is_token).
    #[inline]
    pub fn of(name: &[u8]) -> Known {
        let Some(first) = name.first().map(|byte| byte.to_ascii_lowercase().wrapping_sub(b'a')) else {
            return Known::Other;
        };
        if name.len() >= LENGTHS || first >= 26 {
            return Known::Other;
        }
        let key = key(name);
        for known in TABLE[name.len()][usize::from(first)] {
            if known == Known::Other {
                break;
            }
            if KEYS[known as usize] == key {
                return known;
            }
        }
        Known::Other
    }
}

impl Known {
    /// Whether such a field may come behind a body (RFC 9110 section 6.5.1). Not what says where a message ends, whom it is
    /// for, who sends it or how it is to be read: that is decided by then.
    pub fn may_trail(self) -> bool {
        use Known::*;
        !matches!(
            self,
            Authorization
                | CacheControl
                | Connection
                | ContentEncoding
                | ContentLength
                | ContentRange
                | ContentType
                | Cookie
                | Expect
                | Forwarded
                | Host
                | Http2Settings
                | IfMatch
                | IfModifiedSince
                | IfNoneMatch
                | IfRange
                | IfUnmodifiedSince
                | KeepAlive
                | Location
                | MaxForwards
                | ProxyAuthenticate
                | ProxyAuthorization
                | ProxyConnection
                | Range
                | RetryAfter
                | SetCookie
                | Te
                | Trailer
                | TransferEncoding
                | Upgrade
                | Vary
                | WwwAuthenticate
                | XForwardedFor
                | XForwardedHost
                | XForwardedProto
                | XRealIp
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_every_case() {
        for &known in Known::ALL {
            let name = known.as_str();
            for text in [name.to_owned(), name.to_ascii_lowercase(), name.to_ascii_uppercase()] {
                assert_eq!(Known::of(text.as_bytes()), known, "{text}");
            }
        }
    }

    #[test]
    fn other_names_are_not() {
        for name in ["", "-", "X", "Hosts", "Hos", "Content_Length", "Content-Length ", "\u{e9}tag", "1"] {
            assert_eq!(Known::of(name.as_bytes()), Known::Other, "{name}");
        }
        assert_eq!(Known::of(&[b'a'; 300]), Known::Other);
        // Every byte counts.
        for known in Known::ALL {
            for at in 0..known.as_str().len() {
                let mut name = known.as_str().as_bytes().to_vec();
                name[at] ^= 1;
                assert_eq!(Known::of(&name), Known::Other, "{}", name.escape_ascii());
            }
        }
    }
}
