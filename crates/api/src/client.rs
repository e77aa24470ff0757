//! Whose address a request comes from. A proxy in between is believed where the settings name it, and nobody else is.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use crate::headers::Headers;

const X_FORWARDED_FOR: &str = "x-forwarded-for";
const FORWARDED: &str = "forwarded";

/// The proxies whose word on a client's address counts.
#[derive(Clone, Debug, Default)]
pub struct Proxies(Vec<IpNet>);

impl Proxies {
    #[must_use]
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[must_use]
    pub fn includes(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }

    /// The address that the request behind these headers came from, as far as it can be believed: the rightmost one that
    /// is no proxy of ours.
    ///
    /// `X-Forwarded-For` and `Forwarded` (RFC 7239) count alike. A proxy writes one of them and may pass the other on as
    /// the client made it up, so where both are there and differ neither is believed, and the proxy counts.
    #[must_use]
    pub fn client(&self, peer: IpAddr, headers: &impl Headers) -> IpAddr {
        let peer = peer.to_canonical();
        if !self.includes(peer) {
            return peer;
        }
        let listed = self.walk(peer, &hops(headers, X_FORWARDED_FOR, list));
        let forwarded = self.walk(peer, &hops(headers, FORWARDED, forwarded));
        match (listed, forwarded) {
            (Some(one), Some(other)) if one != other => peer,
            (Some(client), _) | (None, Some(client)) => client,
            (None, None) => peer,
        }
    }

    /// From the right, past our own proxies. A hop that is not an address ends the walk: what stands left of it was told by
    /// nobody we know. `None` without hops.
    fn walk(&self, peer: IpAddr, hops: &[Option<IpAddr>]) -> Option<IpAddr> {
        let mut client = hops.first().map(|_| peer)?;
        for hop in hops.iter().rev() {
            let Some(address) = hop else { break };
            client = *address;
            if !self.includes(client) {
                break;
            }
        }
        Some(client)
    }
}

/// A network, or an address that stands for itself.
///
/// # Errors
/// What it should look like.
pub fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let network = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(|a| a.to_canonical().into()));
    network
        .map(|network| network.trunc())
        .ok_or_else(|| "a proxy is such as 10.0.0.0/8, 192.0.2.7 or 2001:db8::/32".to_owned())
}

/// All hops of a header, which may stand there more than once, from the client's end.
fn hops(headers: &impl Headers, name: &str, parse: fn(&str) -> Vec<Option<IpAddr>>) -> Vec<Option<IpAddr>> {
    headers.texts(name).flat_map(|line| line.map_or_else(|| vec![None], parse)).collect()
}

/// `X-Forwarded-For`: addresses with commas between them.
fn list(value: &str) -> Vec<Option<IpAddr>> {
    value.split(',').map(node).collect()
}

/// `Forwarded` (RFC 7239, 4): elements with commas between them, each of pairs with semicolons between them.
fn forwarded(value: &str) -> Vec<Option<IpAddr>> {
    split(value, ',')
        .into_iter()
        .map(|element| split(element, ';').into_iter().find_map(pair_for).and_then(|node_of| node(&node_of)))
        .collect()
}

/// The value of a pair whose name is `for`, in whatever case.
fn pair_for(pair: &str) -> Option<Cow<'_, str>> {
    let (name, value) = pair.split_once('=')?;
    name.trim().eq_ignore_ascii_case("for").then(|| unquoted(value.trim()))
}

/// Cuts at `at`, save between double quotes.
fn split(text: &str, at: char) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(|c: char| {
        let cuts = c == at && !quoted;
        match c {
            '"' if !escaped => quoted = !quoted,
            _ => {}
        }
        escaped = quoted && !escaped && c == '\\';
        cuts
    })
    .collect()
}

/// RFC 9110, 5.6.4.
fn unquoted(value: &str) -> Cow<'_, str> {
    let Some(inner) = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else { return value.into() };
    if !inner.contains('\\') {
        return inner.into();
    }
    let mut text = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(c) = characters.next() {
        text.extend(if c == '\\' { characters.next() } else { Some(c) });
    }
    text.into()
}

