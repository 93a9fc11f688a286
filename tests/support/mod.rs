//! A gateway under test: the real program, as its user starts it.

mod judge;
mod load;
mod scripted_device;
mod secure_device;
mod wakaama;

use std::fmt::Write as _;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

pub(crate) use judge::Store;
pub(crate) use load::{Load, PROBED, Probe, plan};
pub(crate) use scripted_device::{Heard, LINKS, SENML_CBOR, SENML_JSON, ScriptedDevice, TEXT, TLV};
pub(crate) use secure_device::{Ended, SecureDevice, ask_for_key, told};
pub(crate) use wakaama::Wakaama;

/// The longest that a start, a stop or an expected change may take on a slow machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Ports that the system gives to nobody by itself (it begins at 32,768).
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// The kinds of listeners, as the configuration names them.
pub(crate) const LISTENERS: [&str; 5] = ["UDP", "COAP", "COAPS", "LWM2M", "LWM2MS"];

/// The running program and what it printed about itself.
pub(crate) struct Gateway {
    child: Child,
    pub(crate) udp: SocketAddr,
    pub(crate) coap: SocketAddr,
    pub(crate) coaps: SocketAddr,
    pub(crate) lwm2m: SocketAddr,
    pub(crate) lwm2ms: SocketAddr,
    pub(crate) api: SocketAddr,
    /// Everything printed before it was ready.
    pub(crate) greeting: Vec<String>,
}

/// The data folder of a gateway, and how it is started.
pub(crate) struct Place {
    pub(crate) folder: tempfile::TempDir,
    variables: Vec<(String, String)>,
    /// The program and arguments that run the program, if it is not run directly.
    within: Vec<String>,
}

