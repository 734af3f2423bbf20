//! Connections of the gRPC surface: how many, how long each may take to begin, how long it may be of no use.
//!
//! Owns the accept loop and the two deadlines of a connection. Never reads what a call says: it follows the heads of
//! HTTP/2 frames, nine bytes each, and looks at nothing else.
//!
//! **Admission.** A connection holds one of a fixed number of permits until it is closed. One more is accepted and
//! closed at once, not left waiting in the backlog: its caller learns within a round trip that it has to come back,
//! where a caller in the backlog would believe itself connected and hang for as long as others are idle. So the loop
//! never waits for a permit, and a full house cannot stop it.
//!
//! **Handshake.** Until the 24 bytes with which HTTP/2 begins have arrived, the connection has a deadline that
//! nothing extends: a byte at a time does not keep it.
//!
//! **Idleness.** A connection is idle while no call is open on it. Bytes are no measure of that: pings,
//! acknowledgements of pings, settings and window updates come from both ends of a connection that serves nobody, and
//! several may arrive in one read; a watch or a call that waits for an activation, on the other hand, may rightly say
//! nothing for minutes. So the heads of frames are followed: HEADERS of a new stream from the peer opens a call; the
//! end of our answer, or a reset from either side, closes it. Calls end by their deadline and watches by their age,
//! so an open call cannot keep a connection for ever, and a peer that vanished in the middle of one is found by
//! keep-alive. A call sent at the very moment its connection is closed fails as on any lost connection and may be
//! repeated with the same `request_id`.
//!
//! **Chatter.** Frames that move no call on (pings, settings, priorities, window updates, resets, empty pieces) cost
//! nine bytes to send and each a turn of the connection's task, which others on its thread wait for. A connection has an
//! allowance of them that grows with time and with its calls and answers; one that has used it up is closed.
//!
//! Encryption is below this (`identity::Secured`): what is followed here is plain HTTP/2, and the deadline of the
//! handshake is one for both, from being accepted to the end of the preface.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};
use tonic::transport::server::Connected;

use crate::identity::{PeerCell, Secured, Tls};

/// Length of what every HTTP/2 client sends first (RFC 9113, section 3.4).
const PREFACE: usize = 24;

/// Length of the head of a frame (RFC 9113, section 4.1).
const HEAD: usize = 9;

/// Pause after the operating system could not accept, so that being out of files is not a busy loop. Short: the
/// caller that waits may be revoking.
const PAUSE: Duration = Duration::from_millis(100);

/// How often the log repeats that connections are turned away or cannot be accepted. A flood must not become one of
/// log lines; the metric counts each.
const REPEAT: Duration = Duration::from_secs(10);

/// Frames beside calls that a connection may send at once. A client that starts sends some ten.
const CHATTER: u32 = 400;

/// How many more each second. Keep-alive is one in several seconds.
const CHATTER_A_SECOND: u32 = 50;

/// How many more for each call and each piece of an answer: credit for the window, a measurement of the line, a
/// cancellation.
const CHATTER_A_FRAME: u32 = 8;

const OPEN: &str = "latchkey_grpc_connections";
const SHED: &str = "latchkey_grpc_connections_shed_total";

/// Registers help texts.
pub(super) fn describe_metrics() {
    metrics::describe_gauge!(OPEN, "Connections of the gRPC surface that are open");
    metrics::describe_counter!(
        SHED,
        "Connections that were closed for being one too many, slow to begin, idle, or busy with nothing"
    );
}

/// Why a connection was closed from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shed {
    Full,
    Handshake,
    Idle,
    Chatter,
}

impl Shed {
    fn count(self) {
        let why = match self {
            Self::Full => "full",
            Self::Handshake => "handshake",
            Self::Idle => "idle",
            Self::Chatter => "chatter",
        };
        metrics::counter!(SHED, "why" => why).increment(1);
    }
}

/// What a connection may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Connections at once.
    pub(super) connections: usize,
    /// From being accepted to the end of the preface.
    pub(super) handshake: Duration,
    /// From the end of the last open call, or of the preface, to the next call.
    pub(super) idle: Duration,
}

/// Connections of a bound listener, admitted and watched, encrypted where there is TLS. Never ends and never fails.
pub(super) fn incoming(
    listener: TcpListener,
    bounds: Bounds,
    tls: Option<Arc<Tls>>,
) -> impl Stream<Item = io::Result<Connection<Secured>>> + Send {
    accepted(bounds, move |cx| {
        let (stream, _) = ready!(listener.poll_accept(cx))?;
        // Answers are small and each is waited for.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "A connection was lost while it was accepted");
        }
        Poll::Ready(Ok(Secured::new(stream, tls.clone())))
    })
}

