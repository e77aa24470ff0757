//! What a request asks for, in the spelling that everything here compares.

use actix_web::dev::ServiceRequest;
use actix_web::http::Uri;
use actix_web::http::uri::PathAndQuery;

/// Spells each unreserved character of the path as itself (RFC 3986, 6.2.2.2). Routes match what a path means, whatever its
/// spelling; which limit a request counts for, which lane it waits in and whether it has to show its token is decided by the
/// path as it stands. Nobody gets past that by writing `%73` for `s`.
pub fn spell_plainly(req: &mut ServiceRequest) {
    let Some(path) = plain(req.uri().path()) else { return };
    let target = match req.uri().query() {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    let mut parts = req.uri().clone().into_parts();
    parts.path_and_query = PathAndQuery::try_from(target).ok();
    // What was a path with `%73` in it is one with `s`.
    let Ok(uri) = Uri::from_parts(parts) else { return };
    req.match_info_mut().get_mut().update(&uri);
    req.head_mut().uri = uri;
}

/// The path, where it is another one than this.
fn plain(path: &str) -> Option<String> {
    if !path.contains('%') {
        return None;
    }
    let mut parts = path.split('%');
    let mut plain = parts.next()?.to_owned();
    for part in parts {
        if let Some((character, rest)) = unreserved(part) {
            plain.push(character);
            plain.push_str(rest);
        } else {
            plain.push('%');
            plain.push_str(part);
        }
    }
    (plain != path).then_some(plain)
}

/// The unreserved character (RFC 3986, 2.3) that the two hexadecimal digits stand for, and what comes behind them.
fn unreserved(text: &str) -> Option<(char, &str)> {
    let (digits, rest) = text.split_at_checked(2)?;
    let octet =
        digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then(|| u8::from_str_radix(digits, 16).ok())??;
    let is_unreserved = octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | b'_' | b'~');
    is_unreserved.then_some((char::from(octet), rest))
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn unreserved_characters_are_spelled_as_themselves_and_all_else_is_left_as_it_is() {
        for (sent, spelled) in [
            ("/api/v1/user%73", "/api/v1/users"),
            ("/%61%70%69/%5F%2d%2E%7e%30", "/api/_-.~0"),
            ("/a%2Fb%3Fc%23d%25e%20f%41?%41=%42&g", "/a%2Fb%3Fc%23d%25e%20fA?%41=%42&g"),
            ("/%C3%A9%4", "/%C3%A9%4"),
            ("/%%41%4g%+1%", "/%A%4g%+1%"),
            ("/%2541", "/%2541"),
            ("/plain?x=%41", "/plain?x=%41"),
            ("http://board.example:81/%71na?x", "http://board.example:81/qna?x"),
        ] {
            let mut req = TestRequest::with_uri(sent).to_srv_request();
            spell_plainly(&mut req);
            assert_eq!(req.uri().to_string(), spelled, "{sent}");
        }
    }
}
