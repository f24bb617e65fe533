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

/// Names by length and first letter: one look finds the few that it can be.
static TABLE: [[[Known; BUCKET]; 26]; LENGTHS] = table();

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

impl Known {
    /// Which field a name is, in whatever case.
    #[inline]
    pub fn of(name: &[u8]) -> Known {
        let Some(first) = name.first().map(|byte| byte.to_ascii_lowercase().wrapping_sub(b'a')) else {
            return Known::Other;
        };
        if name.len() >= LENGTHS || first >= 26 {
            return Known::Other;
        }
        let bucket = &TABLE[name.len()][usize::from(first)];
        let is_it = |known: &&Known| known.as_str().as_bytes().eq_ignore_ascii_case(name);
        bucket.iter().take_while(|known| **known != Known::Other).find(is_it).copied().unwrap_or(Known::Other)
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
    }
}
