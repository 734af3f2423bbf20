//! Connections that can be cut: a fault may close one, or put other bytes in its answer's place.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// What the next write on a connection does.
#[derive(Debug)]
enum Mode {
    Open,
    Replace(Bytes),
    Closed,
}

/// Cuts one connection.
#[derive(Debug, Clone)]
pub(crate) struct Cut(Arc<Mutex<Mode>>);

impl Cut {
    /// The next answer on this connection is not written; the connection is closed instead.
    pub(crate) fn close(&self) {
        *self.lock() = Mode::Closed;
    }

    /// These bytes take the place of the next answer; then the connection is closed.
    pub(crate) fn replace(&self, bytes: Bytes) {
        *self.lock() = Mode::Replace(bytes);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Mode> {
        self.0
            .lock()
            .expect("no code panics while it holds a connection's mode")
    }
}

impl Connected<IncomingStream<'_, CuttableListener>> for Cut {
    fn connect_info(stream: IncomingStream<'_, CuttableListener>) -> Self {
        stream.io().cut.clone()
    }
}

/// Accepts connections that can be cut.
pub(crate) struct CuttableListener(pub(crate) TcpListener);

impl Listener for CuttableListener {
    type Io = CuttableStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, address) = Listener::accept(&mut self.0).await;
        // Answers are small and must not wait for each other; it is only slower without.
        drop(stream.set_nodelay(true));
        let cut = Cut(Arc::new(Mutex::new(Mode::Open)));
        (CuttableStream { stream, cut }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

/// A connection that can be cut.
pub(crate) struct CuttableStream {
    stream: TcpStream,
    cut: Cut,
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "cut by a fault")
}

impl AsyncRead for CuttableStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for CuttableStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let mut mode = this.cut.lock();
        loop {
            match &mut *mode {
                Mode::Open => return Pin::new(&mut this.stream).poll_write(context, buffer),
                Mode::Closed => return Poll::Ready(Err(closed())),
                Mode::Replace(bytes) if bytes.is_empty() => *mode = Mode::Closed,
                Mode::Replace(bytes) => {
                    match Pin::new(&mut this.stream).poll_write(context, bytes) {
                        Poll::Ready(Ok(written)) => drop(bytes.split_to(written)),
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Pending => return Poll::Pending,
                    }
                }
            }
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
