//! The program as a user meets it: commands, exit codes, messages, pages.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use simulator::Fleet;

use crate::support::{
    Gateway, LISTENERS, PATIENCE, Place, coap_post, eventually, http_page, http_text, one_sim,
};

const ICCID: &str = "8988280666000002867";

/// The program, without what is set for the tests or for whoever runs them.
fn simgate(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_simgate"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("SIMGATE_")) {
        command.env_remove(name);
    }
    command.args(arguments);
    command
}

/// Runs a command that has to end by itself; what it said is short.
fn ended(mut command: Command) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("{command:?} does not end: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// `serve` in a folder of its own, with free ports and the settings on top of them.
fn serve(place: &Place, settings: &[(&str, &str)]) -> Command {
    let mut command = simgate(&["serve", "--data"]);
    command.arg(place.data());
    for kind in LISTENERS {
        command.env(format!("SIMGATE_DEVICES_{kind}"), "[{ listen = \"127.0.0.1:0\" }]");
    }
    command.env("SIMGATE_API_LISTEN", "127.0.0.1:0");
    command.envs(settings.iter().copied());
    command
}

#[test]
fn a_wrong_configuration_ends_the_start_before_any_port_is_bound() {
    let place = Place::new();
    // A start that came as far as to bind would find this port taken, and say that instead.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap().to_string();
    let cases: [(&str, &str, &[&str]); 7] = [
        ("SIMGATE_API_LISSEN", "127.0.0.1:1", &["lissen", "listen", "tls_certificate"]),
        ("SIMGATE_NOWHERE_KEY", "1", &["nowhere", "devices", "operations"]),
        ("SIMGATE_DATA_RETENTION_HOURS", "0", &["data.retention_hours is 0", "1 to 8784"]),
        ("SIMGATE_DATA_RETENTION_HOURS", "week", &["week", "retention_hours"]),
        ("SIMGATE_DEVICES_UDP", "[{ listen = \"0.0.0.0:4445\" }]", &["0.0.0.0", "trusted_apn"]),
        ("SIMGATE_LOG_FILTER", "info,=", &["log.filter", "info", "debug"]),
        ("SIMGATE_LOG_FORMAT", "xml", &["xml", "text", "json"]),
    ];
    for (name, value, words) in cases {
        let output = ended(serve(&place, &[("SIMGATE_API_LISTEN", &listen), (name, value)]));
        let errors = errors(&output);
        assert_eq!(output.status.code(), Some(64), "{name}={value}: {errors}");
        for word in words {
            assert!(errors.contains(word), "{name}={value}: {word:?} is not in: {errors}");
        }
        assert_eq!(said(&output), "", "{name}={value}");
    }
    assert!(!place.data().exists(), "nothing is created either");
}

#[test]
fn a_certificate_that_cannot_be_read_is_a_wrong_configuration() {
    let place = Place::new();
    let files = [
        ("SIMGATE_API_TLS_CERTIFICATE", "/nowhere/certificate.pem"),
        ("SIMGATE_API_TLS_KEY", "/nowhere/key.pem"),
    ];
    let output = ended(serve(&place, &files));
    let errors = errors(&output);
    assert_eq!(output.status.code(), Some(64), "{errors}");
    assert!(errors.contains("/nowhere/certificate.pem"), "{errors}");
    assert!(!place.data().exists(), "nothing is created either");
}

#[test]
fn a_wrong_file_is_named_with_its_line() {
    let place = Place::new();
    let file = place.folder.path().join("simgate.toml");
    std::fs::write(&file, "[api]\nlisten = \"localhost\"\n").unwrap();
    let output = ended(simgate(&["serve", "--config", file.to_str().unwrap()]));
    let wrong = errors(&output);
    assert_eq!(output.status.code(), Some(64), "{wrong}");
    for word in ["simgate.toml", "line 2", "localhost", "127.0.0.1:8080"] {
        assert!(wrong.contains(word), "{word:?} is not in: {wrong}");
    }
    let output = ended(simgate(&["serve", "--config", "/no/such/file.toml"]));
    assert_eq!(output.status.code(), Some(64));
    assert!(errors(&output).contains("/no/such/file.toml"));
}

#[test]
fn a_port_in_use_is_named() {
    let place = Place::new();
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = udp.local_addr().unwrap().to_string();
    let held = std::net::TcpListener::bind(tcp).unwrap();
    let listener = format!("[{{ listen = \"{address}\" }}]");
    for (name, value, named) in [
        ("SIMGATE_API_LISTEN", tcp.to_string(), tcp.to_string()),
        ("SIMGATE_OPERATIONS_LISTEN", tcp.to_string(), tcp.to_string()),
        ("SIMGATE_DEVICES_UDP", listener.clone(), address.clone()),
        ("SIMGATE_DEVICES_COAP", listener, address),
    ] {
        let output = ended(serve(&place, &[(name, &value)]));
        let errors = errors(&output);
        assert_eq!(output.status.code(), Some(1), "{name}: {errors}");
        assert!(errors.contains(&named) && errors.contains("in use"), "{name}: {errors}");
    }
    drop(held);
}

#[test]
fn a_second_gateway_on_the_same_folder_is_refused() {
    let place = Place::new();
    let gateway = place.start();
    let output = ended(serve(&place, &[]));
    let errors = errors(&output);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    let folder = place.data();
    assert!(errors.contains(folder.to_str().unwrap()), "{errors}");
    assert!(errors.contains("another process"), "{errors}");
    assert_eq!(http_page(&format!("http://{}/health", gateway.api)).0, 200);
}

/// Whether any file below `folder` holds `secret`.
fn holds(folder: &Path, secret: &str) -> bool {
    std::fs::read_dir(folder).unwrap().flatten().any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return holds(&path, secret);
        }
        let bytes = std::fs::read(&path).unwrap();
        bytes.windows(secret.len()).any(|window| window == secret.as_bytes())
    })
}

