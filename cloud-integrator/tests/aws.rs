//! The sink for AWS IoT Core: against `moto_server`, a foreign implementation of AWS, and against
//! a scripted receiver that answers as AWS does when something is wrong.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::moto::Moto;
use crate::receiver::{self, Answer, OK, Received};
use bytes::Bytes;
use cloud_integrator::{
    AWS_PAYLOAD_BYTES_MAX, AwsAccess, AwsKeys, AwsOptions, AwsSink, AwsTarget, AwsTransport,
    Delivery, EventType, FailureClass, InvalidAws, NetworkPolicy, Outcome, Resolver, Sink, Subject,
};
use vocabulary::{EventId, Protocol};
use zeroize::Zeroizing;

const ID: &str = "1-6393505d-00008489fb9c791fcddd43f0";
const ROLE: &str = "arn:aws:iam::123456789012:role/simgate";

fn event(body: &str) -> Delivery {
    Delivery {
        id: ID.parse::<EventId>().unwrap(),
        event_type: EventType::TelemetryData,
        subject: Subject { iccid: "8988280666000002864".parse().ok(), ..Subject::default() },
        source: Some(Protocol::Udp),
        topic: None,
        body: Bytes::copy_from_slice(body.as_bytes()),
    }
}

fn keys() -> AwsKeys {
    AwsKeys {
        access_key_id: "AKIAEXAMPLE".to_owned(),
        secret_access_key: Zeroizing::new("the-secret".to_owned()),
        session_token: None,
    }
}

fn access(sts_endpoint: Option<String>) -> AwsAccess {
    let policy = NetworkPolicy { allow_http_loopback: true, ..NetworkPolicy::default() };
    AwsAccess::new(AwsOptions { keys: Some(keys()), sts_endpoint }, Resolver::new(policy)).unwrap()
}

fn target(endpoint: &str, role_arn: Option<&str>) -> AwsTarget {
    let external_id = role_arn.map(|_| "the-external-id".to_owned());
    AwsTarget {
        region: "eu-central-1".to_owned(),
        endpoint: Some(endpoint.to_owned()),
        transport: AwsTransport::Sdk { role_arn: role_arn.map(ToOwned::to_owned), external_id },
        ..AwsTarget::default()
    }
}

/// A sink without a role.
fn sink(endpoint: &str) -> AwsSink {
    AwsSink::new(&access(None), &target(endpoint, None)).unwrap()
}

/// A sink that assumes a role at the same address.
fn sink_with_role(endpoint: &str) -> AwsSink {
    AwsSink::new(&access(Some(endpoint.to_owned())), &target(endpoint, Some(ROLE))).unwrap()
}

fn answer(status: &str, code: &str, body: &str) -> Answer {
    let length = body.len();
    let text = format!(
        "HTTP/1.1 {status}\r\nx-amzn-errortype: {code}\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    );
    Answer { text: text.leak(), ..OK }
}

/// As STS answers.
fn session(number: usize) -> Answer {
    let body = format!(
        "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
         <AssumeRoleResult><AssumedRoleUser><AssumedRoleId>A:simgate</AssumedRoleId>\
         <Arn>arn:aws:sts::123456789012:assumed-role/simgate/simgate</Arn></AssumedRoleUser>\
         <Credentials><AccessKeyId>ASIA{number}</AccessKeyId><SecretAccessKey>s{number}\
         </SecretAccessKey><SessionToken>t{number}</SessionToken>\
         <Expiration>2200-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult>\
         </AssumeRoleResponse>"
    );
    answer("200 OK", "", &body)
}

fn is_sts(request: &Received<'_>) -> bool {
    std::str::from_utf8(request.body).is_ok_and(|body| body.contains("Action=AssumeRole"))
}

async fn serve(script: impl Fn(&Received<'_>) -> Answer + Send + Sync + 'static) -> String {
    let address: SocketAddr = receiver::serve(Arc::new(script)).await;
    format!("http://{address}")
}

/// A server that answers whatever comes with plain text.
async fn speaks_no_tls() -> SocketAddr {
    use tokio::io::AsyncWriteExt as _;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.write_all(b"220 how do you do\r\n").await?;
        }
        std::io::Result::Ok(())
    });
    address
}

fn failed(outcome: Outcome) -> (FailureClass, String, bool) {
    match outcome {
        Outcome::Retry { reason, .. } => (reason.class, reason.text, true),
        Outcome::Rejected { reason } => (reason.class, reason.text, false),
        Outcome::Delivered => panic!("it was delivered"),
    }
}

