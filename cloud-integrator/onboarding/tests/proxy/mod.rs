//! Stands between onboarding and AWS, and loses one answer.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// Passes requests on. The answer to one of them is lost: AWS has done what was asked for, and
/// nobody hears of it.
#[derive(Clone)]
pub(crate) struct Proxy {
    /// In front of AWS.
    pub(crate) url: String,
    count: Arc<AtomicUsize>,
    lost: Arc<Notify>,
}

impl Proxy {
    /// In front of `behind`, an URL without a path. Loses the answer number `loses`, from 0.
    pub(crate) async fn start(behind: &str, loses: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let behind: SocketAddr = behind.strip_prefix("http://").unwrap().parse().unwrap();
        let proxy = Self { url, count: Arc::default(), lost: Arc::default() };
        let shared = proxy.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(shared.clone().converse(stream, behind, loses));
            }
        });
        proxy
    }

    /// Requests so far.
    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Resolves when the answer is lost.
    pub(crate) async fn lost(&self) {
        self.lost.notified().await;
    }

    /// One request for each connection: the server behind closes it after its answer.
    async fn converse(
        self,
        mut stream: TcpStream,
        behind: SocketAddr,
        loses: usize,
    ) -> io::Result<()> {
        let request = request(&mut stream).await?;
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let mut server = TcpStream::connect(behind).await?;
        server.write_all(&request).await?;
        let mut answer = Vec::new();
        server.read_to_end(&mut answer).await?;
        if number == loses {
            self.lost.notify_one();
            // The connection stays open: the other side waits until it is ended.
            std::future::pending::<()>().await;
        }
        stream.write_all(&answer).await
    }
}

/// The address of an AWS that refuses everything: the role may not do it.
pub(crate) async fn refusing() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                request(&mut stream).await?;
                let answer = "HTTP/1.1 403 Forbidden\r\nx-amzn-errortype: ForbiddenException\r\n\
                              connection: close\r\ncontent-length: 0\r\n\r\n";
                stream.write_all(answer.as_bytes()).await
            });
        }
    });
    url
}

async fn request(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut request = Vec::new();
    while !is_whole(&request) {
        if stream.read_buf(&mut request).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(request)
}

fn is_whole(bytes: &[u8]) -> bool {
    let Some(head) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return false;
    };
    let text = std::str::from_utf8(&bytes[..head]).unwrap().to_ascii_lowercase();
    let length = |line: &str| line.strip_prefix("content-length:")?.trim().parse().ok();
    let body: usize = text.lines().find_map(length).unwrap_or(0);
    bytes.len() >= head + 4 + body
}
