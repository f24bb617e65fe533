use super::*;

#[test]
fn patterns_read_and_print_themselves() {
    for text in ["example.com", "*.example.com", "127.0.0.1", "[::1]", "a_b.internal"] {
        assert_eq!(text.parse::<HostPattern>().unwrap().to_string(), text);
    }
    assert_eq!("EXAMPLE.com.".parse::<HostPattern>().unwrap().to_string(), "example.com");
    for text in
        ["", "*", "*.", "a.*", "*a.example.com", "example.com:80", "a..b", "ä.example", "[::g]", "a b"]
    {
        assert!(text.parse::<HostPattern>().is_err(), "{text}");
    }
    for (text, printed) in [
        ("/", "/"),
        ("/api/", "/api"),
        ("/api", "/api"),
        ("=/api/", "=/api/"),
        ("~^/v[0-9]+/", "~^/v[0-9]+/"),
    ] {
        assert_eq!(text.parse::<PathPattern>().unwrap().to_string(), printed);
    }
    for text in ["", "api", "=api", "~(", "/a?b", "/a#b", "/a b", "/ä", "//a", "/a/../b", "/%zz"] {
        assert!(text.parse::<PathPattern>().is_err(), "{text}");
    }
    assert!("/%61".parse::<PathPattern>().unwrap_err().contains("write \"/a\""));
    assert!("~(".parse::<PathPattern>().unwrap_err().contains("unclosed group"));
    assert_eq!("get".parse::<MethodName>().unwrap_err(), "methods are written in capitals: \"GET\"");
    assert!("PROPFIND".parse::<MethodName>().is_ok() && "A B".parse::<MethodName>().is_err());
    assert_eq!("*".parse::<ValuePattern>().unwrap(), ValuePattern::Any);
    assert_eq!("=404".parse::<TryStep>().unwrap(), TryStep::Status(404));
    assert!("=200".parse::<TryStep>().is_err() && "x".parse::<TryStep>().is_err());
    assert_eq!("5xx".parse::<PageStatus>().unwrap(), PageStatus::Class(5));
    assert!("200".parse::<PageStatus>().is_err());
}

#[test]
fn a_target_url_says_where_and_how() {
    let url: TargetUrl = "https://App.internal/base/".parse().unwrap();
    assert_eq!(url.scheme, UrlScheme::Https);
    assert_eq!(url.address().unwrap().to_string(), "app.internal:443");
    assert_eq!((url.base(), url.authority().as_str(), url.host()), ("/base", "app.internal", "app.internal"));
    assert_eq!(url.origin(), "https://app.internal:443");
    let url: TargetUrl = "h2c://[::1]:8080".parse().unwrap();
    assert_eq!((url.base(), url.authority().as_str(), url.host()), ("", "[::1]:8080", "::1"));
    for (text, expected) in [
        ("ftp://x", UrlError::Scheme),
        ("http://", UrlError::Host),
        ("http://a b", UrlError::Host),
        ("http://x:0", UrlError::Port),
        ("http://u:p@x", UrlError::User),
        ("http://x/?a", UrlError::Path),
    ] {
        assert_eq!(text.parse::<TargetUrl>().unwrap_err(), expected, "{text}");
    }
}
