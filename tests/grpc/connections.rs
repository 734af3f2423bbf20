//! What one connection may take of the listener, over real sockets: its handshake, its idleness, its place.

use std::net::SocketAddr;
use std::time::Duration;

use latchkey::api::pb;
use latchkey::api::pb::connector_service_client::ConnectorServiceClient;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_stream::StreamExt as _;

use super::support::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
const PING: &[u8] = &[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];

/// Longer than any of these tests should take: only a failure waits for it.
const FOREVER: Duration = Duration::from_secs(30);

fn with(change: impl FnOnce(&mut latchkey::api::Options)) -> Setup {
    let mut setup = Setup::default();
    change(&mut setup.options);
    setup
}

async fn dial(address: SocketAddr, first: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.expect("listening");
    // A server that turns us away may be faster than we write.
    drop(stream.write_all(first).await);
    stream
}

/// Reads until the server closes; answers what it said before.
async fn closed(stream: &mut TcpStream) -> Vec<u8> {
    let mut said = Vec::new();
    let read = tokio::time::timeout(FOREVER, stream.read_to_end(&mut said));
    drop(read.await.expect("the server closes"));
    said
}

#[tokio::test]
async fn a_connection_that_does_not_begin_is_closed_and_others_work() {
    let bed = Bed::with(with(|options| {
        options.handshake_timeout = Duration::from_millis(300)
    }))
    .await;
    let mut silent = dial(bed.address, b"").await;
    let mut halting = dial(bed.address, &PREFACE[..23]).await;
    closed(&mut silent).await;
    closed(&mut halting).await;
    bed.grant("r1").await;
}

#[tokio::test]
async fn a_connection_that_only_pings_is_closed_as_idle() {
    let bed = Bed::with(with(|options| {
        options.idle_timeout = Duration::from_millis(300)
    }))
    .await;
    let (mut from, mut to) = dial(bed.address, &[PREFACE, SETTINGS].concat())
        .await
        .into_split();
    let pinging = async {
        while to.write_all(PING).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let mut answers = Vec::new();
    let reading = from.read_to_end(&mut answers);
    let (read, ()) = tokio::time::timeout(FOREVER, async { tokio::join!(reading, pinging) })
        .await
        .expect("the server closes");
    drop(read);
    assert!(
        answers.len() > 10 * PING.len(),
        "pings were answered until then: {}",
        answers.len()
    );
    // A client whose connection was idle for too long makes another one.
    bed.grant("r1").await;
}

#[tokio::test]
async fn a_watch_outlives_the_idle_timeout() {
    let bed = Bed::with(with(|options| {
        options.idle_timeout = Duration::from_millis(100)
    }))
    .await;
    let mut stream = bed
        .access()
        .watch_grants(pb::WatchGrantsRequest::default())
        .await
        .expect("watched")
        .into_inner();
    // A heartbeat every 50 ms: thirty of them are many idle timeouts.
    for _ in 0..30 {
        stream.next().await.expect("it goes on").expect("an item");
    }
}

#[tokio::test]
async fn one_connection_too_many_is_closed_while_others_work_and_a_free_place_is_taken() {
    let bed = Bed::with(with(|options| options.max_connections = 2)).await;
    bed.grant("r1").await;
    let second = dial(bed.address, &[PREFACE, SETTINGS].concat()).await;
    let mut third = dial(bed.address, &[PREFACE, SETTINGS].concat()).await;
    assert_eq!(closed(&mut third).await, b"", "it was not served");
    bed.grant("r2").await;
    drop(second);
    // The server learns of the end when it reads next: try until it did.
    let call = async {
        loop {
            let mut client = ConnectorServiceClient::new(bed.reconnect().await);
            if client.get_version(pb::GetVersionRequest {}).await.is_ok() {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(FOREVER, call)
        .await
        .expect("there is room again");
}

#[tokio::test]
async fn two_hundred_idle_connections_do_not_stop_a_call() {
    let bed = Bed::start().await;
    let mut idle = Vec::new();
    for number in 0..200 {
        let first = if number % 2 == 0 { PREFACE } else { b"" };
        idle.push(dial(bed.address, first).await);
    }
    let mut fresh = ConnectorServiceClient::new(bed.reconnect().await);
    fresh
        .get_version(pb::GetVersionRequest {})
        .await
        .expect("answered");
    bed.grant("r1").await;
    drop(idle);
}
