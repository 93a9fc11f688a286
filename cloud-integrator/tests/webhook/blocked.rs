//! No URL of a customer leads where the gateway must not go, however it is spelled and whenever
//! its name changes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cloud_integrator::{
    Endpoint, EndpointError, FailureClass, NetworkPolicy, Outcome, Resolver, Sink, WebhookClient,
    WebhookTarget,
};
use tokio::net::TcpListener;

use super::authority::Authority;
use super::dns::NameServer;
use super::requests::keeping;
use super::{NAME, delivery, failure};

/// Listens on all addresses of this machine and counts connections.
async fn canary() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let sung = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sung);
    tokio::spawn(async move {
        while listener.accept().await.is_ok() {
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    (port, sung)
}

/// Addresses that must not be reached, by their numbers.
const FORBIDDEN_V4: [[u8; 4]; 24] = [
    [0, 0, 0, 0],
    [0, 1, 2, 3],
    [10, 0, 0, 1],
    [10, 255, 255, 255],
    [100, 64, 0, 1],
    [100, 100, 100, 200],
    [127, 0, 0, 1],
    [127, 1, 2, 3],
    [127, 255, 255, 254],
    [168, 63, 129, 16],
    [169, 254, 0, 1],
    [169, 254, 169, 254],
    [169, 254, 170, 2],
    [172, 16, 0, 1],
    [172, 31, 255, 255],
    [192, 0, 0, 192],
    [192, 0, 2, 1],
    [192, 88, 99, 1],
    [192, 168, 1, 1],
    [198, 18, 0, 1],
    [198, 51, 100, 1],
    [203, 0, 113, 1],
    [224, 0, 0, 1],
    [255, 255, 255, 255],
];

/// Every spelling of an IPv4 address that a URL's parser takes for the address, and each form of
/// IPv6 that carries one.
fn spellings([a, b, c, d]: [u8; 4]) -> Vec<String> {
    let whole = u32::from_be_bytes([a, b, c, d]);
    let (high, low) = (whole >> 16, whole & 0xffff);
    let tail = whole & 0x00ff_ffff;
    vec![
        format!("{a}.{b}.{c}.{d}"),
        format!("{a}.{b}.{c}.{d}."),
        format!("{whole}"),
        format!("0x{whole:x}"),
        format!("0X{whole:08X}"),
        format!("0{whole:o}"),
        format!("0x{a:x}.0x{b:x}.0x{c:x}.0x{d:x}"),
        format!("0{a:o}.0{b:o}.0{c:o}.0{d:o}"),
        format!("{a}.{tail}"),
        format!("{a}.{b}.{low}"),
        format!("0x{a:x}.{tail}"),
        format!("0{a:03o}.0x{b:x}.{low}"),
        format!("{}.{b}.{c}.{d}", percent_encoded(a)),
        format!("[::ffff:{a}.{b}.{c}.{d}]"),
        format!("[::FFFF:{high:x}:{low:x}]"),
        format!("[0:0:0:0:0:ffff:{high:x}:{low:x}]"),
        format!("[::{high:x}:{low:x}]"),
        format!("[::ffff:0:{high:x}:{low:x}]"),
        format!("[64:ff9b::{high:x}:{low:x}]"),
        format!("[64:ff9b:1::{high:x}:{low:x}]"),
        format!("[2002:{high:x}:{low:x}::1]"),
        format!("[2001:0:{high:x}:{low:x}::]"),
        format!("{a}。{b}。{c}。{d}"),
    ]
}

fn percent_encoded(number: u8) -> String {
    number.to_string().bytes().map(|digit| format!("%{digit:02x}")).collect()
}

/// Other hosts of inside.
const FORBIDDEN_HOSTS: [&str; 40] = [
    "localhost",
    "LOCALHOST",
    "localhost.",
    "a.localhost",
    "localhost.localdomain",
    "metadata",
    "metadata.google.internal",
    "METADATA.GOOGLE.INTERNAL.",
    "instance-data.ec2.internal",
    "db.internal",
    "printer.local",
    "router.lan",
    "router.home.arpa",
    "nas.home",
    "wiki.corp",
    "wiki.intranet",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "redis",
    "ｌｏｃａｌｈｏｓｔ",
    "loc%61lhost",
    "[::]",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[0000::0001]",
    "[::2]",
    "[100::1]",
    "[2001:2::1]",
    "[2001:db8::1]",
    "[3ffe::1]",
    "[3fff::1]",
    "[5f00::1]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[fdff::1]",
    "[fe80::1]",
    "[febf::1]",
    "[fec0::1]",
    "[ff02::1]",
    "[4000::1]",
];

#[tokio::test]
async fn no_spelling_of_a_forbidden_place_is_connected_to() {
    let (port, sung) = canary().await;
    let names = NameServer::start().await;
    let policy = NetworkPolicy {
        allow_ports: vec![port],
        dns_servers: vec![names.address],
        ..NetworkPolicy::default()
    };
    let client = WebhookClient::with_resolver(Resolver::new(policy), &[], 4).unwrap();
    // Whoever made the endpoint was more generous than the client is.
    let generous = NetworkPolicy {
        allow_networks: ["0.0.0.0/0", "::/0"].map(|text| text.parse().unwrap()).into(),
        allow_ports: vec![port],
        ..NetworkPolicy::default()
    };
    let mut hosts: Vec<String> = FORBIDDEN_V4.into_iter().flat_map(spellings).collect();
    hosts.extend(FORBIDDEN_HOSTS.map(str::to_owned));
    let mut tried = 0;
    for host in &hosts {
        let url = format!("https://{host}:{port}/");
        let target = WebhookTarget { url: url.clone(), ..WebhookTarget::default() };
        assert!(client.webhook(&target, false).is_err(), "{url} is accepted");
        // What is no URL at all leads nowhere either.
        let Ok(endpoint) = Endpoint::within(&generous, &url, &BTreeMap::new()) else { continue };
        tried += 1;
        let reason = failure(&client.sink(endpoint)).await;
        assert_eq!(reason.class, FailureClass::Blocked, "{url}: {reason}");
    }
    assert!(tried >= 200, "only {tried} of {} are URLs", hosts.len());
    assert_eq!((sung.load(Ordering::Relaxed), names.questions()), (0, 0));
}

#[test]
fn other_schemes_and_ports_are_refused() {
    let policy = NetworkPolicy::default();
    let refused = |url: &str| Endpoint::within(&policy, url, &BTreeMap::new()).unwrap_err();
    for port in [0, 1, 22, 25, 80, 442, 6379, 8080, 8444, 65_535] {
        let error = refused(&format!("https://hook.example:{port}/"));
        assert!(matches!(error, EndpointError::Blocked(_)), "{port}: {error}");
    }
    for url in [
        "http://hook.example/",
        "http://127.0.0.1/",
        "http://localhost/",
        "gopher://hook.example/",
        "file:///etc/passwd",
        "ftp://hook.example/",
        "ws://hook.example/",
        "data:text/plain,x",
    ] {
        assert!(matches!(refused(url), EndpointError::Scheme(_)), "{url}");
    }
    for url in ["https://127.0.0.1@hook.example/", "https://hook.example:443@127.0.0.1/"] {
        assert!(matches!(refused(url), EndpointError::UserInfo), "{url}");
    }
    for url in ["https://hook.example/", "https://hook.example:8443/", "https://1.1.1.1/"] {
        assert!(Endpoint::within(&policy, url, &BTreeMap::new()).is_ok(), "{url}");
    }
}

/// A name passes when it is configured and turns inward afterwards.
#[tokio::test]
async fn a_name_that_turns_inward_is_not_followed() {
    let authority = Authority::new();
    let (port, sung) = canary().await;
    let names = NameServer::start().await;
    names.tell_addresses(NAME, &["127.0.0.2"]);
    let policy = NetworkPolicy {
        allow_networks: vec!["127.0.0.2".parse().unwrap()],
        allow_ports: vec![port],
        dns_servers: vec![names.address],
        ..NetworkPolicy::default()
    };
    let resolver = Resolver::new(policy);
    let client = WebhookClient::with_resolver(resolver, &authority.roots(), 4).unwrap();
    let url = format!("https://{NAME}:{port}/");
    let sink = client.webhook(&WebhookTarget { url, ..WebhookTarget::default() }, false).unwrap();
    // The way there is open, though the canary speaks no TLS.
    assert_ne!(failure(&sink).await.class, FailureClass::Blocked);
    let before = sung.load(Ordering::Relaxed);
    assert!(before > 0);
    for inward in ["127.0.0.1", "127.0.0.3", "10.0.0.1", "169.254.169.254"] {
        names.tell_addresses(NAME, &[inward]);
        let reason = failure(&sink).await;
        assert_eq!(reason.class, FailureClass::Blocked, "{reason}");
        assert!(!reason.text.contains(inward) && reason.text.contains(NAME), "{reason}");
    }
    assert_eq!(sung.load(Ordering::Relaxed), before);
}

#[tokio::test]
async fn names_that_cannot_be_looked_up_are_failures_of_their_own_class() {
    use super::dns::Reply;
    let names = NameServer::start().await;
    let policy = NetworkPolicy { dns_servers: vec![names.address], ..NetworkPolicy::default() };
    let client = WebhookClient::with_resolver(Resolver::new(policy), &[], 4).unwrap();
    names.tell("ill.example", Reply::Failure);
    names.tell("mute.example", Reply::Silence);
    for (name, text) in [
        ("missing.example", "missing.example has no address"),
        ("ill.example", "the name server answered SERVFAIL to the question for ill.example"),
        ("mute.example", "no name server answered the question for mute.example in time"),
    ] {
        let url = format!("https://{name}/s3cret");
        let target = WebhookTarget { url, ..WebhookTarget::default() };
        let reason = failure(&client.webhook(&target, false).unwrap()).await;
        assert_eq!((reason.class, reason.text.as_str()), (FailureClass::Dns, text));
    }
}

#[tokio::test]
async fn an_operator_can_open_this_machine() {
    let (address, kept) = keeping().await;
    for host in ["127.0.0.1", "localhost", "0x7f.1"] {
        let url = format!("http://{host}:{}/", address.port());
        let target = WebhookTarget { url, ..WebhookTarget::default() };
        let sink = super::plain_client().webhook(&target, false).unwrap();
        assert_eq!(sink.deliver(vec![delivery()]).await, Outcome::Delivered, "{host}");
    }
    assert_eq!(kept.lock().unwrap().len(), 3);
}
