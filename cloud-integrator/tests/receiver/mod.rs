//! A scripted HTTP receiver for tests and benchmarks: one closure answers every request.
//!
//! Just enough of HTTP/1.1 for what simgate sends: a head, `content-length`, keep-alive.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;

/// A request as it came.
pub(crate) struct Received<'a> {
    /// Request line and headers.
    pub(crate) head: &'a str,
    /// The body.
    pub(crate) body: &'a [u8],
}

/// What the receiver does: it waits, writes the text, and goes on to the next request. Where there
/// is no text, it closes the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    /// How long it waits.
    pub(crate) pause: Duration,
    /// Status line, headers and body.
    pub(crate) text: &'static str,
    /// Written after the text again and again for ever, unless it is empty.
    pub(crate) endless: &'static [u8],
}

/// 200 without a body, at once.
pub(crate) const OK: Answer = Answer {
    pause: Duration::ZERO,
    text: "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    endless: &[],
};

impl Received<'_> {
    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// Decides on one request.
pub(crate) type Script = Arc<dyn Fn(&Received<'_>) -> Answer + Send + Sync>;

/// Listens on loopback and answers by `script` until the runtime ends.
pub(crate) async fn serve(script: Script) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let script = Arc::clone(&script);
            tokio::spawn(async move {
                stream.set_nodelay(true)?;
                converse(stream, script).await
            });
        }
    });
    address
}

/// Answers the requests of one connection.
pub(crate) async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    script: Script,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1_024];
    let mut filled = 0;
    loop {
        let Some((head, total)) = lengths(&buffer[..filled]) else {
            let read = stream.read(&mut buffer[filled..]).await?;
            if read == 0 {
                return Ok(());
            }
            filled += read;
            continue;
        };
        let answer = {
            let text = std::str::from_utf8(&buffer[..head]).expect("heads are ascii");
            script(&Received { head: text, body: &buffer[head..total] })
        };
        buffer.copy_within(total..filled, 0);
        filled -= total;
        if !answer.pause.is_zero() {
            tokio::time::sleep(answer.pause).await;
        }
        if answer.text.is_empty() {
            return Ok(());
        }
        stream.write_all(answer.text.as_bytes()).await?;
        while !answer.endless.is_empty() {
            stream.write_all(answer.endless).await?;
        }
        stream.flush().await?;
    }
}

/// Bytes of the head and of the whole request, once all of it is there.
fn lengths(bytes: &[u8]) -> Option<(usize, usize)> {
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&bytes[..head]).ok()?;
    let body: usize = text.lines().find_map(|line| {
        let value = line.strip_prefix("content-length:").or(line.strip_prefix("Content-Length:"));
        value?.trim().parse().ok()
    })?;
    (bytes.len() >= head + body).then_some((head, head + body))
}
