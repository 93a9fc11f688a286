//! Certificates on both sides, with foreign servers: nginx, and the server of OpenSSL.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cloud_integrator::{
    ClientTls, CreateError, FailureClass, Integration, NewIntegration, Outcome, Sink, Target,
    TlsError, WebhookError, WebhookTarget,
};

use super::authority::{Authority, Issued};
use super::bad_servers::{Running, openssl_server};
use super::{NAME, client_to, delivery, failure, place, target};
use crate::world::{World, webhook};

/// How long nginx may take to begin.
const PATIENCE: Duration = Duration::from_secs(30);

/// An nginx that wants a client certificate of `clients`. `/events` is 204, `/who` says whose
/// certificate it saw.
fn nginx(
    program: &str,
    folder: &Path,
    server: &Issued,
    clients: &Authority,
) -> (Running, SocketAddr) {
    for (name, text) in [
        ("server.pem", server.pem()),
        ("key.pem", server.key_pem()),
        ("clients.pem", clients.pem()),
    ] {
        std::fs::write(folder.join(name), text).unwrap();
    }
    // Nobody keeps the port between the probe and nginx, so another one is tried if it is gone.
    for _ in 0..5 {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let place = folder.display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {place}/{kind};\n"))
            .concat();
        let configuration = format!(
            "daemon off; master_process off; pid {place}/pid; error_log stderr;\n\
             events {{}}\n\
             http {{ access_log off; {temporary} server {{\n\
             listen {address} ssl http2; ssl_certificate {place}/server.pem;\n\
             ssl_certificate_key {place}/key.pem; ssl_client_certificate {place}/clients.pem;\n\
             ssl_verify_client on;\n\
             location /events {{ return 204; }}\n\
             location /who {{ return 500 \"$ssl_client_s_dn $server_protocol\"; }} }} }}\n"
        );
        std::fs::write(folder.join("nginx.conf"), configuration).unwrap();
        let child = Command::new(program)
            .args(["-e", "stderr", "-p"])
            .arg(folder)
            .arg("-c")
            .arg(folder.join("nginx.conf"))
            .stderr(Stdio::null())
            .spawn()
            .expect("the program can be run");
        let mut running = Running(child);
        let start = Instant::now();
        while running.0.try_wait().unwrap().is_none() {
            assert!(start.elapsed() < PATIENCE, "nginx does not listen");
            if TcpStream::connect(address).is_ok() {
                return (running, address);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    panic!("nginx does not run");
}

fn with_tls(address: SocketAddr, roots: &Authority, shown: Option<&Issued>) -> WebhookTarget {
    let tls = ClientTls {
        roots_pem: Some(roots.pem()),
        certificate_pem: shown.map(Issued::pem),
        key_pem: shown.map(Issued::key_pem),
    };
    WebhookTarget { tls, ..target(address) }
}

#[tokio::test]
async fn nginx_sees_the_certificate_of_each_webhook() {
    let Some(program) = place("SIMGATE_TEST_NGINX", "nginx/usr/sbin/nginx") else { return };
    let (servers, clients, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let folder = tempfile::tempdir().unwrap();
    let (_nginx, address) = nginx(&program, folder.path(), &servers.issue(NAME), &clients);
    let client = client_to(address, &[]).await;
    let (one, two) = (clients.issue("one.example"), clients.issue("two.example"));
    for shown in [&one, &two] {
        let sink = client.webhook(&with_tls(address, &servers, Some(shown)), false).unwrap();
        assert_eq!(sink.deliver(vec![delivery()]).await, Outcome::Delivered);
        let mut who = with_tls(address, &servers, Some(shown));
        who.url = who.url.replace("/events", "/who");
        let answer = failure(&client.webhook(&who, false).unwrap()).await.answer.unwrap();
        assert_eq!(answer.text, format!("{} HTTP/2.0", shown.subject()));
    }
    // nginx answers over HTTP that it wants a certificate.
    for shown in [None, Some(&strangers.issue("one.example"))] {
        let sink = client.webhook(&with_tls(address, &servers, shown), false).unwrap();
        assert_eq!(failure(&sink).await.answer.unwrap().code, 400);
    }
    // A customer's own authorities are believed instead of all others.
    let sink = client.webhook(&with_tls(address, &strangers, Some(&one)), false).unwrap();
    assert_eq!(failure(&sink).await.class, FailureClass::Tls);
}

#[tokio::test]
async fn a_server_that_refuses_our_certificate_is_a_matter_of_credentials() {
    let (servers, clients, strangers) = (Authority::new(), Authority::new(), Authority::new());
    for version in ["-tls1_2", "-tls1_3"] {
        let folder = tempfile::tempdir().unwrap();
        let trusted = folder.path().join("clients.pem");
        std::fs::write(&trusted, clients.pem()).unwrap();
        let arguments =
            [version, "-Verify", "2", "-verify_return_error", "-CAfile", trusted.to_str().unwrap()];
        let (_server, port) = openssl_server(folder.path(), &servers.issue(NAME), &arguments);
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let client = client_to(address, &[]).await;
        for shown in [None, Some(&strangers.issue("gateway.example"))] {
            let sink = client.webhook(&with_tls(address, &servers, shown), false).unwrap();
            let reason = failure(&sink).await;
            // Before TLS 1.3 a missing certificate is a handshake that fails for no said reason.
            let expected = match (version, shown) {
                ("-tls1_2", None) => FailureClass::Tls,
                _ => FailureClass::Credentials,
            };
            assert_eq!(reason.class, expected, "{version}: {reason}");
            assert!(reason.text.contains("the endpoint"), "{reason}");
        }
    }
}

/// An integration whose certificate had expired did not run any more after a restart of the
/// gateway: nothing was tried, and nothing said so but one line of the log.
#[tokio::test]
async fn a_certificate_that_expired_is_refused_to_the_customer_and_told_by_each_attempt() {
    let (servers, clients) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().unwrap();
    let trusted = folder.path().join("clients.pem");
    std::fs::write(&trusted, clients.pem()).unwrap();
    let arguments = ["-Verify", "2", "-verify_return_error", "-CAfile", trusted.to_str().unwrap()];
    let (_server, port) = openssl_server(folder.path(), &servers.issue(NAME), &arguments);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let old = with_tls(address, &servers, Some(&clients.issue_until("gateway.example", 2_021)));
    let sink = client_to(address, &[]).await.webhook(&old, false).unwrap();
    let reason = failure(&sink).await;
    assert_eq!(reason.class, FailureClass::Credentials, "{reason}");
    assert!(reason.text.contains("CertificateExpired"), "{reason}");
    let url = format!("https://localhost:{port}/events");
    let world = World::new();
    let refused = created(&world, WebhookTarget { url: url.clone(), ..old }).await.unwrap_err();
    let CreateError::Invalid(refused) = refused else { panic!("{refused}") };
    assert_eq!(refused.to_string(), "the client certificate has expired on 2021-01-01T00:00:00Z");
    let new = with_tls(address, &servers, Some(&clients.issue("gateway.example")));
    created(&world, WebhookTarget { url, ..new }).await.unwrap();
}

async fn created(world: &World, target: WebhookTarget) -> Result<Integration, CreateError> {
    let new = NewIntegration { target: Target::Webhook(target), ..webhook("") };
    world.integrations().create(new).await
}

#[tokio::test]
async fn wrong_certificates_are_refused_when_they_are_configured() {
    let address = SocketAddr::from(([127, 0, 0, 1], 443));
    let client = client_to(address, &[]).await;
    let authority = Authority::new();
    let mut other = with_tls(address, &authority, Some(&authority.issue("one.example")));
    other.tls.key_pem = Some(authority.issue("two.example").key_pem());
    let refused = client.webhook(&other, false).unwrap_err();
    assert!(matches!(refused, WebhookError::Tls(TlsError::KeyMismatch)), "{refused}");
}