/// An address with or without a port, one of IPv6 with or without brackets; `None` for `unknown`, `_hidden` and rubbish.
fn node(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.parse::<IpAddr>().ok();
    let bracketed = || text.strip_prefix('[')?.strip_suffix(']')?.parse::<IpAddr>().ok().filter(IpAddr::is_ipv6);
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    bare.or_else(bracketed).or_else(with_port).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderMap, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    fn proxies(networks: &[&str]) -> Proxies {
        Proxies::new(networks.iter().map(|text| network(text).unwrap()).collect())
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name.parse().unwrap(), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    const XFF: &str = "x-forwarded-for";
    const FWD: &str = "forwarded";

    #[test]
    fn a_peer_that_is_no_proxy_of_ours_counts_whatever_it_says() {
        let said = headers(&[(XFF, "203.0.113.9"), (FWD, "for=203.0.113.9")]);
        for trusted in [proxies(&[]), proxies(&["10.0.0.0/8"])] {
            assert_eq!(trusted.client(ip("192.0.2.1"), &said), ip("192.0.2.1"));
        }
    }

    #[test]
    fn the_rightmost_address_that_is_no_proxy_counts() {
        let trusted = proxies(&["10.0.0.0/8", "2001:db8:1::/48", "192.0.2.7"]);
        for (lines, expected) in [
            (&[][..], "10.0.0.1"),
            (&[(XFF, "203.0.113.9")], "203.0.113.9"),
            (&[(XFF, "6.6.6.6, 203.0.113.9")], "203.0.113.9"),
            (&[(XFF, "6.6.6.6, 203.0.113.9, 10.2.3.4, 192.0.2.7")], "203.0.113.9"),
            (&[(XFF, "6.6.6.6"), (XFF, "203.0.113.9, 10.2.3.4")], "203.0.113.9"),
            (&[(XFF, "10.9.9.9, 10.2.3.4")], "10.9.9.9"),
            (&[(XFF, "203.0.113.9:4711")], "203.0.113.9"),
            (&[(XFF, "2001:db8:2::1, 2001:db8:1::1")], "2001:db8:2::1"),
            (&[(XFF, "[2001:db8:2::1]:443")], "2001:db8:2::1"),
            (&[(XFF, "::ffff:203.0.113.9, ::ffff:10.0.0.3")], "203.0.113.9"),
            // Nobody we know told what stands left of rubbish.
            (&[(XFF, "6.6.6.6, unknown")], "10.0.0.1"),
            (&[(XFF, "6.6.6.6, unknown, 10.2.3.4")], "10.2.3.4"),
            (&[(XFF, "6.6.6.6,")], "10.0.0.1"),
            (&[(XFF, "")], "10.0.0.1"),
            (&[(FWD, "for=203.0.113.9")], "203.0.113.9"),
            (&[(FWD, "For=\"[2001:db8:2::1]:4711\"")], "2001:db8:2::1"),
            (&[(FWD, "for=6.6.6.6, for=203.0.113.9;proto=https;by=10.0.0.1, for=\"10.2.3.4:80\"")], "203.0.113.9"),
            (&[(FWD, "for=\"6.6.6.6, for=7.7.7.7\", proto=http ; FOR = 203.0.113.9")], "203.0.113.9"),
            (&[(FWD, "for=203.0.113.9;by=\"a, for=6.6.6.6\"")], "203.0.113.9"),
            (&[(FWD, "for=\"_hidden\\\"x\", for=203.0.113.9")], "203.0.113.9"),
            (&[(FWD, "for=\"203.0.113.\\9\"")], "203.0.113.9"),
            (&[(FWD, "for=6.6.6.6, for=_hidden")], "10.0.0.1"),
            (&[(FWD, "for=6.6.6.6, proto=https")], "10.0.0.1"),
            (&[(FWD, "for=6.6.6.6"), (FWD, "for=203.0.113.9")], "203.0.113.9"),
            // Both agree, or neither is believed.
            (&[(XFF, "203.0.113.9"), (FWD, "for=203.0.113.9")], "203.0.113.9"),
            (&[(XFF, "203.0.113.9"), (FWD, "for=6.6.6.6")], "10.0.0.1"),
            (&[(XFF, "6.6.6.6"), (FWD, "for=203.0.113.9")], "10.0.0.1"),
        ] {
            assert_eq!(trusted.client(ip("10.0.0.1"), &headers(lines)), ip(expected), "{lines:?}");
            assert_eq!(trusted.client(ip("::ffff:10.0.0.1"), &headers(lines)), ip(expected), "{lines:?}");
        }
    }

    #[test]
    fn networks_are_networks_or_addresses() {
        for (text, expected) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            (" 10.1.2.3/8 ", "10.0.0.0/8"),
            ("192.0.2.7", "192.0.2.7/32"),
            ("2001:db8::1", "2001:db8::1/128"),
            ("::ffff:192.0.2.7", "192.0.2.7/32"),
        ] {
            assert_eq!(network(text).unwrap().to_string(), expected);
        }
        for bad in ["", "10.0.0.0/33", "proxy.example.com", "10.0.0", "*"] {
            assert!(network(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_header_is_too_strange(value in "[ -~]{0,200}", other in "[ -~]{0,200}") {
            let trusted = proxies(&["10.0.0.0/8"]);
            let said = headers(&[(XFF, &value), (FWD, &other)]);
            prop_assert!(!trusted.client(ip("10.0.0.1"), &said).is_unspecified());
            prop_assert_eq!(trusted.client(ip("192.0.2.1"), &said), ip("192.0.2.1"));
        }

        #[test]
        fn whatever_a_client_makes_up_the_proxy_s_word_stands(
            made_up in "[ -~]{0,100}",
            client in any::<u32>().prop_filter("no proxy", |bits| bits >> 24 != 10),
        ) {
            let trusted = proxies(&["10.0.0.0/8"]);
            let client = IpAddr::from(client.to_be_bytes());
            let said = headers(&[(XFF, &made_up), (XFF, &client.to_string())]);
            prop_assert_eq!(trusted.client(ip("10.0.0.1"), &said), client);
            let said = headers(&[(FWD, &made_up), (FWD, &format!("for=\"{client}\""))]);
            prop_assert_eq!(trusted.client(ip("10.0.0.1"), &said), client);
        }

        #[test]
        fn an_address_reads_back_from_each_spelling(bits in any::<u128>()) {
            let address = IpAddr::from(bits.to_be_bytes());
            let canonical = Some(address.to_canonical());
            prop_assert_eq!(node(&address.to_string()), canonical);
            prop_assert_eq!(node(&format!("[{address}]")), canonical);
            prop_assert_eq!(node(&format!("[{address}]:65535")), canonical);
            let quoted = forwarded(&format!("proto=https;for=\"[{address}]:1\""));
            prop_assert_eq!(quoted, vec![canonical]);
        }

        #[test]
        fn a_network_holds_its_own_addresses(bits in any::<u32>(), prefix in 0_u8..=32) {
            let address = IpAddr::from(bits.to_be_bytes());
            let network = network(&format!("{address}/{prefix}")).unwrap();
            prop_assert!(Proxies::new(vec![network]).includes(address));
        }
    }
}
