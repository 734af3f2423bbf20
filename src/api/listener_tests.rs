//! The accept loop and the deadlines, over pipes and with time by hand.

use std::collections::VecDeque;

use futures::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

use super::*;

const BOUNDS: Bounds = Bounds {
    connections: 2,
    handshake: Duration::from_secs(10),
    idle: Duration::from_secs(100),
};

const START: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const PING: u8 = 6;

/// One frame with `length` bytes in it.
fn frame(kind: u8, flags: u8, stream: u32, length: u8) -> Vec<u8> {
    let mut bytes = vec![0, 0, length, kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(vec![0; length.into()]);
    bytes
}

/// A connection that began well, and its peer.
async fn begun() -> (Connection<DuplexStream>, DuplexStream) {
    let (mut connection, mut peer) = fresh();
    peer.write_all(START).await.expect("room");
    read(&mut connection).await.expect("the preface");
    (connection, peer)
}

fn fresh() -> (Connection<DuplexStream>, DuplexStream) {
    let (ours, peer) = duplex(1024);
    let permit = Arc::new(Semaphore::new(1))
        .try_acquire_owned()
        .expect("free");
    (Connection::new(ours, BOUNDS, Admitted::new(permit)), peer)
}

async fn read(connection: &mut Connection<DuplexStream>) -> io::Result<usize> {
    connection.read(&mut [0; 1024]).await
}

/// Reads until the connection ends itself and answers after how long.
async fn ends(connection: &mut Connection<DuplexStream>) -> Duration {
    let began = Instant::now();
    loop {
        match read(connection).await {
            Ok(count) => assert_ne!(count, 0, "the peer is there"),
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::TimedOut);
                return began.elapsed();
            }
        }
    }
}

fn about(took: Duration, wanted: Duration) -> bool {
    took >= wanted && took < wanted + Duration::from_millis(50)
}

