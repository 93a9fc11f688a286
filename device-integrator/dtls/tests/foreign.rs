//! Foreign clients over loopback: OpenSSL, libcoap with OpenSSL, libcoap with GnuTLS.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write;
use std::net::{SocketAddr, UdpSocket};
use std::process::{Command, Output as Ended, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use coap::wire::{Code, ContentFormat};
use coap::{Endpoint, Response};
use dtls::{Config, Counters, Engine, Event, Output, Psk, SessionId, UnknownRecords};

const IDENTITY: &str = "8988280666000002864";
const KEY: &str = "0123456789abcdef";
/// How long a client may take: its own time-outs are shorter.
const CLIENT_SECONDS: &str = "20";

/// What the server says to bytes that a session received.
#[derive(Clone, Copy)]
enum Answer {
    /// The same bytes.
    Echo,
    /// 2.05 with a text, by the CoAP endpoint.
    Coap,
}

/// An engine behind a socket of its own.
struct Server {
    address: SocketAddr,
    counters: Arc<Mutex<Counters>>,
    is_ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(answer: Answer) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let address = socket.local_addr().unwrap();
        let counters = Arc::new(Mutex::new(Counters::default()));
        let is_ending = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (counters, is_ending) = (Arc::clone(&counters), Arc::clone(&is_ending));
            move || serve(&socket, answer, &counters, &is_ending)
        });
        Self { address, counters, is_ending, thread: Some(thread) }
    }

    fn counters(&self) -> Counters {
        // The last datagram of a client may still be under way.
        std::thread::sleep(Duration::from_millis(100));
        *self.counters.lock().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_ending.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(socket: &UdpSocket, answer: Answer, counters: &Mutex<Counters>, is_ending: &AtomicBool) {
    let config = Config { unknown_records: UnknownRecords::Alert, ..Config::default() };
    let keys =
        |identity: &[u8]| (identity == IDENTITY.as_bytes()).then(|| Psk::new(KEY.into()).unwrap());
    let mut engine = Engine::new(config, Instant::now(), keys).unwrap();
    let mut coap: Endpoint<SessionId> = Endpoint::new(coap::Config::default(), 7);
    let mut buffer = [0; 4096];
    while !is_ending.load(Ordering::Relaxed) {
        match socket.recv_from(&mut buffer) {
            Ok((length, peer)) => engine.handle_datagram(Instant::now(), peer, &buffer[..length]),
            Err(_) => engine.handle_timeout(Instant::now()),
        }
        loop {
            match engine.poll_output() {
                Output::Transmit { peer, bytes } => drop(socket.send_to(&bytes, peer)),
                Output::Event(Event::Received { session, bytes, .. }) => match answer {
                    Answer::Echo => drop(engine.send(session, &bytes)),
                    Answer::Coap => {
                        coap.handle_datagram(Instant::now(), session, &bytes);
                        respond(&mut coap, &mut engine);
                    }
                },
                Output::Event(_) => {}
                Output::Timeout(_) => break,
            }
        }
        *counters.lock().unwrap() = engine.counters();
    }
}

fn respond(coap: &mut Endpoint<SessionId>, engine: &mut Engine) {
    loop {
        match coap.poll_output() {
            coap::Output::Transmit { peer, bytes } => drop(engine.send(peer, &bytes)),
            coap::Output::Event(coap::Event::Request(request)) => {
                let text = format!("got {} bytes", request.payload.len());
                let response =
                    Response::new(Code::CONTENT).with_payload(ContentFormat::TEXT_PLAIN, text);
                coap.respond(Instant::now(), request.exchange, response);
            }
            coap::Output::Event(_) => {}
            coap::Output::Timeout(_) => return,
        }
    }
}

/// Fails where the program is not installed: a test that nobody ran must not look like a success.
fn run(program: &str, arguments: &[&str], input: &str) -> Ended {
    let installed = Command::new("sh").args(["-c", &format!("command -v {program}")]).output();
    assert!(
        installed.is_ok_and(|output| output.status.success()),
        "{program} is not installed: it is part of the Debian packages openssl or libcoap3-bin"
    );
    let child = Command::new("timeout")
        .arg(CLIENT_SECONDS)
        .arg(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // s_client ends with its input; it must not end before the handshake and the answer.
    let writer = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(700));
        let _ = stdin.write_all(input.as_bytes());
        std::thread::sleep(Duration::from_millis(700));
    });
    let ended = child.wait_with_output().unwrap();
    writer.join().unwrap();
    ended
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

