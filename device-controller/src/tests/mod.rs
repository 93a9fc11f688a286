//! The controller on real files.

mod behaviour;
mod model;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vocabulary::{Iccid, Timestamp};

use crate::*;

/// What a sender was handed.
pub(crate) type Handed = Arc<Mutex<Vec<Dispatch>>>;

pub(crate) struct World {
    folder: tempfile::TempDir,
    pub(crate) controller: Controller,
    pub(crate) handed: Handed,
    pub(crate) now: Timestamp,
}

pub(crate) fn device(number: u64) -> Iccid {
    Iccid::from_u64(8_988_280_666_000_000_000 + number).unwrap()
}

pub(crate) fn udp(text: &str) -> Action {
    let payload = Payload::parse(text, PayloadType::Text).unwrap();
    Action::Udp(UdpAction { port: 3000, payload })
}

pub(crate) fn coap(path: &str) -> Action {
    let payload = Payload::parse("AP8=", PayloadType::Base64).ok();
    Action::Coap(CoapAction { port: 5683, method: CoapMethod::Post, path: path.into(), payload })
}

pub(crate) fn lwm2m(name: &str, data: Option<&str>) -> Action {
    let operation = Lwm2mOperation::parse(name, data).unwrap();
    Action::Lwm2m(Lwm2mAction { resource_address: "/3311/0/5850".into(), operation })
}

pub(crate) fn request(number: u64, action: Action, mode: Mode) -> NewRequest {
    let device = device(number);
    NewRequest { device, action, mode, send_attempts: 1, imsi: None, ip: None }
}

pub(crate) fn success() -> Outcome {
    Outcome::Succeeded { code: Some(205), payload: b"on".to_vec(), content_format: Some(0) }
}

pub(crate) fn unreachable() -> Outcome {
    Outcome::Unreachable { message: "no answer".to_owned() }
}

pub(crate) fn not_sent() -> Outcome {
    Outcome::NotSent { message: "not registered".to_owned() }
}

fn open(path: &std::path::Path, limits: Limits) -> (Controller, Handed) {
    let handed = Handed::default();
    let taken = Arc::clone(&handed);
    let dispatcher = Arc::new(move |dispatch| taken.lock().unwrap().push(dispatch));
    (Controller::open(path, limits, dispatcher).unwrap(), handed)
}

impl World {
    pub(crate) fn new() -> Self {
        Self::with(Limits::default())
    }

    pub(super) fn with(limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (controller, handed) = open(&folder.path().join("actions.db"), limits);
        let now = Timestamp::from_millis(1_800_000_000_000);
        Self { folder, controller, handed, now }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("actions.db")
    }

    /// Opens the file again, after a crash or an end in order.
    pub(crate) fn reopen(&mut self, is_crash: bool) {
        if is_crash {
            self.controller.crash();
        } else {
            self.controller.close();
        }
        (self.controller, self.handed) = open(&self.path(), Limits::default());
    }

    pub(crate) fn wait(&mut self, span: Duration) {
        self.now = self.now.saturating_add(span);
    }

    pub(crate) fn submit(&mut self, request: NewRequest) -> Result<RequestId, Refused> {
        self.wait(Duration::from_millis(1));
        let answer = self.controller.submit(self.now, vec![request], &|_| true).unwrap().remove(0);
        // What is to be sent at once is handed over by the writer, after its answer.
        self.controller.flush().unwrap();
        answer
    }

    pub(super) fn schedule(&mut self, number: u64, action: Action) -> RequestId {
        self.submit(request(number, action, Mode::SendWhenActive)).unwrap()
    }

    pub(super) fn trigger(&self, number: u64) {
        self.controller.trigger(device(number), self.now);
    }

    pub(crate) fn handed(&self) -> Vec<Dispatch> {
        self.handed.lock().unwrap().clone()
    }

    pub(super) fn handed_ids(&self) -> Vec<RequestId> {
        self.handed().iter().map(|dispatch| dispatch.request).collect()
    }

    /// Ends the last attempt that was handed over.
    pub(super) fn report(&self, outcome: Outcome) {
        let serial = self.handed().last().unwrap().serial;
        assert!(self.controller.report(serial, self.now, outcome));
        self.controller.flush().unwrap();
    }

    pub(crate) fn find(&self, id: RequestId) -> Request {
        self.controller.find(id).unwrap().unwrap()
    }

    pub(super) fn status(&self, id: RequestId) -> Status {
        self.find(id).status
    }
}
