//! A real broker (mosquitto) on a free port, a foreign reader, and events to publish.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cloud_integrator::{
    Delivery, EventType, Failure, MqttClient, MqttLimits, MqttPurpose, MqttSink, MqttTarget,
    NetworkPolicy, Outcome, Resolver, Subject,
};
use vocabulary::{EventId, Protocol};

/// A test that waits longer has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A running broker; it ends with its handle.
pub(crate) struct Mosquitto {
    child: Child,
    config: PathBuf,
    pub(crate) port: u16,
    _folder: tempfile::TempDir,
}

impl Mosquitto {
    /// Starts a broker with `lines` of configuration after the listener's; `{folder}` in them is
    /// its folder, where `prepare` may put files.
    pub(crate) fn start(lines: &str, prepare: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        let port = free_port();
        let config = folder.path().join("mosquitto.conf");
        let lines = lines.replace("{folder}", folder.path().to_str().unwrap());
        // As root it would become a user who must not read the folder.
        let text = format!("user root\nlistener {port} 127.0.0.1\n{lines}\n");
        std::fs::write(&config, text).unwrap();
        let child = spawn(&config, port);
        Self { child, config, port, _folder: folder }
    }

    pub(crate) fn open_to_all() -> Self {
        Self::start("allow_anonymous true", |_| {})
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Again on the same port.
    pub(crate) fn start_again(&mut self) {
        self.child = spawn(&self.config, self.port);
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn spawn(config: &Path, port: u16) -> Child {
    let child = Command::new(program("mosquitto"))
        .arg("-c")
        .arg(config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("mosquitto is installed, as test.sh does");
    let start = Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(start.elapsed() < PATIENCE, "mosquitto does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
    child
}

/// Debian puts the broker where only root looks for programs.
fn program(name: &str) -> PathBuf {
    let system = Path::new("/usr/sbin").join(name);
    if system.exists() { system } else { PathBuf::from(name) }
}

/// `mosquitto_sub` on all topics, which prints each message as `topic payload`.
pub(crate) struct Reader {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Reader {
    pub(crate) fn start(port: u16, arguments: &[&str]) -> Self {
        // Without stdbuf it keeps its lines to itself while its output is no terminal.
        let mut child = Command::new("stdbuf")
            .args([
                "-oL",
                "mosquitto_sub",
                "-h",
                "127.0.0.1",
                "-p",
                &port.to_string(),
                "-V",
                "5",
                "-q",
                "1",
                "-v",
            ])
            .args(["-t", "#", "-d"])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto_sub is installed, as test.sh does");
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let reader = Self { child, lines };
        reader.until("Subscribed");
        reader
    }

    /// The next message; what the reader says about itself is passed over.
    pub(crate) fn next(&self) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).expect("a message");
            let own = ["Client ", "Subscribed"].iter().any(|word| line.starts_with(word));
            if !own {
                return line;
            }
        }
    }

    fn until(&self, word: &str) {
        while !self.lines.recv_timeout(PATIENCE).expect("a line").starts_with(word) {}
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn client(limits: MqttLimits) -> MqttClient {
    let policy = NetworkPolicy { allow_http_loopback: true, ..NetworkPolicy::default() };
    MqttClient::new(Resolver::new(policy), Vec::new(), limits)
}

/// Limits in milliseconds, so that a test need not wait.
pub(crate) fn hasty() -> MqttLimits {
    MqttLimits {
        attempt: Duration::from_secs(5),
        connect: Duration::from_secs(3),
        pause_min: Duration::from_millis(20),
        pause_max: Duration::from_millis(100),
        ..MqttLimits::default()
    }
}

pub(crate) fn plain(port: u16) -> MqttTarget {
    MqttTarget { url: format!("mqtt://127.0.0.1:{port}"), ..MqttTarget::default() }
}

pub(crate) fn sink(target: &MqttTarget, limits: MqttLimits) -> MqttSink {
    let client = client(limits);
    client.sink(client.endpoint(target, "AP3dIUs3c7_Oo2yJYaXWg").unwrap(), MqttPurpose::Run)
}

/// A message of a device that sends `number` by CoAP to `room`.
pub(crate) fn message(number: u32) -> Delivery {
    let id: EventId = format!("1-6393505d-{number:08x}489fb9c791fcdddd").parse().unwrap();
    Delivery {
        id,
        event_type: EventType::TelemetryData,
        subject: Subject {
            iccid: Some("8988280666000002864".parse().unwrap()),
            imsi: Some("901405100002864".parse().unwrap()),
            ip: Some([10, 0, 0, 7].into()),
        },
        source: Some(Protocol::Coap),
        topic: Some("room".into()),
        body: Bytes::from(format!(
            r#"{{"received":"{number}","payload":{{"type":"JSON","value":{number}}}}}"#
        )),
    }
}

/// Why an attempt is to be repeated.
pub(crate) fn retry(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Retry { reason, .. } => reason,
        other => panic!("expected a retry, found {other:?}"),
    }
}
