//! What is sent, and what each answer means.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cloud_integrator::{Delivery, FailureClass, Outcome, Signing, Sink, Subject, WebhookTarget};
use hyper::header::HeaderValue;
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::authority::Authority;
use super::{ID, NAME, client_to, delivery, failure, plain_client, plain_sink, sink_to, target};
use crate::receiver::{self, Answer, OK, Received};

/// Head and body of a request.
pub(super) type Taken = (String, Vec<u8>);

/// An endpoint that keeps what it gets.
pub(super) async fn keeping() -> (SocketAddr, Arc<Mutex<Vec<Taken>>>) {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&kept);
    let script: receiver::Script = Arc::new(move |request: &Received<'_>| {
        keep.lock().unwrap().push((request.head.to_owned(), request.body.to_vec()));
        OK
    });
    (receiver::serve(script).await, kept)
}

pub(super) fn header(taken: &Taken, name: &str) -> Option<String> {
    Received { head: &taken.0, body: &taken.1 }.header(name).map(str::to_owned)
}

/// The second of two events, about another device.
pub(super) fn another() -> Delivery {
    Delivery {
        id: "msg_01GHZX5Q3M0000000000000001".parse().unwrap(),
        subject: Subject { iccid: vocabulary::Iccid::from_u64(42), ..Subject::default() },
        body: b"{\"a\":2}".as_slice().into(),
        ..delivery()
    }
}

async fn answered(answer: &'static str) -> Outcome {
    let script: receiver::Script = Arc::new(move |_: &Received<'_>| Answer { text: answer, ..OK });
    plain_sink(receiver::serve(script).await).deliver(vec![delivery()]).await
}

#[tokio::test]
async fn every_status_has_its_class() {
    for head in ["200 OK", "201 Made", "202 Later", "204 Nothing", "299 Odd"] {
        let answer = format!("HTTP/1.1 {head}\r\ncontent-length: 0\r\n\r\n");
        assert_eq!(answered(answer.leak()).await, Outcome::Delivered, "{head}");
    }
    for (status, class) in [
        (301, FailureClass::Status),
        (302, FailureClass::Status),
        (307, FailureClass::Status),
        (400, FailureClass::Refused),
        (401, FailureClass::Credentials),
        (403, FailureClass::Credentials),
        (404, FailureClass::Status),
        (410, FailureClass::Gone),
        (413, FailureClass::TooLarge),
        (422, FailureClass::Refused),
        (429, FailureClass::Throttled),
        (500, FailureClass::Status),
        (503, FailureClass::Throttled),
        (599, FailureClass::Status),
    ] {
        let text = format!(
            "HTTP/1.1 {status} No\r\nlocation: http://127.0.0.1:1/\r\nretry-after: 7\r\n\
             content-length: 8\r\n\r\nnot here"
        );
        let outcome = answered(text.leak()).await;
        let Outcome::Retry { reason, after } = outcome else { panic!("{status}: {outcome:?}") };
        assert_eq!(reason.class, class, "{status}");
        let waits = class == FailureClass::Throttled;
        assert_eq!(after, waits.then_some(Duration::from_secs(7)), "{status}");
        let answer = reason.answer.unwrap();
        assert_eq!((answer.code, answer.text.as_str()), (status, "not here"));
        assert_eq!(reason.text.contains("redirects are not followed"), status < 400, "{status}");
    }
}

#[tokio::test]
async fn a_redirect_leads_nowhere() {
    let canary = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let text = format!(
        "HTTP/1.1 308 Go\r\nlocation: http://{}/\r\ncontent-length: 0\r\n\r\n",
        canary.local_addr().unwrap()
    );
    let outcome = answered(text.leak()).await;
    assert!(matches!(outcome, Outcome::Retry { .. }));
    let nobody = tokio::time::timeout(Duration::from_millis(200), canary.accept()).await;
    assert!(nobody.is_err(), "the redirect was followed");
}

#[tokio::test]
async fn a_batch_is_an_array_with_an_id_of_its_own_also_for_one_event() {
    let (address, kept) = keeping().await;
    let headers = BTreeMap::from([("x-device".to_owned(), ":iccid:".to_owned())]);
    let url = format!("http://{address}/e?d=:iccid:");
    let target = WebhookTarget { url, headers, ..WebhookTarget::default() };
    let sink = plain_client().webhook(&target, true).unwrap();
    assert_eq!(sink.deliver(vec![another()]).await, Outcome::Delivered);
    for _ in 0..2 {
        assert_eq!(sink.deliver(vec![delivery(), another()]).await, Outcome::Delivered);
    }
    let single = plain_client().webhook(&target, false).unwrap();
    assert_eq!(single.deliver(vec![another()]).await, Outcome::Delivered);
    let kept = kept.lock().unwrap();
    let bodies: Vec<_> = kept.iter().map(|(_, body)| std::str::from_utf8(body).unwrap()).collect();
    let both = "[{\"a\":1},{\"a\":2}]";
    assert_eq!(bodies, ["[{\"a\":2}]", both, both, "{\"a\":2}"]);
    let ids: Vec<_> = kept.iter().map(|taken| header(taken, "webhook-id").unwrap()).collect();
    assert!(ids[..3].iter().all(|id| id.starts_with("bat_")), "{ids:?}");
    assert_eq!(ids[1], ids[2]);
    assert_ne!(ids[0], ids[1]);
    assert_eq!(ids[3], another().id.to_string());
    // What differs between the events of a batch is not known.
    assert!(kept[0].0.starts_with("POST /e?d=0000000000000000042 "), "{}", kept[0].0);
    assert!(kept[1].0.starts_with("POST /e?d=none "), "{}", kept[1].0);
    assert_eq!(header(&kept[1], "x-device").unwrap(), "none");
}

#[tokio::test]
async fn no_event_is_no_request() {
    let (address, kept) = keeping().await;
    let outcome = plain_sink(address).deliver(Vec::new()).await;
    let Outcome::Rejected { reason } = outcome else { panic!("{outcome:?}") };
    assert_eq!(reason.class, FailureClass::Request);
    assert!(kept.lock().unwrap().is_empty());
}

/// An endpoint with HTTP/2 that answers with `header` repeated `count` times; counts connections.
async fn h2_server(authority: &Authority, count: usize) -> (SocketAddr, Arc<AtomicUsize>) {
    let acceptor = TlsAcceptor::from(authority.issue(NAME).server(&[b"h2"]));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::Relaxed);
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = service_fn(move |request: Request<_>| async move {
                    let request: Request<hyper::body::Incoming> = request;
                    assert_eq!(request.version(), Version::HTTP_2);
                    assert_eq!(request.headers()["webhook-id"], ID);
                    assert!(request.headers().contains_key("webhook-signature"));
                    let mut response = Response::new(reqwest::Body::from("thanks"));
                    for _ in 0..count {
                        let value = HeaderValue::from_static("0123456789012345678901234567890");
                        response.headers_mut().append("x-endless", value);
                    }
                    Ok::<_, std::convert::Infallible>(response)
                });
                let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    (address, connections)
}

