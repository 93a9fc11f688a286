//! House rules that a machine can check, so that a review can be about meaning.

use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a Rust file without its tests.
const FILE_LINES_MAX: usize = 600;
/// Characters of a line of Rust.
const LINE_CHARS_MAX: usize = 100;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the gateway lies in the root").to_owned()
}

/// Every file of the repository with one of the endings, as (path from the root, text).
fn files(endings: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    collect(&root(), endings, &mut found);
    assert!(!found.is_empty(), "no file found: the check would check nothing");
    found
}

fn collect(folder: &Path, endings: &[&str], found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).expect("a folder of the repository").flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        let skipped = [".git", "target", "simgate-data", "corpus", "artifacts", "node_modules"];
        if skipped.contains(&name.as_str()) || name.starts_with(".venv") {
            continue;
        }
        if path.is_dir() {
            collect(&path, endings, found);
        } else if endings.iter().any(|ending| name.ends_with(ending)) {
            let place = path.strip_prefix(root()).expect("inside of the root");
            let text = fs::read_to_string(&path).expect("source files are UTF-8");
            found.push((place.to_string_lossy().into_owned(), text));
        }
    }
}

fn without_tests(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod ").next().unwrap_or(text)
}

fn fail_on(offences: &[String]) {
    assert!(offences.is_empty(), "{}", offences.join("\n"));
}

#[test]
fn files_are_short() {
    let offences: Vec<_> = files(&[".rs"])
        .iter()
        .filter(|(path, _)| !path.contains("tests/"))
        .map(|(path, text)| (path, without_tests(text).lines().count()))
        .filter(|(_, lines)| *lines > FILE_LINES_MAX)
        .map(|(path, lines)| format!("{path}: {lines} lines, allowed: {FILE_LINES_MAX}"))
        .collect();
    fail_on(&offences);
}

#[test]
fn lines_are_short() {
    let mut offences = Vec::new();
    for (path, text) in files(&[".rs"]) {
        for (index, line) in text.lines().enumerate() {
            let chars = line.chars().count();
            // Bytes of a captured datagram or a text for people may need a longer line.
            if chars > LINE_CHARS_MAX && !line.contains('"') {
                offences.push(format!("{path}:{}: {chars} characters", index + 1));
            }
        }
    }
    fail_on(&offences);
}

#[test]
fn names_say_what_a_thing_is() {
    let banned = ["utils", "util", "common", "helpers", "helper", "manager", "misc"];
    let offences: Vec<_> = files(&[".rs"])
        .iter()
        .filter(|(path, _)| {
            let stem = Path::new(path).file_stem().unwrap_or_default().to_string_lossy();
            banned.contains(&stem.as_ref())
        })
        .map(|(path, _)| format!("{path}: a name that says nothing"))
        .collect();
    fail_on(&offences);
    let offences: Vec<_> = files(&[".rs"])
        .iter()
        .filter(|(path, _)| path != "tests/tidy.rs")
        .flat_map(|(path, text)| {
            text.lines()
                .enumerate()
                .filter(|(_, line)| line.trim_start().contains("fn get_"))
                .map(move |(index, _)| format!("{path}:{}: name it without get_", index + 1))
                .collect::<Vec<_>>()
        })
        .collect();
    fail_on(&offences);
}

#[test]
fn nothing_is_left_for_later() {
    let marks = ["TODO", "FIXME", "XXX", "HACK", "#[ignore", "allow(dead_code", "allow(unused"];
    let mut offences = Vec::new();
    for (path, text) in files(&[".rs", ".toml", ".sh"]) {
        if path == "tests/tidy.rs" {
            continue;
        }
        for (index, line) in text.lines().enumerate() {
            if let Some(mark) = marks.iter().find(|mark| line.contains(**mark)) {
                offences.push(format!("{path}:{}: {mark}", index + 1));
            }
        }
    }
    fail_on(&offences);
}

/// The layers of ARCHITECTURE.md: what each crate may depend on among ours.
const LAYERS: &[(&str, &[&str])] = &[
    ("vocabulary", &[]),
    ("state", &[]),
    ("sealing", &[]),
    ("message-log", &["vocabulary"]),
    ("device-integrator/coap", &[]),
    ("device-integrator/lwm2m", &["vocabulary", "coap"]),
    ("device-integrator/dtls", &[]),
    ("device-integrator", &["vocabulary", "coap", "lwm2m", "dtls"]),
    ("device-integrator/registrations", &["vocabulary", "state"]),
    ("device-authenticator", &["vocabulary", "data-sessions"]),
    ("device-authenticator/keys", &["vocabulary", "state", "sealing"]),
    ("device-authenticator/sessions", &["state", "sealing"]),
    ("energy-saver", &[]),
    ("energy-saver/library", &["vocabulary", "state", "energy-saver"]),
    ("connectivity", &["vocabulary", "state"]),
    ("connectivity/radius", &["vocabulary"]),
    ("connectivity/sessions", &["vocabulary", "state"]),
    ("connectivity/streams", &["vocabulary"]),
    ("cloud-integrator", &["vocabulary", "state", "sealing", "message-log", "template-library"]),
    ("cloud-integrator/onboarding", &["vocabulary", "state", "sealing", "cloud-integrator"]),
    ("locator/cells", &["vocabulary"]),
    ("locator/geofences", &["vocabulary"]),
    (
        "locator",
        &["vocabulary", "state", "message-log", "template-library", "cell-database", "geofence"],
    ),
    ("device-controller", &["vocabulary", "state"]),
    ("inspector", &["vocabulary", "state", "message-log", "energy-saver", "template-library"]),
    ("device-controller/firmware", &["vocabulary", "state"]),
    ("simulator", &["vocabulary", "coap", "lwm2m", "dtls", "radius"]),
];

