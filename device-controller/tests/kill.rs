//! A process that is killed: what was answered is there, whatever was in progress.

#![allow(clippy::unwrap_used, reason = "the whole program is a test")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};

use device_controller::{
    Action, Controller, Dispatch, Dispatcher, Limits, Mode, NewRequest, Outcome, Payload,
    PayloadType, RequestId, Status, UdpAction,
};
use vocabulary::{Iccid, Timestamp};

const FOLDER: &str = "DEVICE_CONTROLLER_TEST_FOLDER";
/// Answers that are waited for before the process is killed.
const ANSWERS: usize = 400;

fn now() -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000)
}

fn request(number: u64) -> NewRequest {
    let payload = Payload::parse("x", PayloadType::Text).unwrap();
    let mode = if number.is_multiple_of(2) { Mode::SendNow } else { Mode::SendWhenActive };
    NewRequest {
        device: Iccid::from_u64(8_988_280_666_000_000_000 + number).unwrap(),
        action: Action::Udp(UdpAction { port: 3000, payload }),
        mode,
        send_attempts: 1,
        imsi: None,
        ip: None,
    }
}

/// Not a test by itself: a process that takes requests until it is killed, and says which. It
/// sends half of those that are to be sent now.
#[test]
fn victim() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let slot: Arc<OnceLock<Controller>> = Arc::default();
    let within = Arc::clone(&slot);
    let dispatcher: Dispatcher = Arc::new(move |dispatch: Dispatch| {
        let outcome = Outcome::Succeeded { code: None, payload: vec![], content_format: None };
        if dispatch.device.as_u64().is_multiple_of(4) {
            within.get().unwrap().report(dispatch.serial, now(), outcome);
        }
    });
    let path = Path::new(&folder).join("actions.db");
    let controller = Controller::open(&path, Limits::default(), dispatcher).unwrap();
    slot.set(controller.clone()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_u64 {
            let controller = &controller;
            scope.spawn(move || {
                for number in 0.. {
                    let new = vec![request(number * 4 + thread)];
                    let answers = controller.submit(now(), new, &|_| true).unwrap();
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "taken {}", answers[0].as_ref().unwrap()).unwrap();
                    out.flush().unwrap();
                }
            });
        }
    });
}

#[test]
fn what_was_answered_survives_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "victim", "--nocapture"])
        .env(FOLDER, folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut taken: Vec<RequestId> = Vec::new();
    for line in lines {
        let line = line.unwrap_or_default();
        taken.extend(line.rsplit_once("taken ").and_then(|(_, id)| id.parse::<RequestId>().ok()));
        if taken.len() == ANSWERS {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(taken.len() >= ANSWERS, "{}", taken.len());
    let handed: Arc<Mutex<Vec<RequestId>>> = Arc::default();
    let within = Arc::clone(&handed);
    let dispatcher: Dispatcher =
        Arc::new(move |dispatch| within.lock().unwrap().push(dispatch.request));
    let path = folder.path().join("actions.db");
    let controller = Controller::open(&path, Limits::default(), dispatcher).unwrap();
    controller.resume(now()).unwrap();
    let handed = handed.lock().unwrap().clone();
    for id in taken {
        let found = controller.find(id).unwrap().unwrap();
        let expected = match (found.mode, handed.contains(&id)) {
            (Mode::SendNow, true) => Status::InProgress,
            (Mode::SendNow, false) => Status::Succeeded,
            (Mode::SendWhenActive, is_handed) => {
                assert!(!is_handed);
                Status::Scheduled
            }
        };
        assert_eq!(found.status, expected);
    }
}
