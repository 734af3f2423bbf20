//! Hosts of addresses.
//!
//! Owns the one question that decides where plain text may go. Never asks a resolver: what a name leads to can change.

use std::net::IpAddr;

/// Whether the host of a URL, written as URLs have it, can only be this machine. None is nowhere.
#[must_use]
pub fn is_loopback(host: Option<&str>) -> bool {
    let Some(host) = host else {
        return false;
    };
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let address = bare.unwrap_or(host).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_lead_elsewhere_is_this_machine() {
        for near in ["localhost", "127.0.0.1", "127.9.9.9", "[::1]"] {
            assert!(is_loopback(Some(near)), "{near}");
        }
        for far in [
            "",
            "localhost.example.com",
            "127.0.0.1.example.com",
            "10.0.0.1",
            "0.0.0.0",
            "[::]",
            "[::ffff:10.0.0.1]",
            "[localhost]",
        ] {
            assert!(!is_loopback(Some(far)), "{far}");
        }
        assert!(!is_loopback(None));
    }
}
