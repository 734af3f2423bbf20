//! Lines of JSON on standard output, for whoever collects the output of processes.

use std::io::{self, Write};
use std::sync::mpsc;

use async_trait::async_trait;
use tokio::sync::oneshot;

use crate::ports::audit::{AuditRecord, AuditSink, Undelivered};

type Lines = (Vec<u8>, oneshot::Sender<io::Result<()>>);

/// Writes a line for each event. A reader that does not read holds up this sink and nothing else: writing blocks a
/// thread of its own, which no end of the process waits for.
#[derive(Debug)]
pub struct LineSink {
    lines: mpsc::Sender<Lines>,
}

impl LineSink {
    /// Writes to standard output.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn stdout() -> io::Result<Self> {
        Self::to(io::stdout())
    }

    /// Writes to any stream.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn to(mut stream: impl Write + Send + 'static) -> io::Result<Self> {
        let (lines, queue) = mpsc::channel::<Lines>();
        std::thread::Builder::new()
            .name("audit stdout".to_owned())
            .spawn(move || {
                for (lines, done) in queue {
                    let written = stream.write_all(&lines).and_then(|()| stream.flush());
                    // Whoever asked may have ended.
                    done.send(written).ok();
                }
            })?;
        Ok(Self { lines })
    }
}

#[async_trait]
impl AuditSink for LineSink {
    async fn deliver(&self, records: &[AuditRecord]) -> Result<(), Undelivered> {
        let mut lines = Vec::new();
        for record in records {
            lines.extend_from_slice(record.line().as_bytes());
            lines.push(b'\n');
        }
        let (done, written) = oneshot::channel();
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        let outcome = match self.lines.send((lines, done)) {
            Ok(()) => written.await.unwrap_or_else(|_| Err(gone())),
            Err(_) => Err(gone()),
        };
        outcome.map_err(|error| Undelivered {
            acknowledged: 0,
            code: error.kind().to_string().replace(' ', "_"),
            problem: "standard output cannot be written".to_owned(),
            is_refused: false,
            retry_after: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn events_are_lines_with_their_stored_bytes_and_a_closed_pipe_is_told() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let sink = LineSink::to(writer).expect("a thread");
        let record = |sequence: u64| AuditRecord {
            sequence,
            body: "{\"at\": \"now\"}".to_owned(),
        };
        sink.deliver(&[record(1), record(2)])
            .await
            .expect("written");
        let mut text = [0; 100];
        let read = io::Read::read(&mut reader, &mut text).expect("readable");
        assert_eq!(
            std::str::from_utf8(&text[..read]),
            Ok(
                "{\"sequence\":1,\"event\":{\"at\": \"now\"}}\n{\"sequence\":2,\"event\":{\"at\": \"now\"}}\n"
            )
        );
        drop(reader);
        let told = sink.deliver(&[record(3)]).await.expect_err("nobody reads");
        assert_eq!((told.code.as_str(), told.acknowledged), ("broken_pipe", 0));
    }
}
