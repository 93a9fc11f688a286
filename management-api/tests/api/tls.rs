use std::time::{Duration, Instant};

use management_api::server::{Limits, ServerConfig, TlsFiles};
use reqwest::Version;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use crate::gateway::{Choices, Gateway};

async fn start() -> Gateway {
    let folder = tempfile::tempdir().unwrap();
    let names = vec!["localhost".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    let files = TlsFiles {
        certificate: folder.path().join("certificate.pem"),
        key: folder.path().join("key.pem"),
    };
    std::fs::write(&files.certificate, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    let root = reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap();
    let http = reqwest::Client::builder().tls_certs_only([root]).build().unwrap();
    let config = ServerConfig {
        address: "127.0.0.1:0".parse().unwrap(),
        tls: Some(files),
        allow_plain_http: false,
        limits: Limits::default(),
    };
    Gateway::start_in(folder, config, Choices::default(), http).await
}

#[tokio::test]
async fn https_speaks_http_2_and_gives_tokens() {
    let gateway = start().await;
    let token = gateway.login().await;
    let url = gateway.url("/management-api/v1/devices/stats");
    let response = gateway.http.get(url).bearer_auth(token).send().await.unwrap();
    assert_eq!(response.version(), Version::HTTP_2);
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn a_client_that_never_shakes_hands_is_cut_off() {
    let gateway = start().await;
    let started = Instant::now();
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let read = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut [0; 1])).await;
    assert!(matches!(read, Ok(Ok(0) | Err(_))), "{read:?}");
    assert!(started.elapsed() >= Duration::from_secs(4), "{:?}", started.elapsed());
}
