//! Endpoints that are broken, slow or hostile: each has its class of failure, costs bounded time
//! and memory, and is never met with weaker TLS.

use std::future::Future;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cloud_integrator::{FailureClass, Outcome, Sink};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::authority::{Authority, Issued};
use super::{NAME, delivery, failure, plain_sink, sink_to};
use crate::receiver::{self, OK, Received};

/// What a slow machine may take beyond a limit.
const SLACK: Duration = Duration::from_secs(20);

/// Listens on loopback and gives each connection to `serve`.
async fn listen<F>(serve: impl Fn(TcpStream) -> F + Send + Sync + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// Reads what comes first, which is a whole request.
async fn read_request(stream: &mut TcpStream) {
    let _ = stream.read(&mut [0; 16_384]).await;
}

/// An endpoint that answers 200, with TLS.
async fn tls_server(issued: &Issued) -> SocketAddr {
    let acceptor = TlsAcceptor::from(issued.server(&[]));
    listen(move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let script: receiver::Script = Arc::new(|_: &Received<'_>| OK);
            let _ = receiver::converse(stream, script).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_certificate_must_be_valid_today_for_the_name_and_by_a_known_authority() {
    let authority = Authority::new();
    let says = async |issued: Issued, roots: Vec<Vec<u8>>| {
        let address = tls_server(&issued).await;
        let reason = failure(&sink_to(address, &roots).await).await;
        assert_eq!(reason.class, FailureClass::Tls, "{reason}");
        reason.text
    };
    assert_eq!(
        says(authority.issue_until(NAME, 2_021), authority.roots()).await,
        "the certificate has expired on 2021-01-01T00:00:00Z"
    );
    assert_eq!(
        says(authority.issue("other.example"), authority.roots()).await,
        "the certificate is for other.example, not hook.example"
    );
    assert_eq!(
        says(Authority::new().issue(NAME), authority.roots()).await,
        "the certificate is self-signed or of an unknown authority"
    );
    let good = tls_server(&authority.issue(NAME)).await;
    let sink = sink_to(good, &authority.roots()).await;
    assert_eq!(sink.deliver(vec![delivery()]).await, Outcome::Delivered);
}

/// A program that ends with its test.
pub(super) struct Running(pub(super) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `openssl s_server` at a port of its own.
pub(super) fn openssl_server(
    folder: &std::path::Path,
    issued: &Issued,
    arguments: &[&str],
) -> (Running, u16) {
    let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
    std::fs::write(&certificate, issued.pem()).unwrap();
    std::fs::write(&key, issued.key_pem()).unwrap();
    let mut child = Command::new("openssl")
        .args(["s_server", "-accept", "127.0.0.1:0"])
        .arg("-cert")
        .arg(&certificate)
        .arg("-key")
        .arg(&key)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl is installed");
    let output = BufReader::new(child.stdout.take().unwrap());
    let running = Running(child);
    let port = output
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("ACCEPT ")?.rsplit(':').next()?.trim().parse().ok());
    (running, port.expect("openssl says where it listens"))
}

#[tokio::test]
async fn tls_older_than_1_2_is_not_spoken() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    let old = ["-tls1_1", "-cipher", "ALL:@SECLEVEL=0"];
    let (_server, port) = openssl_server(folder.path(), &authority.issue(NAME), &old);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let reason = failure(&sink_to(address, &authority.roots()).await).await;
    assert_eq!(reason.class, FailureClass::Tls, "{reason}");
    assert!(reason.text.contains("tls"), "{reason}");
}

#[tokio::test]
async fn an_endpoint_without_tls_is_told_from_one_that_is_not_there() {
    let http = listen(|mut stream| async move {
        read_request(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    })
    .await;
    let reason = failure(&sink_to(http, &[]).await).await;
    assert_eq!(reason.to_string(), "tls: the endpoint does not speak tls");
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let reason = failure(&sink_to(nobody, &[]).await).await;
    assert_eq!(reason.class, FailureClass::Connect, "{reason}");
    assert!(!reason.text.contains("events"), "the path is a secret: {reason}");
}

/// All of them at once, so that the test takes the longest limit and not the sum.
#[tokio::test]
async fn what_is_slow_ends_at_its_limit() {
    let stalled = listen(|mut stream| async move {
        read_request(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let dripping = listen(|mut stream| async move {
        read_request(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
        drip(&mut stream, b"x-slow: and slower\r\n").await;
    })
    .await;
    let mute = listen(|mut stream| async move {
        read_request(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let timed = async |sink: cloud_integrator::WebhookSink| {
        let start = Instant::now();
        (failure(&sink).await, start.elapsed())
    };
    let ((tls, tls_took), (headers, headers_took), (silence, silence_took)) = tokio::join!(
        timed(sink_to(stalled, &[]).await),
        timed(plain_sink(dripping)),
        timed(plain_sink(mute)),
    );
    assert_eq!(tls.to_string(), "connect: no connection within 5 s, tls included");
    assert!(tls_took < Duration::from_secs(5) + SLACK, "{tls_took:?}");
    for (reason, took) in [(headers, headers_took), (silence, silence_took)] {
        assert_eq!(reason.to_string(), "timeout: no complete answer within 20 s");
        assert!(took < Duration::from_secs(20) + SLACK, "{took:?}");
    }
}

/// Writes a byte each second, again and again.
async fn drip(stream: &mut TcpStream, bytes: &[u8]) {
    for byte in bytes.iter().cycle() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        if stream.write_all(&[*byte]).await.is_err() {
            return;
        }
    }
}

/// The headers have said all; a body that drips held up its device for 20 s.
#[tokio::test]
async fn a_body_that_drips_changes_nothing() {
    let dripping = |status: &'static str| {
        listen(move |mut stream| async move {
            read_request(&mut stream).await;
            let head = format!("HTTP/1.1 {status}\r\ncontent-length: 999\r\n\r\nno su");
            let _ = stream.write_all(head.as_bytes()).await;
            drip(&mut stream, b"ch device ").await;
        })
    };
    let start = Instant::now();
    let taken = plain_sink(dripping("200 OK").await);
    assert_eq!(taken.deliver(vec![delivery()]).await, Outcome::Delivered);
    let reason = failure(&plain_sink(dripping("404 No").await)).await;
    assert_eq!(reason.class, FailureClass::Status);
    let answer = reason.answer.unwrap();
    assert_eq!(answer.code, 404);
    assert!(answer.text.starts_with("no su"), "{}", answer.text);
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}

/// Writes `chunk` again and again and counts what the other side took.
async fn flood(mut stream: TcpStream, head: &'static [u8], chunk: &[u8], taken: &AtomicUsize) {
    read_request(&mut stream).await;
    let _ = stream.write_all(head).await;
    // Ten gigabytes.
    for _ in 0..10_000_000_000 / chunk.len() {
        if stream.write_all(chunk).await.is_err() {
            return;
        }
        taken.fetch_add(chunk.len(), Ordering::Relaxed);
    }
}

#[tokio::test]
async fn ten_gigabytes_of_answer_are_not_read() {
    // What the buffers of both sockets may hold.
    const BUFFERED_MAX: usize = 64 << 20;
    let body: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 10000000000\r\n\r\n";
    let failed: &[u8] = b"HTTP/1.1 500 No\r\ncontent-length: 10000000000\r\n\r\n";
    let headers: &[u8] = b"HTTP/1.1 200 OK\r\n";
    let line: &[u8] = b"x-endless: 0123456789012345678901234567890123456789\r\n";
    let value: &[u8] = &[b'x'; 4_096];
    for (head, chunk) in [(body, value), (failed, value), (headers, line), (headers, value)] {
        let taken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&taken);
        let address = listen(move |stream| {
            let count = Arc::clone(&count);
            async move { flood(stream, head, chunk, &count).await }
        })
        .await;
        match plain_sink(address).deliver(vec![delivery()]).await {
            Outcome::Delivered => assert_eq!(head, body),
            Outcome::Retry { reason, .. } => match reason.answer {
                Some(answer) => assert_eq!((head, answer.text.len()), (failed, 1_024)),
                None => assert_eq!((head, reason.class), (headers, FailureClass::Transport)),
            },
            other @ Outcome::Rejected { .. } => panic!("{other:?}"),
        }
        assert!(taken.load(Ordering::Relaxed) < BUFFERED_MAX);
    }
}

/// 20 MB of zeros as gzip, some 20 kB: nothing of it is decompressed.
#[tokio::test]
async fn a_gzip_bomb_stays_what_it_is() {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&vec![b'0'; 20 << 20]).unwrap();
    let bomb: Arc<[u8]> = encoder.finish().unwrap().into();
    let address = listen(move |mut stream| {
        let bomb = Arc::clone(&bomb);
        async move {
            read_request(&mut stream).await;
            let head = format!(
                "HTTP/1.1 500 No\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n",
                bomb.len()
            );
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.write_all(&bomb).await;
        }
    })
    .await;
    let answer = failure(&plain_sink(address)).await.answer.unwrap();
    assert!(answer.text.chars().count() <= 1_024 && !answer.text.contains("0000000000"));
}

#[tokio::test]
async fn a_connection_that_breaks_is_a_failure_of_its_own_class() {
    let reset = listen(|mut stream| async move {
        read_request(&mut stream).await;
        // Closed with data unread, which TCP answers with a reset.
        stream.set_zero_linger().unwrap();
    })
    .await;
    let half = listen(|mut stream| async move {
        read_request(&mut stream).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nconte").await;
    })
    .await;
    let odd = listen(|mut stream| async move {
        read_request(&mut stream).await;
        let _ = stream.write_all(b"220 mail.example ESMTP\r\n").await;
    })
    .await;
    for address in [reset, half, odd] {
        let reason = failure(&plain_sink(address)).await;
        assert_eq!(reason.class, FailureClass::Transport, "{reason}");
    }
}
