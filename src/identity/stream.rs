//! A connection of the listener, plain or encrypted.
//!
//! Owns the handshake as a part of the first read, so that it stands under the deadline of whoever reads. Never reads
//! what comes after it.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};

use super::tls::{Peer, Tls};

/// Who the other side proved to be; empty until the handshake is over, and for ever where it proved nothing.
pub type PeerCell = Arc<OnceLock<Peer>>;

enum State {
    Plain(TcpStream),
    Shaking {
        accept: Box<Accept<TcpStream>>,
        generation: u64,
    },
    Open(Box<TlsStream<TcpStream>>),
    Failed,
}

/// A connection of the listener, plain or encrypted.
pub struct Secured {
    state: State,
    tls: Option<Arc<Tls>>,
    peer: PeerCell,
}

impl std::fmt::Debug for Secured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Secured")
            .field("is_encrypted", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}

impl Secured {
    /// Over an accepted connection; with TLS, by what is in force now.
    #[must_use]
    pub fn new(stream: TcpStream, tls: Option<Arc<Tls>>) -> Self {
        let state = match &tls {
            None => State::Plain(stream),
            Some(tls) => {
                let (config, generation) = tls.in_force();
                State::Shaking {
                    accept: Box::new(TlsAcceptor::from(config).accept(stream)),
                    generation,
                }
            }
        };
        Self {
            state,
            tls,
            peer: PeerCell::default(),
        }
    }

    /// Where the peer will be found.
    #[must_use]
    pub fn peer(&self) -> PeerCell {
        Arc::clone(&self.peer)
    }

    /// Goes on with the handshake until it is over.
    fn shake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let State::Shaking { accept, generation } = &mut self.state else {
            return Poll::Ready(Ok(()));
        };
        let generation = *generation;
        match ready!(Pin::new(accept.as_mut()).poll(cx)) {
            Ok(stream) => {
                if let Some(tls) = &self.tls {
                    tls.note(None);
                }
                let chain = stream.get_ref().1.peer_certificates();
                if let Some(chain) = chain.filter(|chain| !chain.is_empty()) {
                    let Some(peer) = Peer::new(chain, generation) else {
                        self.state = State::Failed;
                        return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
                    };
                    // Set once: a handshake ends once.
                    drop(self.peer.set(peer));
                }
                self.state = State::Open(Box::new(stream));
                Poll::Ready(Ok(()))
            }
            Err(error) => {
                if let Some(tls) = &self.tls {
                    tls.note(Some(&error));
                }
                self.state = State::Failed;
                Poll::Ready(Err(error))
            }
        }
    }
}

fn over() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

impl AsyncRead for Secured {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.shake(cx))?;
        match &mut this.state {
            State::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            State::Open(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
            State::Shaking { .. } | State::Failed => Poll::Ready(Err(over())),
        }
    }
}

impl AsyncWrite for Secured {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.shake(cx))?;
        match &mut this.state {
            State::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            State::Open(stream) => Pin::new(stream.as_mut()).poll_write(cx, bytes),
            State::Shaking { .. } | State::Failed => Poll::Ready(Err(over())),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.shake(cx))?;
        match &mut this.state {
            State::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            State::Open(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, slices),
            State::Shaking { .. } | State::Failed => Poll::Ready(Err(over())),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match &mut this.state {
            State::Plain(stream) => Pin::new(stream).poll_flush(cx),
            State::Open(stream) => Pin::new(stream.as_mut()).poll_flush(cx),
            // Nothing was written that could wait.
            State::Shaking { .. } | State::Failed => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match &mut this.state {
            State::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            State::Open(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
            // The socket is closed when it is dropped.
            State::Shaking { .. } | State::Failed => Poll::Ready(Ok(())),
        }
    }
}
