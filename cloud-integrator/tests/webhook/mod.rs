//! A customer's side: a name, an authority, a target; and the sink that goes there.

mod authority;
mod bad_servers;
mod blocked;
mod certificates;
mod dns;
mod names;
mod requests;
mod signatures;

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;

use cloud_integrator::{
    Delivery, EventType, Failure, NetworkPolicy, Outcome, Resolver, Sink, Subject, WebhookClient,
    WebhookSink, WebhookTarget,
};
use dns::NameServer;

/// The host of the customer's endpoint, which is on loopback.
const NAME: &str = "hook.example";
/// The id of [`delivery`].
const ID: &str = "msg_01GHZX5Q3M0000000000000000";

fn delivery() -> Delivery {
    Delivery {
        id: ID.parse().unwrap(),
        event_type: EventType::TelemetryData,
        subject: Subject::default(),
        source: None,
        topic: None,
        body: b"{\"a\":1}".as_slice().into(),
    }
}

/// A client that may reach loopback on the port of `endpoint`, and finds it as [`NAME`].
async fn client_to(endpoint: SocketAddr, roots: &[Vec<u8>]) -> WebhookClient {
    let names = NameServer::start().await;
    names.tell_addresses(NAME, &[&endpoint.ip().to_string()]);
    let policy = NetworkPolicy {
        allow_networks: vec!["127.0.0.0/8".parse().unwrap()],
        allow_ports: vec![endpoint.port()],
        dns_servers: vec![names.address],
        ..NetworkPolicy::default()
    };
    WebhookClient::with_resolver(Resolver::new(policy), roots, 4).unwrap()
}

fn target(endpoint: SocketAddr) -> WebhookTarget {
    let url = format!("https://{NAME}:{}/events", endpoint.port());
    WebhookTarget { url, ..WebhookTarget::default() }
}

async fn sink_to(endpoint: SocketAddr, roots: &[Vec<u8>]) -> WebhookSink {
    client_to(endpoint, roots).await.webhook(&target(endpoint), false).unwrap()
}

/// A sink to plain HTTP on this machine.
fn plain_sink(endpoint: SocketAddr) -> WebhookSink {
    let target = WebhookTarget {
        url: format!("http://{endpoint}/events"),
        headers: BTreeMap::new(),
        ..WebhookTarget::default()
    };
    plain_client().webhook(&target, false).unwrap()
}

fn plain_client() -> WebhookClient {
    let policy = NetworkPolicy { allow_http_loopback: true, ..NetworkPolicy::default() };
    WebhookClient::with_resolver(Resolver::new(policy), &[], 4).unwrap()
}

/// What went wrong; it must be nothing to give up for.
async fn failure(sink: &WebhookSink) -> Failure {
    match sink.deliver(vec![delivery()]).await {
        Outcome::Retry { reason, .. } => reason,
        other => panic!("not a failure to be retried: {other:?}"),
    }
}

/// A program or a folder that a variable names, or where test.sh puts it. Where nobody says, the
/// test is skipped, past the capture of its output, so that everybody sees it.
fn place(variable: &str, usual: &str) -> Option<String> {
    if let Ok(place) = std::env::var(variable) {
        return Some(place);
    }
    let home = std::env::var("HOME").unwrap_or_default();
    let usual = format!("{home}/.cache/simgate/{usual}");
    if Path::new(&usual).exists() {
        return Some(usual);
    }
    let text = format!("SKIPPED: {usual} does not exist; test.sh puts it there\n");
    std::io::stderr().write_all(text.as_bytes()).unwrap();
    None
}