impl Place {
    /// A place with nothing in it; ports are free ones.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut place = Self { folder, variables: Vec::new(), within: Vec::new() };
        for kind in LISTENERS {
            place.listen(kind, SocketAddr::from(([127, 0, 0, 1], 0)));
        }
        place.set("SIMGATE_API_LISTEN", "127.0.0.1:0");
        place.set("SIMGATE_INTEGRATIONS_ALLOW_HTTP_LOOPBACK", "true");
        place
    }

    /// A place whose gateway is killed again and again: its ports are below those that the system
    /// gives away (32,768 and up), so that no other test gets one between two starts.
    pub(crate) fn with_ports_of_its_own() -> Self {
        let mut place = Self::new();
        for kind in LISTENERS {
            place.listen(kind, own_port());
        }
        place.set("SIMGATE_API_LISTEN", &own_port().to_string());
        place
    }

    /// Where the only listener of a kind listens.
    pub(crate) fn listen(&mut self, kind: &str, address: SocketAddr) {
        self.set(&format!("SIMGATE_DEVICES_{kind}"), &format!("[{{ listen = \"{address}\" }}]"));
    }

    /// Listens to RADIUS accounting of anybody on loopback; says where.
    pub(crate) fn listen_to_radius(&mut self, secret: &str) -> SocketAddr {
        let client =
            format!("{{ name = \"core\", address = \"127.0.0.0/8\", secret = \"{secret}\" }}");
        let server = own_port();
        let listener = format!("{{ listen = \"{server}\", clients = [{client}] }}");
        self.set("SIMGATE_NETWORK_RADIUS", &format!("[{listener}]"));
        server
    }

    /// Runs the program from now on as the last argument of `prefix`.
    pub(crate) fn run_within(&mut self, prefix: &[&str]) {
        self.within = prefix.iter().map(|word| (*word).to_owned()).collect();
    }

    /// The folder of the message log.
    pub(crate) fn messages(&self) -> PathBuf {
        self.data().join("messages")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Sets an environment variable for the program.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.variables.retain(|(other, _)| other != name);
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// Later starts take the same ports, as devices expect.
    pub(crate) fn keep_ports(&mut self, gateway: &Gateway) {
        let Gateway { udp, coap, coaps, lwm2m, lwm2ms, .. } = *gateway;
        for (kind, address) in LISTENERS.into_iter().zip([udp, coap, coaps, lwm2m, lwm2ms]) {
            self.listen(kind, address);
        }
        self.set("SIMGATE_API_LISTEN", &gateway.api.to_string());
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let program = env!("CARGO_BIN_EXE_simgate");
        let mut command = match self.within.split_first() {
            Some((first, others)) => {
                let mut command = Command::new(first);
                command.args(others).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.args(arguments).arg("--data").arg(self.data());
        // Settings of the tests themselves, or of whoever runs them: the program would refuse
        // them as keys that it does not know.
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SIMGATE_")) {
            command.env_remove(name);
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command of the program to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Starts a command of the program and does not wait for it. It says nothing.
    pub(crate) fn spawn(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Writes `csv` and imports it.
    pub(crate) fn import(&self, csv: &str) -> Output {
        let file = self.folder.path().join("sims.csv");
        std::fs::write(&file, csv).unwrap();
        self.run(&["sims", "import", file.to_str().unwrap()])
    }

    /// Imports the SIMs of a simulated fleet.
    pub(crate) fn import_fleet(&self, fleet: &simulator::Fleet) {
        let mut csv = Vec::new();
        fleet.write_csv(&mut csv).unwrap();
        let output = self.import(std::str::from_utf8(&csv).unwrap());
        assert!(output.status.success(), "{output:?}");
    }

    /// Starts the gateway and waits until it says that it is ready.
    pub(crate) fn start(&self) -> Gateway {
        let mut command = self.command(&["serve"]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut greeting = Vec::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            greeting.push(line.unwrap());
            if greeting.last().unwrap().starts_with("ready") {
                break;
            }
        }
        let address = |name| address_in(&greeting, name);
        Gateway {
            udp: address("udp"),
            coap: address("coap"),
            coaps: address("coaps"),
            lwm2m: address("lwm2m"),
            lwm2ms: address("lwm2ms"),
            api: address("api"),
            child,
            greeting,
        }
    }

    /// A client of the API of `gateway`, with a token.
    pub(crate) fn api(&self, gateway: &Gateway) -> Api {
        let output = self.run(&["client", "create", "--name", "test"]);
        assert!(output.status.success(), "{output:?}");
        let client: Value = serde_json::from_slice(&output.stdout).unwrap();
        Api::log_in(
            gateway.api,
            client["client_id"].as_str().unwrap(),
            client["client_secret"].as_str().unwrap(),
        )
    }
}

/// The address in a line such as "coaps       coaps://127.0.0.1:5684/more".
fn address_in(greeting: &[String], name: &str) -> SocketAddr {
    let line = greeting
        .iter()
        .find(|line| line.split_whitespace().next() == Some(name))
        .and_then(|line| line.split_once("://"))
        .unwrap_or_else(|| panic!("no {name} address in {greeting:?}"));
    line.1.split('/').next().unwrap().trim().parse().unwrap()
}

impl Gateway {
    /// Where the program says that it listens for something.
    pub(crate) fn address(&self, name: &str) -> SocketAddr {
        address_in(&self.greeting, name)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL: no chance to write anything.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and what became of it.
    pub(crate) fn terminate(mut self) -> ExitStatus {
        let id = i32::try_from(self.child.id()).unwrap();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(id), nix::sys::signal::Signal::SIGTERM)
            .unwrap();
        self.wait()
    }

    /// Waits for the end of the process.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the gateway does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The value of a metric, summed over all label sets that hold every one of `labels`.
    pub(crate) fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = http_text(&format!("http://{}/metrics", self.api));
        text.lines()
            .filter(|line| line.split(['{', ' ']).next() == Some(name))
            .filter(|line| labels.iter().all(|label| line.contains(label)))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client of the management API.
pub(crate) struct Api {
    runtime: tokio::runtime::Runtime,
    client: reqwest::Client,
    base: String,
    token: String,
}

impl Api {
    fn log_in(address: SocketAddr, id: &str, secret: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let base = format!("http://{address}/management-api");
        let client = http_client();
        let answer = runtime.block_on(async {
            let request = client.post(format!("{base}/oauth/token")).basic_auth(id, Some(secret));
            let body = serde_json::json!({ "grant_type": "client_credentials" });
            request.json(&body).send().await.unwrap().json::<Value>().await.unwrap()
        });
        let token = answer["access_token"].as_str().unwrap_or_else(|| panic!("{answer}"));
        Self { runtime, client, base, token: token.to_owned() }
    }

    /// Calls the API; the status and the body (null where it is not JSON).
    pub(crate) fn call(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        self.runtime.block_on(async {
            let url = format!("{}{path}", self.base);
            let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
            let mut request = self.client.request(method, url).bearer_auth(&self.token);
            if let Some(body) = body {
                request = request.json(&body);
            }
            let answer = request.send().await.unwrap();
            let status = answer.status().as_u16();
            let text = answer.text().await.unwrap();
            (status, serde_json::from_str(&text).unwrap_or(Value::Null))
        })
    }

    /// Posts a text; the status and the body (null where it is not JSON).
    pub(crate) fn upload(&self, path: &str, media_type: &str, body: String) -> (u16, Value) {
        self.runtime.block_on(async {
            let request = self.client.post(format!("{}{path}", self.base));
            let request = request.bearer_auth(&self.token).header("content-type", media_type);
            let answer = request.body(body).send().await.unwrap();
            (answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null))
        })
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        let (status, body) = self.call("GET", path, None);
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    pub(crate) fn post(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.call("POST", path, Some(body));
        assert!((200..300).contains(&status), "{path}: {status} {answer}");
        answer
    }

    /// Asks something of a device, of which `protocol` is the language; the request's id.
    pub(crate) fn act(&self, iccid: &str, protocol: &str, body: Value) -> String {
        let path = format!("/v1/integrate/devices/{iccid}/actions/{protocol}");
        self.post(&path, body)["id"].as_str().unwrap().to_owned()
    }

    /// A request to a device, as it is now.
    pub(crate) fn action(&self, id: &str) -> Value {
        self.get(&format!("/v1/integrate/devices/actions/requests/{id}"))
    }

    /// A request to a device once it has ended.
    pub(crate) fn ended(&self, id: &str) -> Value {
        eventually("the end of the request", || {
            let action = self.action(id);
            let is_over = !["SCHEDULED", "IN_PROGRESS"].contains(&action["status"].as_str()?);
            is_over.then_some(action)
        })
    }

    /// What is stored of a device, the oldest first: protocol and payload.
    pub(crate) fn history(&self, iccid: &str) -> Vec<(String, String)> {
        let page = self.get(&format!("/v1/inspect/devices/{iccid}/history?pageSize=25"));
        let word = |item: &Value, name: &str| item[name].as_str().unwrap().to_owned();
        let items = page["items"].as_array().unwrap().iter().rev();
        items.map(|item| (word(item, "protocol"), word(item, "payload"))).collect()
    }

    /// Turns passive reporting on or off.
    pub(crate) fn set_passive_reporting(&self, state: &str) {
        let path = "/v1/settings/1nceos/LWM2M_PASSIVE_REPORTING";
        let (status, answer) =
            self.call("PATCH", path, Some(serde_json::json!({ "state": state })));
        assert_eq!(status, 200, "{answer}");
    }

    /// Creates an active template for both protocols.
    pub(crate) fn template(&self, template: &Value) -> Value {
        self.post(
            "/v1/optimize/templates",
            serde_json::json!({
                "name": "test",
                "template": template.to_string(),
                "protocolFilter": ["UDP", "COAP"],
                "status": "ACTIVE",
            }),
        )
    }

    /// Creates a webhook for all telemetry and errors.
    pub(crate) fn webhook(&self, url: &str) -> Value {
        self.post(
            "/v1/integrate/clouds/webhooks",
            serde_json::json!({
                "name": "test",
                "url": url,
                "headers": {},
                "eventTypes": [
                    { "type": "TELEMETRY_DATA" }, { "type": "ERROR" }, { "type": "LIFECYCLE" },
                ],
            }),
        )
    }
}

fn http_client() -> reqwest::Client {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap()
}

/// The body of a page that needs no token.
pub(crate) fn http_text(url: &str) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { http_client().get(url).send().await.unwrap().text().await.unwrap() })
}

/// The status and the body of a page that needs no token.
pub(crate) fn http_page(url: &str) -> (u16, Value) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let answer = http_client().get(url).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null))
    })
}