fn accepted<S, A>(bounds: Bounds, accept: A) -> impl Stream<Item = io::Result<Connection<S>>> + Send
where
    S: Send,
    A: FnMut(&mut Context<'_>) -> Poll<io::Result<S>> + Send,
{
    let permits = Arc::new(Semaphore::new(bounds.connections));
    let loop_of = (accept, permits, Seldom::default());
    futures::stream::unfold(
        loop_of,
        move |(mut accept, permits, mut seldom)| async move {
            loop {
                match poll_fn(&mut accept).await {
                    Ok(stream) => match Arc::clone(&permits).try_acquire_owned() {
                        Ok(permit) => {
                            let connection = Connection::new(stream, bounds, Admitted::new(permit));
                            return Some((Ok(connection), (accept, permits, seldom)));
                        }
                        Err(_) => {
                            drop(stream);
                            Shed::Full.count();
                            if seldom.now() {
                                tracing::warn!(
                                    limit = bounds.connections,
                                    "A gRPC connection was turned away: as many as may be are open"
                                );
                            }
                        }
                    },
                    Err(error) if concerns_the_peer(&error) => {
                        tracing::debug!(%error, "A peer went away before it was accepted");
                    }
                    Err(error) => {
                        if seldom.now() {
                            tracing::warn!(%error, "Accepting a gRPC connection failed; trying again");
                        }
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        },
    )
}

/// Errors of one connection that say nothing about the next.
fn concerns_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    [
        Kind::ConnectionAborted,
        Kind::ConnectionReset,
        Kind::Interrupted,
    ]
    .contains(&error.kind())
}

/// Lets something through once in a while.
#[derive(Debug, Default)]
struct Seldom {
    last: Option<Instant>,
}

impl Seldom {
    fn now(&mut self) -> bool {
        let now = Instant::now();
        let due = self
            .last
            .is_none_or(|last| now.duration_since(last) >= REPEAT);
        if due {
            self.last = Some(now);
        }
        due
    }
}

/// The place of one connection among those admitted; free again when dropped.
#[derive(Debug)]
struct Admitted {
    _permit: OwnedSemaphorePermit,
}

impl Admitted {
    fn new(permit: OwnedSemaphorePermit) -> Self {
        metrics::gauge!(OPEN).increment(1.0);
        Self { _permit: permit }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        metrics::gauge!(OPEN).decrement(1.0);
    }
}

/// An admitted connection, which ends itself with [`io::ErrorKind::TimedOut`] at its deadlines.
#[derive(Debug)]
pub(super) struct Connection<S> {
    stream: S,
    calls: Calls,
    idle: Duration,
    deadline: Pin<Box<Sleep>>,
    has_expired: bool,
    allowance: Allowance,
    _admitted: Admitted,
}

impl<S> Connection<S> {
    fn new(stream: S, bounds: Bounds, admitted: Admitted) -> Self {
        Self {
            stream,
            calls: Calls::default(),
            idle: bounds.idle,
            deadline: Box::pin(tokio::time::sleep(bounds.handshake)),
            has_expired: false,
            allowance: Allowance::new(Instant::now()),
            _admitted: admitted,
        }
    }

    /// Follows traffic: when it leaves the connection idle, its time starts anew. Nothing else restarts it.
    fn follow(&mut self, traffic: impl FnOnce(&mut Calls)) {
        let before = self.calls.stage();
        traffic(&mut self.calls);
        let Said { chatter, worth } = std::mem::take(&mut self.calls.said);
        if chatter > 0 || worth > 0 {
            self.allowance.take(chatter, worth, Instant::now());
        }
        if self.calls.stage() == Stage::Idle && before != Stage::Idle {
            self.deadline.as_mut().reset(Instant::now() + self.idle);
        }
    }

    /// Whether a deadline has passed; if not, the task is woken when it does.
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.allowance.is_used_up {
            return Err(self.end(Shed::Chatter));
        }
        let shed = match self.calls.stage() {
            Stage::Busy => return Ok(()),
            Stage::Handshake => Shed::Handshake,
            Stage::Idle => Shed::Idle,
        };
        // A peer that never lets the reader rest uses up the task's budget, and then a timer is never ready when
        // polled: the clock is asked as well.
        let passed = Pin::new(&mut self.deadline).poll(cx).is_ready()
            || Instant::now() >= self.deadline.deadline();
        if !passed {
            return Ok(());
        }
        Err(self.end(shed))
    }

    /// The error with which the connection ends, told and counted once.
    fn end(&mut self, shed: Shed) -> io::Error {
        if !self.has_expired {
            self.has_expired = true;
            shed.count();
            tracing::debug!(?shed, "A gRPC connection was closed");
        }
        io::ErrorKind::TimedOut.into()
    }
}

/// How many frames beside calls a connection may still send.
#[derive(Debug)]
struct Allowance {
    left: u32,
    since: Instant,
    is_used_up: bool,
}

impl Allowance {
    fn new(now: Instant) -> Self {
        Self {
            left: CHATTER,
            since: now,
            is_used_up: false,
        }
    }

    fn take(&mut self, chatter: u32, worth: u32, now: Instant) {
        let seconds = now.duration_since(self.since).as_secs();
        if seconds > 0 {
            self.since = now;
        }
        let earned = u32::try_from(seconds)
            .unwrap_or(u32::MAX)
            .saturating_mul(CHATTER_A_SECOND)
            .saturating_add(worth.saturating_mul(CHATTER_A_FRAME));
        // What came together with a call is paid from what that call is worth, whatever the reads were cut into.
        match self.left.saturating_add(earned).checked_sub(chatter) {
            Some(left) => self.left = left.min(CHATTER),
            None => self.is_used_up = true,
        }
    }
}

impl Connected for Secured {
    /// Filled when the handshake is over, which is before the first call.
    type ConnectInfo = PeerCell;

    fn connect_info(&self) -> PeerCell {
        self.peer()
    }
}

impl<S: Connected> Connected for Connection<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Before reading, not when there is nothing to read: a flood must not put the deadline off.
        this.check(cx)?;
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        this.follow(|calls| calls.received(&buf.filled()[before..]));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check(cx)?;
        let written = ready!(Pin::new(&mut this.stream).poll_write_vectored(cx, slices))?;
        this.follow(|calls| {
            let mut left = written;
            for slice in slices {
                let taken = left.min(slice.len());
                calls.sent(&slice[..taken]);
                left -= taken;
            }
        });
        // An answer that just ended may be the last thing that happens here: arm the timer now.
        this.check(cx)?;
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// Where a connection stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The preface has not arrived.
    Handshake,
    /// No call is open.
    Idle,
    /// A call is open.
    Busy,
}

/// Which calls are open, by what both directions said. At most a few more than the streams that the server allows:
/// those that it is about to refuse.
#[derive(Debug, Default)]
struct Calls {
    preface: usize,
    inbound: Frames,
    outbound: Frames,
    newest: u32,
    open: BTreeSet<u32>,
    said: Said,
}

/// Frames since they were last counted.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Said {
    /// Of the peer, moving no call on.
    chatter: u32,
    /// Calls of the peer and pieces of our answers.
    worth: u32,
}