#[test]
fn a_clients_secret_is_shown_once_and_stored_nowhere() {
    let place = Place::new();
    let output = place.run(&["client", "create", "--name", "dashboards"]);
    assert!(output.status.success(), "{output:?}");
    let client: Value = serde_json::from_slice(&output.stdout).unwrap();
    let (id, secret) =
        (client["client_id"].as_str().unwrap(), client["client_secret"].as_str().unwrap());
    assert_eq!(client.as_object().unwrap().len(), 2);
    assert!(secret.len() >= 20, "{secret}");
    assert!(holds(&place.data(), id), "the search finds what is there");
    assert!(!holds(&place.data(), secret));
    let gateway = place.start();
    let api = place.api(&gateway);
    assert!(api.get("/v1/inspect/devices")["items"].is_array());
    assert!(!holds(&place.data(), secret), "nor while it is served");
    let unnamed = place.run(&["client", "create"]);
    assert_eq!(unnamed.status.code(), Some(2), "--name is required: {unnamed:?}");
}

const LINES: &str = "iccid,imsi,msisdn,imei,ip,label
8988280666000003001,901405100003001,,,127.0.0.98,good
898828066600000300,901405100003002,,,127.0.0.99,an iccid too short
8988280666000003003,90140510000300,,,127.0.0.99,an imsi too short
8988280666000003004,901405100003004,,,127.0.0.999,no address
8988280666000003005,901405100003005,,,,good without an address
";