#[tokio::test]
async fn moto_takes_events_with_keys_and_with_a_role() {
    let moto = Moto::start();
    assert_eq!(sink(&moto.url).deliver(vec![event("{}")]).await, Outcome::Delivered);
    let assuming = sink_with_role(&moto.url);
    for _ in 0..3 {
        assert_eq!(assuming.deliver(vec![event("{}")]).await, Outcome::Delivered);
    }
}

#[tokio::test]
async fn an_event_is_published_at_least_once_to_its_topic_with_its_id() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    let url = serve(move |request| {
        let body = String::from_utf8(request.body.to_vec()).unwrap();
        noted.lock().unwrap().push((request.head.to_owned(), body));
        OK
    })
    .await;
    let outcome = sink(&url).deliver(vec![event(r#"{"a":1}"#), event(r#"{"a":2}"#)]).await;
    assert_eq!(outcome, Outcome::Delivered);
    let seen = seen.lock().unwrap();
    let bodies: Vec<&str> = seen.iter().map(|(_, body)| body.as_str()).collect();
    assert_eq!(bodies, [r#"{"a":1}"#, r#"{"a":2}"#]);
    let request = Received { head: &seen[0].0, body: b"" };
    let line = request.head.lines().next().unwrap();
    let path = "/topics/8988280666000002864%2Fmessages";
    let query = "qos=1&contentType=application%2Fjson";
    assert_eq!(line, format!("POST {path}?{query} HTTP/1.1"));
    let properties = request.header("x-amz-mqtt5-user-properties").unwrap();
    use base64::Engine as _;
    let properties = base64::engine::general_purpose::STANDARD.decode(properties).unwrap();
    assert_eq!(
        String::from_utf8(properties).unwrap(),
        format!(r#"[{{"webhook-id":"{}"}}]"#, event("").id)
    );
    let signature = request.header("authorization").unwrap();
    assert!(signature.contains("AKIAEXAMPLE"), "{signature}");
    assert!(signature.contains("/eu-central-1/iotdata/aws4_request"), "{signature}");
    assert!(!request.head.contains("the-secret"));
}

#[tokio::test]
async fn a_refusal_of_aws_tells_who_has_to_act_and_is_tried_once() {
    use FailureClass::{Credentials, Refused, Status, Throttled, TooLarge};
    let message = |text: &str| format!(r#"{{"message":"{text}","traceId":"7a1c"}}"#);
    let cases = [
        ("403 Forbidden", "ForbiddenException", "Forbidden", Credentials, "access is denied"),
        (
            "403 Forbidden",
            "ExpiredTokenException",
            "The security token included in the request is expired",
            Credentials,
            "have expired",
        ),
        (
            "403 Forbidden",
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
            Credentials,
            "does not know the access key",
        ),
        (
            "403 Forbidden",
            "InvalidSignatureException",
            "Signature expired: 20260101T000000Z is now earlier than 20260101T000500Z",
            Credentials,
            "the clocks",
        ),
        (
            "429 Too Many Requests",
            "ThrottlingException",
            "Rate exceeded",
            Throttled,
            "fewer requests",
        ),
        ("413 Too Large", "RequestEntityTooLargeException", "", TooLarge, "larger"),
        ("400 Bad Request", "InvalidRequestException", "Invalid topic", Refused, "not take"),
        ("404 Not Found", "ResourceNotFoundException", "", Status, "region or endpoint"),
        ("500 Oops", "InternalFailureException", "", Status, "failed"),
        ("302 Found", "", "", Status, "failed"),
    ];
    for (status, code, text, class, advice) in cases {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        let refusal = answer(status, code, &message(text));
        let url = serve(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            refusal
        })
        .await;
        let outcome = sink(&url).deliver(vec![event("{}")]).await;
        let Outcome::Retry { reason, after: None } = outcome else { panic!("{outcome:?}") };
        assert_eq!(reason.class, class, "{code}: {reason}");
        assert!(reason.text.contains(advice), "{code}: {reason}");
        let answered = reason.answer.clone().unwrap();
        assert_eq!(status.split(' ').next(), Some(answered.code.to_string().as_str()));
        // Of what it would have signed nothing is kept: the token of the session is in it.
        let is_shown = code != "InvalidSignatureException";
        assert_eq!(answered.text.contains(text), is_shown || text.is_empty(), "{answered:?}");
        assert_eq!(reason.text.contains(text), is_shown || text.is_empty(), "{reason}");
        assert_eq!(count.load(Ordering::Relaxed), 1, "{code}: the sdk tried again by itself");
    }
}

#[tokio::test]
async fn a_wait_that_aws_asks_for_is_passed_on() {
    let url = serve(|_| Answer {
        text: "HTTP/1.1 503 Slow Down\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n",
        ..OK
    })
    .await;
    let outcome = sink(&url).deliver(vec![event("{}")]).await;
    let Outcome::Retry { reason, after } = outcome else { panic!("{outcome:?}") };
    assert_eq!((reason.class, after), (FailureClass::Throttled, Some(Duration::from_secs(7))));
}

#[tokio::test]
async fn what_aws_cannot_take_is_not_sent() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let url = serve(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        OK
    })
    .await;
    let sink = sink(&url);
    let too_large = event(&"x".repeat(AWS_PAYLOAD_BYTES_MAX + 1));
    let (class, text, again) = failed(sink.deliver(vec![too_large.clone()]).await);
    assert_eq!((class, again), (FailureClass::TooLarge, false), "{text}");
    // The other event of the batch is not lost with it, and not sent before it is known alone.
    let (class, text, again) = failed(sink.deliver(vec![event("{}"), too_large]).await);
    assert_eq!((class, again), (FailureClass::TooLarge, true), "{text}");
    let mut wild = event("{}");
    (wild.source, wild.topic) = (Some(Protocol::Coap), Some("a/b/c/d/e/f/g/h".into()));
    let (class, text, again) = failed(sink.deliver(vec![wild]).await);
    assert_eq!((class, again), (FailureClass::Request, false), "{text}");
    assert!(text.contains("8 slashes"), "{text}");
    assert_eq!(count.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn credentials_that_end_in_the_middle_are_asked_for_again() {
    let sessions = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sessions);
    let url = serve(move |request| {
        if is_sts(request) {
            let body = std::str::from_utf8(request.body).unwrap();
            assert!(body.contains("ExternalId=the-external-id"), "{body}");
            assert!(body.contains("RoleSessionName=simgate"), "{body}");
            return session(counted.fetch_add(1, Ordering::Relaxed));
        }
        match request.header("x-amz-security-token") {
            Some("t0") => answer("403 Forbidden", "ExpiredTokenException", "{}"),
            _ => OK,
        }
    })
    .await;
    let sink = sink_with_role(&url);
    let (class, text, again) = failed(sink.deliver(vec![event("{}")]).await);
    assert_eq!((class, again), (FailureClass::Credentials, true), "{text}");
    for _ in 0..5 {
        assert_eq!(sink.deliver(vec![event("{}")]).await, Outcome::Delivered);
    }
    assert_eq!(sessions.load(Ordering::Relaxed), 2, "a session serves many events");
}

/// Each refusal threw the client away that all events share, and with it the session of the role:
/// a role that may not publish to one topic was assumed anew for each event of all topics.
#[tokio::test]
async fn a_refused_event_does_not_end_the_session_of_the_others() {
    let sessions = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sessions);
    let url = serve(move |request| {
        if is_sts(request) {
            return session(counted.fetch_add(1, Ordering::Relaxed));
        }
        match request.body {
            b"{}" => OK,
            b"bare" => answer("403 Forbidden", "", "{}"),
            _ => answer("403 Forbidden", "ForbiddenException", "{}"),
        }
    })
    .await;
    let sink = sink_with_role(&url);
    for _ in 0..3 {
        for refused in ["bare", "named"] {
            let (class, text, _) = failed(sink.deliver(vec![event(refused)]).await);
            assert_eq!(class, FailureClass::Credentials, "{text}");
        }
        assert_eq!(sink.deliver(vec![event("{}")]).await, Outcome::Delivered);
    }
    assert_eq!(sessions.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_role_that_cannot_be_assumed_is_said_so() {
    let url = serve(|_| {
        let text = "User: arn:aws:iam::1:user/gateway is not authorized to perform: sts:AssumeRole";
        let body = format!(
            "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error>\
             <Type>Sender</Type><Code>AccessDenied</Code><Message>{text}</Message></Error>\
             <RequestId>1</RequestId></ErrorResponse>"
        );
        answer("403 Forbidden", "", &body)
    })
    .await;
    let (class, text, again) = failed(sink_with_role(&url).deliver(vec![event("{}")]).await);
    assert_eq!((class, again), (FailureClass::Credentials, true));
    assert!(text.starts_with("the role cannot be assumed: AccessDenied: User: arn:"), "{text}");
}

#[tokio::test]
async fn what_is_between_gateway_and_aws_has_classes_of_its_own() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (class, text, _) =
        failed(sink(&format!("http://{nobody}")).deliver(vec![event("{}")]).await);
    assert_eq!(class, FailureClass::Connect, "{text}");
    // STS that is not there is no question of credentials.
    let assuming = sink_with_role(&format!("http://{nobody}"));
    let (class, text, _) = failed(assuming.deliver(vec![event("{}")]).await);
    assert_eq!(class, FailureClass::Connect, "{text}");
    let url = serve(|_| Answer { text: "", ..OK }).await;
    let (class, text, _) = failed(sink(&url).deliver(vec![event("{}")]).await);
    assert_eq!(class, FailureClass::Transport, "{text}");
    let url = format!("https://{}", speaks_no_tls().await);
    let (class, text, _) = failed(sink(&url).deliver(vec![event("{}")]).await);
    assert_eq!(class, FailureClass::Tls, "{text}");
}

#[tokio::test]
async fn an_endless_answer_takes_bounded_memory_and_is_no_success() {
    let url = serve(|_| Answer {
        text: "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        endless: b"8\r\nmore....\r\n",
        ..OK
    })
    .await;
    let (class, text, again) = failed(sink(&url).deliver(vec![event("{}")]).await);
    assert_eq!((class, again), (FailureClass::Transport, true), "{text}");
    assert!(text.contains("longer than"), "{text}");
}

/// A name server by UDP that says of every name that it is this machine.
async fn names_this_machine() -> SocketAddr {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        loop {
            let (length, from) = socket.recv_from(&mut buffer).await?;
            // RFC 1035 §4.1: a question ends at its root label, then type and class.
            let end = 12 + buffer[12..length].iter().position(|byte| *byte == 0).unwrap() + 5;
            let is_a = buffer[end - 3] == 1;
            let mut answer = buffer[..end].to_vec();
            answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
            if is_a {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 127, 0, 0, 1]);
            }
            socket.send_to(&answer, from).await?;
        }
        #[expect(unreachable_code, reason = "it says what the errors above are")]
        std::io::Result::Ok(())
    });
    address
}