/// A number from `least` up to below `end`, another one each time.
pub(crate) fn random(least: u64, end: u64) -> u64 {
    // Each `RandomState` has keys of its own.
    least + RandomState::new().hash_one(least) % (end - least)
}

/// A random span of so many milliseconds.
pub(crate) fn random_time(least_ms: u64, end_ms: u64) -> Duration {
    Duration::from_millis(random(least_ms, end_ms))
}

/// An address on loopback for somebody who goes and comes back. Its port is below those that the
/// system gives away, and no two tests of this process get the same one: a port that was drawn
/// again while its first owner was down let a restart fail now and then.
pub(crate) fn own_port() -> SocketAddr {
    static FIRST: LazyLock<u16> =
        LazyLock::new(|| u16::try_from(random(0, PORTS.len() as u64)).unwrap_or(0));
    static DRAWN: AtomicU16 = AtomicU16::new(0);
    loop {
        let drawn = DRAWN.fetch_add(1, Ordering::Relaxed);
        assert!(usize::from(drawn) < PORTS.len(), "no port is free");
        // Other processes begin elsewhere.
        let port = PORTS.start + (*FIRST + drawn) % (PORTS.end - PORTS.start);
        if is_free(port) {
            return SocketAddr::from(([127, 0, 0, 1], port));
        }
    }
}

