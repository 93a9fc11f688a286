//! FreeRADIUS's own client against the server, over a socket.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall say where")]

use std::future::{Ready, ready};
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use radius::server::{Reports, serve};
use radius::{Accounting, Client, Clients, Config, Limits, Secret};
use tokio::net::UdpSocket;
use vocabulary::{Notice, RadioAccess, SessionChange, SessionReport};

const SECRET: &str = "k7Gq-2mfPz-x81Lk";

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<SessionReport>>>);

impl Reports for Kept {
    type Storing = Ready<bool>;

    fn store(&self, reports: Vec<SessionReport>) -> Ready<bool> {
        self.0.lock().unwrap().extend(reports);
        ready(true)
    }

    fn note(&self, _: Notice) {}
}

/// Sends packets; whether each was answered, and what the client said.
fn radclient(port: u16, (command, secret): (&str, &str), packets: &str) -> (bool, String) {
    let mut client = Command::new("radclient")
        .args(["-x", "-r", "2", "-t", "1", &format!("127.0.0.1:{port}"), command, secret])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("radclient is missing: run ./test.sh");
    client.stdin.take().unwrap().write_all(packets.as_bytes()).unwrap();
    let output = client.wait_with_output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn its_accounting_is_understood_and_its_wrong_secret_is_not_answered() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let kept = Kept::default();
    let secret = Secret::new(SECRET.as_bytes(), false).unwrap();
    let client = Client::new("loopback", "127.0.0.1", secret).unwrap();
    let config = Config {
        feed: "radius".to_owned(),
        clients: Clients::new(vec![client.require_message_authenticator(true)]).unwrap(),
        limits: Limits::default(),
    };
    let socket = runtime.block_on(UdpSocket::bind("127.0.0.1:0")).unwrap();
    let port = socket.local_addr().unwrap().port();
    runtime.spawn(serve(socket, Accounting::new(config, 7), kept.clone()));

    let session = |status: &str| {
        format!(
            "Acct-Status-Type = {status}\nAcct-Session-Id = \"5f2b\"\nNAS-Identifier = \"pgw-1\"\n\
             Framed-IP-Address = 100.64.0.1\nCalling-Station-Id = \"491700000001\"\n\
             Called-Station-Id = \"iot.example\"\n3GPP-IMSI = \"901405100002864\"\n\
             3GPP-IMEISV = \"3520990017614823\"\n3GPP-RAT-Type = 8\n\
             3GPP-Location-Info = 0x8262f210753362f2100014c301\n\
             Acct-Input-Octets = 1000\nAcct-Output-Octets = 2000\nAcct-Input-Gigawords = 1\n\
             Message-Authenticator = 0x00\n\n"
        )
    };
    let (answered, said) = radclient(port, ("acct", SECRET), &session("Start"));
    assert!(answered, "{said}");
    let (answered, said) = radclient(port, ("acct", "another secret, long"), &session("Start"));
    assert!(!answered, "{said}");
    let others = session("Interim-Update")
        + &session("Stop")
        + "Acct-Status-Type = Accounting-On\nNAS-Identifier = \"pgw-1\"\n\
           Message-Authenticator = 0x00\n";
    let (answered, said) = radclient(port, ("acct", SECRET), &others);
    assert!(answered, "{said}");
    assert_eq!(said.matches("Received Accounting-Response").count(), 3, "{said}");
    // With what proxies ask whether a server is there.
    let (answered, said) = radclient(port, ("status", SECRET), "Message-Authenticator = 0x00\n");
    assert!(answered, "{said}");

    let kept = kept.0.lock().unwrap();
    let mut changes: Vec<_> = kept.iter().map(|report| report.change).collect();
    // The client sends several at once.
    changes.sort_by_key(|change| *change as u8);
    use SessionChange::{Restart, Start, Stop, Update};
    assert_eq!(changes, [Start, Update, Stop, Restart]);
    let start = &kept[0];
    assert_eq!(start.server, "loopback/pgw-1");
    assert_eq!(start.imsi, Some("901405100002864".parse().unwrap()));
    assert_eq!(start.imei, Some("3520990017614823".parse().unwrap()));
    assert_eq!(start.apn.as_deref(), Some("iot.example"));
    let octets = start.octets.unwrap();
    assert_eq!((octets.up, octets.down), ((1 << 32) + 1_000, 2_000));
    let cell = start.cell.unwrap();
    assert_eq!(
        (cell.access, cell.area, cell.cell),
        (RadioAccess::NbIot, Some(30_003), Some(1_360_641))
    );
}
