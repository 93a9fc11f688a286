//! A foreign mail server, with STARTTLS and a password: aiosmtpd, a process of its own.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;

use bytes::Bytes;
use cloud_integrator::{
    Delivery, EmailSink, EmailTarget, EventType, FailureClass, MAILS_PER_HOUR, MailSecurity,
    MailSettings, Mailer, Outcome, Sink, Subject,
};
use serde_json::{Value, json};

use crate::world::PATIENCE;

struct MailServer {
    process: Child,
    /// It ends when this does.
    _stdin: ChildStdin,
    lines: mpsc::Receiver<String>,
    port: u16,
    root: Vec<u8>,
}

impl MailServer {
    fn start() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let files = [folder.path().join("cert.pem"), folder.path().join("key.pem")];
        std::fs::write(&files[0], made.cert.pem()).unwrap();
        std::fs::write(&files[1], made.signing_key.serialize_pem()).unwrap();
        loop {
            // Somebody else may have taken the port meanwhile.
            if let Some(server) = Self::spawn(&files, made.cert.pem().into_bytes()) {
                return server;
            }
        }
    }

    /// `None` where it ends before it listens.
    fn spawn(files: &[PathBuf; 2], root: Vec<u8>) -> Option<Self> {
        let python = std::env::var("SIMGATE_TEST_PYTHON").unwrap_or_else(|_| {
            let home = std::env::var("HOME").unwrap_or_default();
            format!("{home}/.cache/simgate/venv/bin/python")
        });
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/interop/mail_server.py");
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut process = Command::new(&python)
            .arg(script)
            .arg(port.to_string())
            .args(files)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{python}: {error}; see test.sh"));
        let output = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let stdin = process.stdin.take().unwrap();
        let server = Self { process, _stdin: stdin, lines, port, root };
        match server.lines.recv_timeout(PATIENCE) {
            Ok(line) => {
                assert_eq!(line, "ready");
                Some(server)
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("the mail server does not listen"),
        }
    }

    fn sink(&self, password: &str, recipients: &[&str]) -> EmailSink {
        let settings = MailSettings {
            host: "localhost".to_owned(),
            port: self.port,
            security: MailSecurity::StartTls,
            user: Some("alerts".to_owned()),
            password: Some(password.to_owned().into()),
            from: "simgate <alerts@example.com>".to_owned(),
            hello_name: None,
        };
        let roots = [self.root.clone()];
        let mailer = Mailer::new(settings, &roots, MAILS_PER_HOUR).unwrap();
        let recipients = recipients.iter().map(|address| (*address).to_owned()).collect();
        EmailSink::new(&mailer, &EmailTarget { recipients }).unwrap()
    }

    fn mail(&self) -> Value {
        serde_json::from_str(&self.lines.recv_timeout(PATIENCE).unwrap()).unwrap()
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn crossing() -> Vec<Delivery> {
    let body = json!({ "id": "x", "device": { "iccid": "8988280666000002864" },
        "geofence": { "name": "d\u{e9}p\u{f4}t", "type": "ENTER", "source": "GPS",
            "coordinates": ["24.1", "56.9"], "sampleTime": "2022-12-09T15:12:29.915Z" } });
    vec![Delivery {
        id: "1-6393505d-0000fa8489fb9c791fcddd43".parse().unwrap(),
        event_type: EventType::Geofence,
        subject: Subject::default(),
        source: None,
        topic: None,
        body: Bytes::from(body.to_string()),
    }]
}

#[tokio::test]
async fn a_foreign_server_reads_our_mail_as_we_meant_it() {
    let server = MailServer::start();
    let sink = server.sink("the password", &["a@example.com", "nobody@example.com"]);
    assert_eq!(sink.deliver(crossing()).await, Outcome::Delivered);
    let mail = server.mail();
    assert_eq!(mail["subject"], "[simgate] device 8988280666000002864 entered \"d\u{e9}p\u{f4}t\"");
    assert_eq!(mail["to"], json!(["a@example.com"]));
    assert_eq!((&mail["tls"], &mail["auto"]), (&json!(true), &json!("auto-generated")));
    assert_eq!(mail["id"], format!("<{}@example.com>", crossing()[0].id));
    let text = mail["text"].as_str().unwrap();
    assert!(text.contains("d\u{e9}p\u{f4}t") && text.contains("geo:56.9,24.1"), "{text}");

    let wrong = server.sink("wrong", &["a@example.com"]).deliver(crossing()).await;
    let Outcome::Retry { reason, .. } = wrong else { panic!("{wrong:?}") };
    assert_eq!(reason.class, FailureClass::Credentials);
    assert_eq!(reason.answer.map(|answer| answer.code), Some(535));
    let nobody = server.sink("the password", &["nobody@example.com"]).deliver(crossing()).await;
    assert!(matches!(nobody, Outcome::Rejected { .. }), "{nobody:?}");
}
