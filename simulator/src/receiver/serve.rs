//! The receiver's connections: TLS or not, HTTP/1.1 or HTTP/2, and the answers.

use std::convert::Infallible;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::{BODY_BYTES_MAX, Behaviour, Shared};

/// Serves until it is dropped, which ends all connections.
pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>, tls: Option<TlsAcceptor>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                shared.note_connection();
                connections.spawn(serve(stream, Arc::clone(&shared), tls.clone()));
            }
            // Out of file descriptors, most likely: some will be free soon.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>, tls: Option<TlsAcceptor>) {
    // Answers are small; without this the kernel would hold them back for 40 ms at times.
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else { return converse(stream, shared, false).await };
    // A handshake that fails is the client's to notice.
    let Ok(stream) = tls.accept(stream).await else { return };
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    converse(stream, shared, is_http2).await;
}

async fn converse<S>(stream: S, shared: Arc<Shared>, is_http2: bool)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = TokioIo::new(stream);
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { answer(request, &shared).await }
    });
    // A connection that breaks, or is dropped on purpose, is the client's to notice.
    let _ = if is_http2 {
        http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service).await
    } else {
        http1::Builder::new()
            .header_read_timeout(None)
            .pipeline_flush(true)
            .serve_connection(stream, service)
            .await
    };
}

/// The connection is to be closed without an answer.
#[derive(Debug)]
struct Dropped;

impl fmt::Display for Dropped {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("dropped by the script")
    }
}

impl std::error::Error for Dropped {}

async fn answer(request: Request<Incoming>, shared: &Shared) -> Result<Response<Empty>, Dropped> {
    let (head, body) = request.into_parts();
    let body = match read_body(body).await {
        Ok(Some(body)) => body,
        Ok(None) => return Ok(respond(StatusCode::PAYLOAD_TOO_LARGE.as_u16())),
        Err(_) => return Err(Dropped),
    };
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    match shared.note(path, head.headers, body) {
        Behaviour::Answer(status) => Ok(respond(status)),
        Behaviour::AnswerAfter(status, delay) => {
            tokio::time::sleep(delay).await;
            Ok(respond(status))
        }
        // Of `Fail` a script tells only what it comes to.
        Behaviour::Drop | Behaviour::Fail { .. } => Err(Dropped),
    }
}

fn respond(status: u16) -> Response<Empty> {
    let mut response = Response::new(Empty);
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}

/// The whole body; `None` where it is too long.
async fn read_body(mut body: Incoming) -> Result<Option<Bytes>, hyper::Error> {
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let Ok(data) = frame?.into_data() else { continue };
        if first.len() + whole.len() + data.len() > BODY_BYTES_MAX {
            return Ok(None);
        }
        // A body that came in one piece is not copied.
        if first.is_empty() && whole.is_empty() {
            first = data;
            continue;
        }
        whole.extend_from_slice(&std::mem::take(&mut first));
        whole.extend_from_slice(&data);
    }
    Ok(Some(if whole.is_empty() { first } else { whole.freeze() }))
}

/// A body of nothing.
struct Empty;

impl Body for Empty {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        true
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        hyper::body::SizeHint::with_exact(0)
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::io::Write;

    use hyper::client::conn;
    use tokio_rustls::TlsConnector;
    use tokio_rustls::client::TlsStream;
    use tokio_rustls::rustls::pki_types::pem::PemObject;
    use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
    use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

    use super::super::{Receiver, ReceiverOptions, ServerIdentity};
    use super::*;

    type Outcome<T> = Result<T, Box<dyn Error>>;

    /// A receiver with TLS and a ledger, and the certificate to be trusted.
    fn receiver() -> (Receiver, String) {
        let (identity, authority) = ServerIdentity::self_made().unwrap();
        let identity = Some(identity);
        let options = ReceiverOptions { identity, ledger: true, ..ReceiverOptions::default() };
        (Receiver::start(options).unwrap(), authority)
    }

    async fn connect(
        receiver: &Receiver,
        authority: &str,
        protocol: &str,
    ) -> Outcome<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.as_bytes())?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let stream = TcpStream::connect(receiver.address()).await?;
        let name = ServerName::try_from("127.0.0.1")?;
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol.as_bytes()));
        Ok(stream)
    }

    fn request(id: u32) -> Request<String> {
        Request::post("https://127.0.0.1/hook").body(format!(r#"{{"id":"{id}"}}"#)).unwrap()
    }

    #[tokio::test]
    async fn a_receiver_without_http2_speaks_http1() {
        let (identity, authority) = ServerIdentity::self_made().unwrap();
        let identity = Some(identity.without_http2());
        let options = ReceiverOptions { identity, ..ReceiverOptions::default() };
        let receiver = Receiver::start(options).unwrap();
        assert!(connect(&receiver, &authority, "h2").await.is_err());
        assert!(connect(&receiver, &authority, "http/1.1").await.is_ok());
    }

    #[tokio::test]
    async fn http1_over_tls_is_answered() {
        let (receiver, authority) = receiver();
        let stream = TokioIo::new(connect(&receiver, &authority, "http/1.1").await.unwrap());
        let (mut sender, connection) = conn::http1::handshake(stream).await.unwrap();
        let connection = tokio::spawn(connection);
        for id in 0..3 {
            let answer = sender.send_request(request(id)).await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK);
        }
        connection.abort();
        assert_eq!(receiver.tallies()["/hook"].distinct, 3);
        assert!(receiver.url().starts_with("https://127.0.0.1:"));
    }

    #[tokio::test]
    async fn http2_over_tls_is_answered_and_only_dropped_streams_fail() {
        let (receiver, authority) = receiver();
        let stream = TokioIo::new(connect(&receiver, &authority, "h2").await.unwrap());
        let (mut sender, connection) =
            conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
        let connection = tokio::spawn(connection);
        receiver.script([Behaviour::Answer(503), Behaviour::Drop]);
        let answer = sender.send_request(request(1)).await.unwrap();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(sender.send_request(request(1)).await.is_err());
        let answers: Vec<_> = (2..12).map(|id| sender.send_request(request(id))).collect();
        for answer in answers {
            assert_eq!(answer.await.unwrap().status(), StatusCode::OK);
        }
        connection.abort();
        let counts = receiver.counts();
        assert_eq!((counts.connections, counts.requests, counts.events), (1, 12, 10));
    }

    #[tokio::test]
    async fn who_does_not_trust_the_authority_gets_no_connection_and_disturbs_nobody() {
        let (receiver, authority) = receiver();
        let (_, other) = ServerIdentity::self_made().unwrap();
        let error = connect(&receiver, &other, "http/1.1").await.unwrap_err();
        assert!(error.to_string().contains("certificate"), "{error}");
        let mut plain = std::net::TcpStream::connect(receiver.address()).unwrap();
        plain.write_all(b"POST / HTTP/1.1\r\n\r\n").unwrap();
        connect(&receiver, &authority, "http/1.1").await.unwrap();
    }
}