#[test]
fn bad_lines_of_an_import_are_named_and_the_good_ones_taken() {
    let place = Place::new();
    let output = place.import(LINES);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let named = errors(&output);
    for (line, word) in [(3, "iccid"), (4, "imsi"), (5, "127.0.0.999")] {
        let found = named.lines().find(|text| text.starts_with(&format!("line {line}: ")));
        assert!(found.is_some_and(|text| text.contains(word)), "line {line}, {word}: {named}");
    }
    assert_eq!(named.lines().count(), 3, "{named}");
    let counts = "5 lines read: 2 SIMs created, 0 updated, 0 unchanged, 3 lines rejected\n";
    assert_eq!(said(&output), counts);
    let again = place.import(LINES);
    assert_eq!(again.status.code(), Some(1));
    let counts = "5 lines read: 0 SIMs created, 0 updated, 2 unchanged, 3 lines rejected\n";
    assert_eq!(said(&again), counts);
    let missing = place.run(&["sims", "import", "/no/such/file.csv"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(errors(&missing).contains("/no/such/file.csv"));
}

/// Waits until `device` is accepted, which a change of the SIMs must bring about soon. The
/// documented half a second is not asserted: the machine may be busy.
fn is_soon_accepted(device: &UdpSocket, gateway: &Gateway) {
    let imported = Instant::now();
    let mut message_id = 1_000;
    eventually("the acceptance of an imported SIM", || {
        message_id += 1;
        (coap_post(device, gateway.coap, message_id, None, b"x").0 == 204).then_some(())
    });
    let elapsed = imported.elapsed();
    assert!(elapsed < Duration::from_secs(5), "{elapsed:?}");
}

#[test]
fn sims_can_be_imported_beside_a_serving_gateway() {
    let place = Place::new();
    let gateway = place.start();
    let by_command = UdpSocket::bind("127.0.0.98:0").unwrap();
    let by_api = UdpSocket::bind("127.0.0.99:0").unwrap();
    for device in [&by_command, &by_api] {
        assert_eq!(coap_post(device, gateway.coap, 1, None, b"x").0, 401);
    }
    assert!(place.import(&one_sim(ICCID, "127.0.0.98")).status.success());
    is_soon_accepted(&by_command, &gateway);

    let api = place.api(&gateway);
    let path = "/simgate/v1/sims/import";
    let csv = format!("{LINES}8988280666000003006,901405100003006,,,127.0.0.99,over the API\n");
    let (status, report) = api.upload(path, "text/csv", csv.replace("127.0.0.98", "127.0.0.97"));
    assert_eq!(status, 200, "{report}");
    assert_eq!((&report["read"], &report["created"]), (&6.into(), &3.into()), "{report}");
    let lines: Vec<_> =
        report["rejections"].as_array().unwrap().iter().map(|line| &line["line"]).collect();
    assert_eq!(lines, [3, 4, 5]);
    assert!(report["rejections"][0]["reason"].as_str().unwrap().contains("iccid"), "{report}");
    is_soon_accepted(&by_api, &gateway);
    assert_eq!(api.upload(path, "application/json", "{}".to_owned()).0, 415);
}

#[test]
fn a_simulated_run_is_told_as_json() {
    let place = Place::new();
    let fleet = Fleet::new(Ipv4Addr::new(127, 42, 0, 1), 5).unwrap();
    place.import_fleet(&fleet);
    let gateway = place.start();
    for (protocol, target, acknowledged) in
        [("coap-con", gateway.coap, 50), ("coap-non", gateway.coap, 50), ("udp", gateway.udp, 0)]
    {
        let target = target.to_string();
        let options = ["--devices", "5", "--base", "127.42.0.1", "--count", "50", "--json"];
        let mut command = simgate(&["simulate", &target, "--protocol", protocol]);
        command.args(options);
        let output = ended(command);
        assert!(output.status.success(), "{output:?}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["sent"], 50, "{protocol}: {report}");
        assert_eq!(report["acknowledged"], acknowledged, "{protocol}: {report}");
        assert_eq!(report["lost"], 0, "{protocol}: {report}");
        assert!(report["retransmitted"].is_u64(), "{report}");
        for percentile in ["p50_us", "p99_us", "p999_us"] {
            assert!(report["latency"][percentile].is_u64(), "{report}");
        }
    }
    let stored = ["outcome=\"stored\""];
    eventually("all messages are stored", || {
        (gateway.metric("simgate_messages_total", &stored) == 150.0).then_some(())
    });
}

#[test]
fn the_demonstration_shows_decoded_messages_and_loses_none() {
    let output = ended(simgate(&["demo", "--seconds", "3", "--devices", "3"]));
    assert!(output.status.success(), "{output:?}");
    let text = said(&output);
    let decoded: Vec<Value> = text
        .lines()
        .filter(|line| line.starts_with("COAP "))
        .filter_map(|line| serde_json::from_str(&line[line.find('{')?..]).ok())
        .collect();
    assert!(decoded.len() >= 3, "{text}");
    assert!(decoded.iter().all(|value| value.as_object().unwrap().len() == 3), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("NEW ")).count(), 3, "{text}");
    let row = |name: &str| -> u64 {
        let line = text.lines().find(|line| line.split_whitespace().next() == Some(name));
        line.and_then(|line| line.split_whitespace().last()?.parse().ok()).expect(name)
    };
    assert!(row("sent") >= 3, "{text}");
    assert_eq!((row("acknowledged"), row("lost"), row("unanswered")), (row("sent"), 0, 0));
}

#[test]
fn every_command_explains_itself() {
    let commands: [&[&str]; 8] = [
        &[],
        &["serve"],
        &["client"],
        &["client", "create"],
        &["sims"],
        &["sims", "import"],
        &["simulate"],
        &["demo"],
    ];
    for command in commands {
        let output = ended(simgate(&[command, &["--help"]].concat()));
        assert!(output.status.success(), "{command:?}: {output:?}");
        assert!(said(&output).contains("Usage: simgate"), "{command:?}: {output:?}");
    }
    assert!(said(&ended(simgate(&["--version"]))).starts_with("simgate "));
    assert_eq!(ended(simgate(&["no-such-command"])).status.code(), Some(2));
}

#[test]
fn a_terminated_gateway_ends_in_time_and_in_order() {
    let place = Place::new();
    let gateway = place.start();
    // A client that keeps its connection open and says nothing.
    let idle = std::net::TcpStream::connect(gateway.api).unwrap();
    let asked = Instant::now();
    assert!(gateway.terminate().success());
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
    drop(idle);
}

/// Checks one line of the Prometheus text format: `name{label="value",...} number`.
fn check_sample(line: &str) {
    let (series, value) = line.rsplit_once(' ').unwrap();
    assert!(value.parse::<f64>().is_ok(), "{line}");
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}').expect(line)),
        None => (series, ""),
    };
    let is_name = |name: &str| {
        let mut chars = name.chars();
        chars.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
            && chars.all(|char| char.is_ascii_alphanumeric() || "_:".contains(char))
    };
    assert!(is_name(name) && name.starts_with("simgate_"), "{line}");
    for label in labels.split(',').filter(|label| !label.is_empty()) {
        let (name, value) = label.split_once('=').expect(line);
        assert!(is_name(name), "{line}");
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        assert!(value.is_some_and(|value| !value.is_empty()), "{line}");
    }
}