#[tokio::test(start_paused = true)]
async fn a_preface_byte_by_byte_does_not_extend_the_handshake() {
    let (mut connection, mut peer) = fresh();
    let writing = async {
        for byte in &START[..23] {
            peer.write_all(&[*byte]).await.expect("room");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        took = ends(&mut connection) => assert!(about(took, BOUNDS.handshake), "{took:?}"),
        () = writing => {}
    }
}

#[tokio::test(start_paused = true)]
async fn pings_and_settings_do_not_keep_an_idle_connection() {
    let (mut connection, mut peer) = begun().await;
    let pinging = async {
        loop {
            let several = [
                frame(PING, 0, 0, 8),
                frame(PING, 1, 0, 8),
                frame(4, 0, 0, 30),
                frame(8, 0, 0, 4),
            ];
            peer.write_all(&several.concat()).await.expect("room");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::select! {
        took = ends(&mut connection) => assert!(about(took, BOUNDS.idle), "{took:?}"),
        () = pinging => {}
    }
}

#[tokio::test(start_paused = true)]
async fn an_open_call_keeps_its_connection_however_silent_and_its_end_starts_the_time_anew() {
    let (mut connection, mut peer) = begun().await;
    peer.write_all(&frame(Frame::HEADERS, 4, 1, 20))
        .await
        .expect("room");
    read(&mut connection).await.expect("a call");
    let long = BOUNDS.idle * 20;
    tokio::time::timeout(long, read(&mut connection))
        .await
        .expect_err("nothing happens");
    // The answer, without its end, and then the trailers that end it.
    connection
        .write_all(&frame(Frame::HEADERS, 4, 1, 9))
        .await
        .expect("open");
    connection
        .write_all(&frame(Frame::DATA, 0, 1, 9))
        .await
        .expect("open");
    tokio::time::timeout(long, read(&mut connection))
        .await
        .expect_err("nothing happens");
    connection
        .write_all(&frame(Frame::HEADERS, 5, 1, 9))
        .await
        .expect("open");
    let took = ends(&mut connection).await;
    assert!(about(took, BOUNDS.idle), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_call_reset_by_its_caller_leaves_the_connection_idle() {
    let (mut connection, mut peer) = begun().await;
    let both = [
        frame(Frame::HEADERS, 4, 1, 20),
        frame(Frame::RESET, 0, 1, 4),
    ]
    .concat();
    peer.write_all(&both).await.expect("room");
    let took = ends(&mut connection).await;
    assert!(about(took, BOUNDS.idle), "{took:?}");
    connection
        .write_all(&frame(PING, 0, 0, 8))
        .await
        .expect_err("it is over for writers too");
}

#[test]
fn calls_are_followed_however_the_bytes_are_cut() {
    let inbound = [
        START.to_vec(),
        frame(4, 0, 0, 18),
        frame(Frame::HEADERS, 4, 1, 200),
        frame(Frame::DATA, 1, 1, 77),
        frame(Frame::HEADERS, 4, 3, 9),
        // Trailers of a stream that is known open nothing.
        frame(Frame::HEADERS, 5, 1, 3),
    ]
    .concat();
    let outbound = [
        frame(4, 0, 0, 0),
        frame(Frame::HEADERS, 4, 1, 50),
        frame(Frame::DATA, 0, 1, 100),
        frame(Frame::HEADERS, 5, 1, 10),
    ]
    .concat();
    for size in 1..=inbound.len() {
        let mut calls = Calls::default();
        for chunk in inbound.chunks(size) {
            calls.received(chunk);
        }
        assert_eq!(calls.open, BTreeSet::from([1, 3]), "in pieces of {size}");
        for chunk in outbound.chunks(size) {
            calls.sent(chunk);
        }
        assert_eq!(calls.open, BTreeSet::from([3]), "in pieces of {size}");
        calls.sent(&frame(Frame::RESET, 0, 3, 4));
        assert_eq!(calls.stage(), Stage::Idle);
    }
}

type Script = VecDeque<io::Result<DuplexStream>>;

fn scripted(mut script: Script) -> impl FnMut(&mut Context<'_>) -> Poll<io::Result<DuplexStream>> {
    move |_| script.pop_front().map_or(Poll::Pending, Poll::Ready)
}

#[tokio::test(start_paused = true)]
async fn accepting_goes_on_after_every_error_and_pauses_when_files_are_out() {
    let (ours, _peer) = duplex(64);
    let out_of_files = || Err(io::Error::from_raw_os_error(24));
    let script = Script::from([
        out_of_files(),
        Err(io::ErrorKind::ConnectionAborted.into()),
        out_of_files(),
        Ok(ours),
    ]);
    let mut stream = std::pin::pin!(accepted(BOUNDS, scripted(script)));
    let began = Instant::now();
    stream
        .next()
        .await
        .expect("it never ends")
        .expect("it never fails");
    assert!(about(began.elapsed(), PAUSE * 2), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn one_too_many_is_closed_at_once_and_a_closed_one_makes_room() {
    let (mut script, mut peers) = (Script::new(), Vec::new());
    for _ in 0..4 {
        let (ours, peer) = duplex(64);
        script.push_back(Ok(ours));
        peers.push(peer);
    }
    let last = script.pop_back().expect("four");
    let later = std::sync::Mutex::new(script);
    let mut stream = std::pin::pin!(accepted(BOUNDS, |_: &mut Context<'_>| {
        later
            .lock()
            .expect("not poisoned")
            .pop_front()
            .map_or(Poll::Pending, Poll::Ready)
    }));
    let first = stream
        .next()
        .await
        .expect("it never ends")
        .expect("admitted");
    let _second = stream
        .next()
        .await
        .expect("it never ends")
        .expect("admitted");
    let soon = tokio::time::timeout(Duration::from_secs(1), stream.next()).await;
    assert!(soon.is_err(), "the third is not admitted");
    assert_eq!(
        peers[2].read(&mut [0; 8]).await.expect("readable"),
        0,
        "it was closed"
    );
    drop(first);
    later.lock().expect("not poisoned").push_back(last);
    stream
        .next()
        .await
        .expect("it never ends")
        .expect("there is room again");
}

/// Sends a frame and has it read.
async fn say(connection: &mut Connection<DuplexStream>, peer: &mut DuplexStream, bytes: &[u8]) {
    peer.write_all(bytes).await.expect("room");
    read(connection).await.expect("it is open");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_busy_with_nothing_is_closed_at_once() {
    for kind in [PING, 2, 4, 8, 9, 0x42, Frame::DATA] {
        let (mut connection, mut peer) = begun().await;
        for _ in 0..=CHATTER {
            let length = if kind == Frame::DATA { 0 } else { 8 };
            say(&mut connection, &mut peer, &frame(kind, 0, 0, length)).await;
        }
        let took = ends(&mut connection).await;
        assert!(took.is_zero(), "{kind}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn time_and_calls_earn_what_goes_with_them() {
    let (mut connection, mut peer) = begun().await;
    for second in 0..100 {
        tokio::time::advance(Duration::from_secs(1)).await;
        for _ in 0..CHATTER_A_SECOND {
            say(&mut connection, &mut peer, &frame(PING, 0, 0, 8)).await;
        }
        // Idle for less than its time.
        let call = frame(Frame::HEADERS, 4, 2 * second + 1, 9);
        say(&mut connection, &mut peer, &call).await;
        let reset = frame(Frame::RESET, 0, 2 * second + 1, 4);
        say(&mut connection, &mut peer, &reset).await;
    }
    let (mut connection, mut peer) = begun().await;
    for call in 0..2000 {
        let stream = 2 * call + 1;
        say(
            &mut connection,
            &mut peer,
            &frame(Frame::HEADERS, 4, stream, 9),
        )
        .await;
        for _ in 1..CHATTER_A_FRAME {
            say(&mut connection, &mut peer, &frame(8, 0, stream, 4)).await;
        }
        say(
            &mut connection,
            &mut peer,
            &frame(Frame::RESET, 0, stream, 4),
        )
        .await;
    }
}