impl Calls {
    fn stage(&self) -> Stage {
        if self.preface < PREFACE {
            Stage::Handshake
        } else if self.open.is_empty() {
            Stage::Idle
        } else {
            Stage::Busy
        }
    }

    fn received(&mut self, bytes: &[u8]) {
        let preface = bytes.len().min(PREFACE - self.preface);
        self.preface += preface;
        let Self {
            inbound,
            newest,
            open,
            said,
            ..
        } = self;
        inbound.feed(&bytes[preface..], |frame| match frame.kind {
            // Streams are numbered upwards: a known one says how its request ends.
            Frame::HEADERS if frame.stream > *newest => {
                *newest = frame.stream;
                open.insert(frame.stream);
                said.worth = said.worth.saturating_add(1);
                said.chatter = said.chatter.saturating_add(bulk(frame));
            }
            Frame::RESET => {
                open.remove(&frame.stream);
                said.chatter = said.chatter.saturating_add(1);
            }
            Frame::DATA if frame.length > 0 || frame.flags & Frame::END_STREAM != 0 => {}
            _ => said.chatter = said.chatter.saturating_add(1 + bulk(frame)),
        });
    }

    fn sent(&mut self, bytes: &[u8]) {
        let Self {
            outbound,
            open,
            said,
            ..
        } = self;
        outbound.feed(bytes, |frame| {
            let is_answer = [Frame::DATA, Frame::HEADERS].contains(&frame.kind);
            said.worth = said.worth.saturating_add(u32::from(is_answer));
            let ends = is_answer && frame.flags & Frame::END_STREAM != 0;
            if ends || frame.kind == Frame::RESET {
                open.remove(&frame.stream);
            }
        });
    }
}

/// The head of a frame (RFC 9113, sections 4.1 and 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    length: usize,
}

impl Frame {
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const RESET: u8 = 3;
    const END_STREAM: u8 = 1;
}

/// What a frame beside the body of a call costs for its size, in frames: one for each KiB. Metadata of a call, a token
/// included, costs less than the call is worth; metadata that will be refused for its size costs more.
fn bulk(frame: Frame) -> u32 {
    u32::try_from(frame.length / 1024).unwrap_or(u32::MAX)
}

/// Finds the heads of frames in one direction, however the bytes are cut.
#[derive(Debug, Default)]
struct Frames {
    head: [u8; HEAD],
    have: usize,
    skip: usize,
}

impl Frames {
    fn feed(&mut self, mut bytes: &[u8], mut each: impl FnMut(Frame)) {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = bytes.len().min(HEAD - self.have);
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have == HEAD {
                let [high, middle, low, kind, flags, stream @ ..] = self.head;
                self.have = 0;
                self.skip = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
                // The highest bit is reserved.
                each(Frame {
                    kind,
                    flags,
                    stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
                    length: self.skip,
                });
            }
        }
    }
}

/// Whether a call is open after these bytes of a peer, which arrive cut into pieces of these lengths. For fuzzing.
pub(super) fn is_busy(bytes: &[u8], lengths: &[usize]) -> bool {
    let mut calls = Calls::default();
    let mut rest = bytes;
    for length in lengths {
        let (piece, later) = rest.split_at((*length).min(rest.len()));
        calls.received(piece);
        rest = later;
    }
    calls.received(rest);
    calls.stage() == Stage::Busy
}

#[cfg(test)]
#[path = "listener_tests.rs"]
mod tests;