#[test]
fn metrics_and_health_can_be_read_by_machines() {
    let place = Place::new();
    assert!(place.import(&one_sim(ICCID, "127.0.0.97")).status.success());
    let gateway = place.start();
    let device = UdpSocket::bind("127.0.0.97:0").unwrap();
    assert_eq!(coap_post(&device, gateway.coap, 1, None, b"x").0, 204);
    // Counters of the protocol are carried over twice a second, drops five times.
    std::thread::sleep(Duration::from_millis(600));
    let text = http_text(&format!("http://{}/metrics", gateway.api));
    let mut series = std::collections::HashSet::new();
    for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        check_sample(line);
        assert!(series.insert(line.rsplit_once(' ').unwrap().0), "twice: {line}");
    }
    for metric in [
        "simgate_datagrams_received_total{protocol=\"COAP\"} 1",
        "simgate_messages_total{protocol=\"COAP\",outcome=\"stored\"} 1",
        "simgate_kernel_receive_drops_total{protocol=\"COAP\"",
        "simgate_kernel_receive_drops_total{protocol=\"UDP\"",
        "simgate_log_commit_seconds",
    ] {
        assert!(text.contains(metric), "{metric}: {text}");
    }
    let (status, health) = http_page(&format!("http://{}/health", gateway.api));
    assert_eq!((status, &health["status"]), (200, &"ready".into()), "{health}");
    assert_eq!(
        (&health["durability"], &health["log"]["state"]),
        (&"D1 local".into(), &"healthy".into())
    );
    assert!(health["version"].is_string(), "{health}");
}

/// The address of `/health` and `/metrics`, as the greeting names it.
fn operations(gateway: &Gateway) -> SocketAddr {
    let line = gateway.greeting.iter().find(|line| line.starts_with("operations")).unwrap();
    let address = line.split_once("http://").unwrap().1.split('/').next().unwrap();
    address.parse().unwrap()
}

#[test]
fn operations_can_have_an_address_of_their_own() {
    let mut place = Place::new();
    place.set("SIMGATE_OPERATIONS_LISTEN", "127.0.0.1:0");
    let gateway = place.start();
    let own = operations(&gateway);
    assert_ne!(own, gateway.api);
    assert_eq!(http_page(&format!("http://{own}/health")).0, 200);
    assert_eq!(http_page(&format!("http://{own}/metrics")).0, 200);
    let api = gateway.api;
    for page in ["health", "metrics"] {
        assert_eq!(http_page(&format!("http://{api}/{page}")).0, 404, "{page}");
    }
    let document = "management-api/v1/inspect/devices";
    assert_eq!(http_page(&format!("http://{own}/{document}")).0, 404, "no customer's data here");
    assert_eq!(http_page(&format!("http://{api}/{document}")).0, 401);
}

#[test]
fn the_api_speaks_https_with_a_certificate() {
    let mut place = Place::new();
    let signed = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let certificate = place.folder.path().join("certificate.pem");
    let key = place.folder.path().join("key.pem");
    std::fs::write(&certificate, signed.cert.pem()).unwrap();
    std::fs::write(&key, signed.signing_key.serialize_pem()).unwrap();
    place.set("SIMGATE_API_TLS_CERTIFICATE", certificate.to_str().unwrap());
    place.set("SIMGATE_API_TLS_KEY", key.to_str().unwrap());
    let gateway = place.start();
    let url = format!("https://{}", gateway.api);
    assert!(gateway.greeting.iter().any(|line| line.contains(&url)), "{:?}", gateway.greeting);

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let root = reqwest::Certificate::from_pem(signed.cert.pem().as_bytes()).unwrap();
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([root]).build().unwrap();
    let status = |url: String| {
        runtime.block_on(async { client.get(url).send().await.map(|answer| answer.status()) })
    };
    assert_eq!(status(format!("{url}/health")).unwrap(), 200);
    assert_eq!(status(format!("{url}/management-api/v1/inspect/devices")).unwrap(), 401);
    assert!(status(format!("http://{}/health", gateway.api)).is_err(), "no plain HTTP there");
    // Connections that are left open would hold the end up.
    drop((client, runtime));
    assert!(gateway.terminate().success());
}