/// A name that was harmless when it was configured leads to this machine later.
#[tokio::test]
async fn an_endpoint_that_moves_inside_is_not_reached() {
    let policy =
        NetworkPolicy { dns_servers: vec![names_this_machine().await], ..NetworkPolicy::default() };
    let options = AwsOptions { keys: Some(keys()), ..AwsOptions::default() };
    let access = AwsAccess::new(options, Resolver::new(policy)).unwrap();
    let host = "data-ats.iot.eu-central-1.amazonaws.com";
    let sink = AwsSink::new(&access, &target(host, None)).unwrap();
    let (class, text, again) = failed(sink.deliver(vec![event("{}")]).await);
    assert_eq!((class, again), (FailureClass::Blocked, true), "{text}");
    assert!(text.contains(host), "{text}");
}

#[test]
fn a_target_that_cannot_be_one_is_refused_at_once() {
    let access = access(None);
    let made = |target: &AwsTarget| AwsSink::new(&access, target).err();
    let good = target("http://127.0.0.1:9", Some(ROLE));
    assert_eq!(made(&good), None);
    let empty = AwsTarget { region: String::new(), ..good.clone() };
    assert!(matches!(made(&empty), Some(InvalidAws::Region(_))));
    let inside = AwsTarget { endpoint: Some("http://10.0.0.1".to_owned()), ..good.clone() };
    assert!(matches!(made(&inside), Some(InvalidAws::Endpoint(_))));
    let foreign = AwsTarget { endpoint: Some("iot.example.com".to_owned()), ..good.clone() };
    assert!(matches!(made(&foreign), Some(InvalidAws::Foreign { .. })));
    let transport = AwsTransport::Mqtt { tls: Default::default(), port: 8883, connections: 1 };
    assert_eq!(made(&AwsTarget { transport, ..good }), Some(InvalidAws::Transport));
}
