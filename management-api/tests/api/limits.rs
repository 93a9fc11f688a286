//! Clients that are too fast, too slow or too many.

use std::time::{Duration, Instant};

use management_api::server::Limits;
use management_api::{Rate, Settings};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::gateway::{Choices, Gateway};

#[tokio::test]
async fn a_client_that_is_too_fast_is_told_when_to_come_again() {
    let client_rate = Rate { per_second: 0.5, burst: 3.0 };
    let settings = Settings { client_rate, ..Settings::default() };
    let gateway = Gateway::start_with(Choices { settings, ..Choices::default() }).await;
    for _ in 0..3 {
        gateway.get("/v1/devices/stats").await.expect(200);
    }
    let answer = gateway.get("/v1/devices/stats").await;
    answer.refusal(429);
    assert_eq!(answer.headers["retry-after"], "2");
}

/// Ten seconds, as hyper's own time-out would silently be off without a timer.
#[tokio::test]
async fn a_head_that_comes_too_slowly_is_cut_off() {
    let gateway = Gateway::start().await;
    let started = Instant::now();
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(15), stream.read_to_end(&mut answer));
    let _ = read.await.expect("the server closes the connection by itself");
    assert!(started.elapsed() >= Duration::from_secs(9), "{:?}", started.elapsed());
}

#[tokio::test]
async fn an_address_has_so_many_connections_and_others_are_not_hurt() {
    let limits = Limits { connections_per_ip_max: 3, ..Limits::default() };
    let gateway = Gateway::start_with(Choices { limits, ..Choices::default() }).await;
    // The gateway's own login holds one.
    let held = [
        TcpStream::connect(gateway.address).await.unwrap(),
        TcpStream::connect(gateway.address).await.unwrap(),
    ];
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut refused = TcpStream::connect(gateway.address).await.unwrap();
    let read = tokio::time::timeout(Duration::from_secs(2), refused.read(&mut [0; 1])).await;
    assert!(matches!(read, Ok(Ok(0) | Err(_))), "{read:?}");
    gateway.get("/v1/devices/stats").await.expect(200);
    drop(held);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let request = b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn a_stop_waits_for_requests_in_progress_but_not_for_ever() {
    let limits = Limits { drain: Duration::from_millis(300), ..Limits::default() };
    let gateway = Gateway::start_with(Choices { limits, ..Choices::default() }).await;
    let address = gateway.address;
    let mut stuck = TcpStream::connect(address).await.unwrap();
    let head = b"POST /management-api/oauth/token HTTP/1.1\r\nhost: x\r\n\
        content-type: application/json\r\ncontent-length: 10\r\n\r\n";
    stuck.write_all(head).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let started = Instant::now();
    gateway.stop().await;
    let took = started.elapsed();
    assert!((Duration::from_millis(250)..Duration::from_secs(3)).contains(&took), "{took:?}");
    assert!(TcpStream::connect(address).await.is_err());
}