fn s_client(server: &Server, suite: &str, key: &str, more: &[&str]) -> String {
    let (address, key) = (server.address.to_string(), hex(key));
    let suite = format!("{suite}:@SECLEVEL=0");
    let mut arguments = vec!["s_client", "-dtls1_2", "-psk_identity", IDENTITY, "-psk", &key];
    arguments.extend(["-cipher", &suite, "-connect", &address]);
    arguments.extend(more);
    let ended = run("openssl", &arguments, "hello there\n");
    let (out, err) =
        (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    format!("{out}\n{err}")
}

#[test]
fn openssl_speaks_each_suite() {
    for suite in
        ["PSK-AES128-CCM8", "PSK-AES128-CCM", "PSK-AES128-GCM-SHA256", "PSK-AES128-CBC-SHA256"]
    {
        let server = Server::start(Answer::Echo);
        let text = s_client(&server, suite, KEY, &[]);
        assert!(text.contains("hello there"), "{suite}: {text}");
        assert!(text.contains(&format!("Cipher is {suite}")), "{suite}: {text}");
        assert!(text.contains("Extended master secret: yes"), "{suite}: {text}");
        assert_eq!(server.counters().closed_by_peer, 1, "{suite}");
    }
}

#[test]
fn openssl_without_extensions_gets_a_session_too() {
    let server = Server::start(Answer::Echo);
    let config = std::env::temp_dir().join(format!("dtls-foreign-{}.cnf", std::process::id()));
    std::fs::write(
        &config,
        "openssl_conf = a\n[a]\nssl_conf = b\n[b]\nsystem_default = c\n[c]\n\
         Options = -ExtendedMasterSecret,-EncryptThenMac\n",
    )
    .unwrap();
    let script = format!(
        "sleep 1 | OPENSSL_CONF={} openssl s_client -dtls1_2 -psk_identity {IDENTITY} -psk {} \
         -cipher PSK-AES128-CBC-SHA256:@SECLEVEL=0 -connect {}",
        config.display(),
        hex(KEY),
        server.address
    );
    let ended = run("sh", &["-c", &script], "");
    std::fs::remove_file(&config).unwrap();
    let text = String::from_utf8_lossy(&ended.stdout);
    assert!(text.contains("Extended master secret: no"), "{text}");
    assert_eq!(server.counters().established, 1);
}

#[test]
fn openssl_resumes_and_renegotiation_is_refused() {
    let server = Server::start(Answer::Echo);
    let text = s_client(&server, "PSK-AES128-GCM-SHA256", KEY, &["-reconnect"]);
    let reused = text.matches("Reused, TLSv1.2").count();
    assert_eq!(reused, 5, "{text}");
    assert_eq!(server.counters().resumed, 5);

    let server = Server::start(Answer::Echo);
    let (address, key) = (server.address.to_string(), hex(KEY));
    let arguments = ["s_client", "-dtls1_2", "-psk_identity", IDENTITY, "-psk", &key, "-connect"];
    let arguments =
        [&arguments[..], &[&address, "-cipher", "PSK-AES128-CCM8:@SECLEVEL=0"]].concat();
    // R is the command of s_client for a renegotiation.
    let ended = run("openssl", &arguments, "R\n");
    let text = String::from_utf8_lossy(&ended.stderr);
    assert!(text.contains("RENEGOTIATING"), "it did not try: {text}");
    assert!(text.contains(":no renegotiation:"), "it was not refused: {text}");
    assert_eq!(server.counters().established, 1, "no second handshake");
}

#[test]
fn openssl_with_a_wrong_key_gets_an_alert_and_no_session() {
    let server = Server::start(Answer::Echo);
    let text = s_client(&server, "PSK-AES128-CCM8", "wrong wrong wron", &[]);
    assert!(text.contains("alert bad record mac"), "{text}");
    let counters = server.counters();
    assert_eq!((counters.established, counters.handshakes_failed), (0, 1));
}

#[test]
fn libcoap_gets_its_answers_over_both_its_libraries() {
    for program in ["coap-client-openssl", "coap-client-gnutls"] {
        let server = Server::start(Answer::Coap);
        let uri = format!("coaps://127.0.0.1:{}/x", server.address.port());
        let credentials = ["-B", "5", "-u", IDENTITY, "-k", KEY];
        let post = [&credentials[..], &["-m", "post", "-e", "telemetry", &uri]].concat();
        let ended = run(program, &post, "");
        let text = String::from_utf8_lossy(&ended.stdout);
        assert!(text.contains("got 9 bytes"), "{program}: {ended:?}");
        // Several blocks in one session.
        let body = "b".repeat(3000);
        let large = [&credentials[..], &["-b", "512", "-m", "put", "-e", &body, &uri]].concat();
        let ended = run(program, &large, "");
        let text = String::from_utf8_lossy(&ended.stdout);
        assert!(text.contains("got 3000 bytes"), "{program}: {ended:?}");
        assert_eq!(server.counters().established, 2, "{program}");
    }
}