#[test]
fn no_crate_knows_more_than_its_layer() {
    let allowed = LAYERS;
    let ours: Vec<String> = allowed
        .iter()
        .map(|(folder, _)| match *folder {
            "device-integrator/coap" => "coap".to_owned(),
            "device-integrator/lwm2m" => "lwm2m".to_owned(),
            "device-integrator/dtls" => "dtls".to_owned(),
            "device-integrator/registrations" => "registration-store".to_owned(),
            "device-authenticator/keys" => "key-store".to_owned(),
            "device-authenticator/sessions" => "session-store".to_owned(),
            "energy-saver/library" => "template-library".to_owned(),
            "cloud-integrator/onboarding" => "aws-onboarding".to_owned(),
            "locator/cells" => "cell-database".to_owned(),
            "locator/geofences" => "geofence".to_owned(),
            "connectivity/radius" => "radius".to_owned(),
            "connectivity/streams" => "data-streamer".to_owned(),
            "connectivity/sessions" => "data-sessions".to_owned(),
            "device-controller/firmware" => "firmware-update".to_owned(),
            other => other.to_owned(),
        })
        .chain(["management-api".to_owned(), "gateway".to_owned()])
        .collect();
    let mut offences = Vec::new();
    for (folder, may) in allowed {
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml"))
            .expect("every room has a manifest");
        let dependencies = manifest.split("[dev-dependencies]").next().unwrap_or_default();
        for line in dependencies.lines() {
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
            let is_ours = ours.iter().any(|crate_name| crate_name == name);
            if is_ours && line.contains("workspace") && !may.contains(&name) {
                offences.push(format!("{folder} may not know {name}"));
            }
        }
    }
    fail_on(&offences);
}

/// The cores do no I/O and read no clock.
#[test]
fn cores_are_pure() {
    let banned = [
        "std::net::UdpSocket",
        "std::fs",
        "std::thread",
        "SystemTime::now",
        "Instant::now",
        "tokio",
    ];
    let cores = [
        "vocabulary/src",
        "device-integrator/coap/src",
        "device-integrator/lwm2m/src",
        "device-integrator/dtls/src",
        "energy-saver/src",
        "locator/geofences/src",
        "connectivity/streams/src",
        // Only its server does.
        "connectivity/radius/src/accounting",
        "connectivity/radius/src/attribute",
        "connectivity/radius/src/client",
        "connectivity/radius/src/location",
        "connectivity/radius/src/reading",
        "connectivity/radius/src/request",
        "connectivity/radius/src/wire",
    ];
    let mut offences = Vec::new();
    for (path, text) in files(&[".rs"]) {
        if !cores.iter().any(|core| path.starts_with(core)) || path.ends_with("/tests.rs") {
            continue;
        }
        for word in banned.iter().filter(|word| without_tests(&text).contains(**word)) {
            offences.push(format!("{path}: {word} in a core"));
        }
    }
    fail_on(&offences);
}

/// Unsafe code stands in one named module per crate that needs a system call.
#[test]
fn unsafe_code_has_one_place() {
    let places = [
        "simulator/src/socket.rs",
        "device-integrator/dtls/src/ffi.rs",
        "locator/cells/src/map.rs",
    ];
    let keyword = concat!("uns", "afe");
    let offences: Vec<_> = files(&[".rs"])
        .iter()
        .filter(|(path, _)| path.contains("src/") && !places.contains(&path.as_str()))
        .filter(|(_, text)| {
            text.contains(&format!("{keyword} {{")) || text.contains(&format!("{keyword} fn"))
        })
        .map(|(path, _)| format!("{path}: {keyword} code outside of {places:?}"))
        .collect();
    fail_on(&offences);
}

/// The project speaks of itself alone.
#[test]
fn no_word_of_the_workplace() {
    let words = [
        "/work/",
        "/root/",
        "crates.io/",
        "docs.rs/",
        "pypi.org",
        "npmjs",
        "platform-behaviour",
        "delivery-and-safety",
        "house.md",
        "crates.md",
    ];
    let mut offences = Vec::new();
    for (path, text) in files(&[".rs", ".md", ".toml", ".sh"]) {
        if path == "tests/tidy.rs" {
            continue;
        }
        for word in words.iter().filter(|word| text.contains(**word)) {
            offences.push(format!("{path}: {word}"));
        }
    }
    fail_on(&offences);
}