fn is_free(port: u16) -> bool {
    let address = ("127.0.0.1", port);
    std::net::UdpSocket::bind(address).is_ok() && std::net::TcpListener::bind(address).is_ok()
}

/// Waits until `found` finds something.
pub(crate) fn eventually<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what} did not happen within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// One SIM with the address `ip`, as a line of CSV with its header.
pub(crate) fn one_sim(iccid: &str, ip: &str) -> String {
    format!("iccid,imsi,msisdn,imei,ip,label\n{iccid},901405100002864,,,{ip},test\n")
}

/// SIMs, each with its address, as CSV.
pub(crate) fn sims(pairs: &[(&str, &str)]) -> String {
    let mut csv = "iccid,imsi,msisdn,imei,ip,label\n".to_owned();
    for (place, (iccid, ip)) in pairs.iter().enumerate() {
        writeln!(csv, "{iccid},{},,,{ip},test", 901_405_100_002_864 + place).unwrap();
    }
    csv
}

/// A CoAP POST from `device`, and the answer's code (class * 100 + detail) and payload.
pub(crate) fn coap_post(
    device: &std::net::UdpSocket,
    to: SocketAddr,
    message_id: u16,
    query: Option<&str>,
    payload: &[u8],
) -> (u16, Vec<u8>) {
    let request = coap_request(message_id, query, payload);
    device.set_read_timeout(Some(PATIENCE)).unwrap();
    device.send_to(&request, to).unwrap();
    let mut answer = [0; 1_500];
    let length = device.recv(&mut answer).unwrap();
    assert_eq!(answer[2..4], request[2..4], "the answer's message id");
    coap_answer(&answer[..length])
}

/// A confirmable CoAP POST to `/`.
fn coap_request(message_id: u16, query: Option<&str>, payload: &[u8]) -> Vec<u8> {
    let mut request = vec![0x42, 0x02];
    request.extend_from_slice(&message_id.to_be_bytes());
    request.extend_from_slice(&message_id.to_le_bytes());
    if let Some(query) = query {
        push_option(&mut request, 15, query.as_bytes());
    }
    request.push(0xff);
    request.extend_from_slice(payload);
    request
}

/// The code (class * 100 + detail) and the payload of a CoAP answer.
fn coap_answer(answer: &[u8]) -> (u16, Vec<u8>) {
    let code = u16::from(answer[1] >> 5) * 100 + u16::from(answer[1] & 0x1f);
    let payload = answer.iter().position(|byte| *byte == 0xff);
    (code, payload.map_or(Vec::new(), |at| answer[at + 1..].to_vec()))
}

/// The seconds of the option Max-Age (RFC 7252 §5.10.5) of an answer.
pub(crate) fn max_age(message: &[u8]) -> Option<u32> {
    let mut rest = &message[4 + usize::from(message[0] & 0x0f)..];
    let mut number = 0;
    while let [first, others @ ..] = rest
        && *first != 0xff
    {
        let (mut delta, length) = (first >> 4, usize::from(first & 0x0f));
        rest = others;
        if delta == 13 {
            delta += rest[0];
            rest = &rest[1..];
        }
        assert!(delta < 200 && length < 13, "an unusual option: {message:02x?}");
        number += delta;
        let (value, after) = rest.split_at(length);
        if number == 14 {
            return Some(value.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)));
        }
        rest = after;
    }
    None
}

/// The first option of a message.
fn push_option(message: &mut Vec<u8>, number: u8, value: &[u8]) {
    let nibble = |number: usize| match number {
        0..=12 => (u8::try_from(number).unwrap(), vec![]),
        13..=268 => (13, vec![u8::try_from(number - 13).unwrap()]),
        more => (14, u16::try_from(more - 269).unwrap().to_be_bytes().to_vec()),
    };
    let (delta, delta_more) = nibble(usize::from(number));
    let (length, length_more) = nibble(value.len());
    message.push(delta << 4 | length);
    message.extend(delta_more);
    message.extend(length_more);
    message.extend_from_slice(value);
}

/// A program of the machine, or a clear failure: `./test.sh` installs what is needed.
pub(crate) fn foreign(program: &str) -> Command {
    let found = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|folder| folder.join(program).exists())
    });
    assert!(found || Path::new(program).exists(), "{program} is missing: run ./test.sh");
    Command::new(program)
}
