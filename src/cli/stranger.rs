//! What answers at an address that should be a connector's.
//!
//! Owns telling other servers apart by their first words. Sends one harmless request and reads some bytes; never
//! follows what the other side says.

use std::error::Error as _;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::{Code, Status};

/// How long to ask.
const LIMIT: Duration = Duration::from_secs(2);
/// Bytes of the answer that are looked at.
const LOOKED_AT: usize = 1024;

/// Whether a failed call looks as if the other side does not speak gRPC.
pub(super) fn is_suspected(status: &Status) -> bool {
    // Answers of HTTP/2 servers that are no gRPC servers are mapped from their HTTP status, without a source.
    let mapped = matches!(
        status.code(),
        Code::Unknown | Code::Unimplemented | Code::Internal | Code::Unavailable
    ) && (status.message().contains("grpc-status header missing")
        || status.message().contains("invalid content type"));
    let mut cause = status.source();
    let mut broken = false;
    while let Some(error) = cause {
        let words = error.to_string();
        broken |= words.contains("http2 error") || words.contains("frame with invalid size");
        cause = error.source();
    }
    mapped || broken
}

/// What the server at this address is, as the end of a sentence that begins with "it"; `None` when it cannot be
/// reached or says nothing that tells.
pub(super) async fn identify(server: &str) -> Option<String> {
    tokio::time::timeout(LIMIT, ask(server)).await.ok()?
}

async fn ask(server: &str) -> Option<String> {
    let url = url::Url::parse(server).ok()?;
    let addresses = url.socket_addrs(|| None).ok()?;
    let mut stream = TcpStream::connect(addresses.as_slice()).await.ok()?;
    let host = url.host_str()?;
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    let limit = u64::try_from(LOOKED_AT).unwrap_or(u64::MAX);
    // Half an answer tells as much as a whole one.
    drop(stream.take(limit).read_to_end(&mut answer).await);
    Some(describe(&answer))
}

/// The first words of an answer, in words of ours. Pure.
fn describe(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(answer);
    let mut lines = text.split("\r\n");
    let first = lines.next().unwrap_or_default();
    if let Some(rest) = first.strip_prefix("HTTP/1.") {
        let status = rest.split_once(' ').map_or("", |(_, status)| status);
        let server = lines
            .take_while(|line| !line.is_empty())
            .find_map(|line| line.split_once(':'))
            .filter(|(name, _)| name.eq_ignore_ascii_case("server"))
            .map(|(_, value)| format!(", server {}", value.trim()));
        return format!(
            "is a web server that speaks HTTP/1.1 ({status}{})",
            server.unwrap_or_default()
        );
    }
    match answer {
        [] => "closes the connection without a word".to_owned(),
        // An alert, or a handshake: the first byte of every TLS record.
        [0x15 | 0x16, 0x03, ..] => {
            "speaks TLS: write https in --server, and give --tls-ca with the authority of its certificate"
                .to_owned()
        }
        // A settings frame opens every HTTP/2 connection.
        [_, _, _, 0x04, ..] => "speaks HTTP/2, but no gRPC of a connector".to_owned(),
        _ if first.chars().take(1).all(|c| c.is_ascii_graphic()) => {
            let words: String = first.chars().take(60).collect();
            format!("says {words:?}")
        }
        _ => "speaks neither gRPC nor HTTP".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::describe;

    #[test]
    fn the_first_bytes_tell_what_a_server_is() {
        for (answer, words) in [
            (
                &b"HTTP/1.1 404 Not Found\r\nServer: nginx\r\n\r\n"[..],
                "is a web server that speaks HTTP/1.1 (404 Not Found, server nginx)",
            ),
            (
                b"HTTP/1.0 200 OK\r\n\r\n",
                "is a web server that speaks HTTP/1.1 (200 OK)",
            ),
            (b"", "closes the connection without a word"),
            (
                b"\x15\x03\x01\x00\x02\x02\x46",
                "speaks TLS: write https in --server, and give --tls-ca with the authority of its certificate",
            ),
            (
                b"\x00\x00\x12\x04\x00\x00\x00\x00\x00",
                "speaks HTTP/2, but no gRPC of a connector",
            ),
            (b"SSH-2.0-x\r\n", "says \"SSH-2.0-x\""),
        ] {
            assert_eq!(describe(answer), words);
        }
    }
}