#[tokio::test]
async fn an_endpoint_with_http_2_gets_its_events_over_one_connection() {
    let authority = Authority::new();
    let (address, connections) = h2_server(&authority, 0).await;
    let target = WebhookTarget { signing: Signing::hmac().unwrap(), ..target(address) };
    let client = client_to(address, &authority.roots()).await;
    let sink = client.webhook(&target, false).unwrap();
    assert_eq!(sink.deliver(vec![delivery()]).await, Outcome::Delivered);
    let all = (0..200).map(|_| sink.deliver(vec![delivery()]));
    for outcome in futures_util::future::join_all(all).await {
        assert_eq!(outcome, Outcome::Delivered);
    }
    assert_eq!(connections.load(Ordering::Relaxed), 1);
    // A second sink of the same client uses it too.
    let other = client.webhook(&target, false).unwrap();
    assert_eq!(other.deliver(vec![delivery()]).await, Outcome::Delivered);
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn endless_headers_over_http_2_are_a_failure() {
    let authority = Authority::new();
    // 4 MB of them, in a few kilobytes by HPACK.
    let (address, _) = h2_server(&authority, 50_000).await;
    let target = WebhookTarget { signing: Signing::hmac().unwrap(), ..target(address) };
    let sink = client_to(address, &authority.roots()).await.webhook(&target, false).unwrap();
    let reason = failure(&sink).await;
    assert_eq!(reason.class, FailureClass::Transport, "{reason}");
}

#[tokio::test]
async fn names_of_http_are_the_urls_and_not_the_addresses() {
    let authority = Authority::new();
    let kept = Arc::new(Mutex::new(String::new()));
    let keep = Arc::clone(&kept);
    let acceptor = TlsAcceptor::from(authority.issue(NAME).server(&[]));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let stream = acceptor.accept(stream).await.unwrap();
        assert_eq!(stream.get_ref().1.server_name(), Some(NAME));
        let script: receiver::Script = Arc::new(move |request: &Received<'_>| {
            *keep.lock().unwrap() = request.head.to_owned();
            OK
        });
        receiver::converse(stream, script).await
    });
    let sink = sink_to(address, &authority.roots()).await;
    assert_eq!(sink.deliver(vec![delivery()]).await, Outcome::Delivered);
    let head = kept.lock().unwrap().clone();
    let host = header(&(head.clone(), Vec::new()), "host");
    assert_eq!(host, Some(format!("{NAME}:{}", address.port())), "{head}");
    let user_agent = header(&(head.clone(), Vec::new()), "user-agent").unwrap();
    assert!(user_agent.starts_with("simgate/"), "{head}");
    assert_eq!(header(&(head, Vec::new()), "accept-encoding"), None);
}
