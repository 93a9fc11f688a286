//! The way back: what customers and updates ask of devices, given to the sockets, and what devices
//! answered, told to whoever asked.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

use anyhow::Context as _;
use device_authenticator::Attribution;
use device_controller::{Action, Controller, Dispatch, Outcome};
use device_integrator::{Downlink, Order, OrderEnd, Rider, What};
use firmware_update::{Settings, StepOrder, Updates};
use lwm2m::{Link, Model};
use message_log::MessageLog;
use vocabulary::{Iccid, Notice, NoticeCategory, NoticeKind, Timestamp};

use crate::actions;
use crate::firmware;
use crate::ingest::notice_record;

/// What a failed request is called in the administration log.
const ACTION_FAILED: &str = "DeviceController[ActionFailed]";

/// Set in the numbers of the orders that are steps of firmware updates.
const STEP: u64 = 1 << 63;

/// Requests to devices. Clones share them.
#[derive(Clone)]
pub(crate) struct Commands(Arc<Parts>);

struct Parts {
    controller: Controller,
    updates: Updates,
    /// Steps of updates that are to be sent. Never more than devices under way, and the few that
    /// are said to each when its update ends.
    steps: Mutex<Receiver<StepOrder>>,
    /// The devices and resources of steps under way.
    resources: Mutex<HashMap<u64, (Iccid, &'static str)>>,
    downlink: Downlink,
    log: MessageLog,
    attribution: Attribution,
    under_way: Arc<UnderWay>,
}

/// Operations of LwM2M that were given to a socket: a failure is told to the operator, too.
type UnderWay = Mutex<HashMap<u64, (Iccid, Arc<Action>)>>;

/// What it takes to give an action to a socket.
struct Sender {
    downlink: Downlink,
    attribution: Attribution,
    model: Arc<Model>,
    under_way: Arc<UnderWay>,
    /// To be told at once what cannot be sent.
    controller: OnceLock<Controller>,
}

impl Commands {
    /// Opens the requests of the data folder. Nothing is sent before [`Commands::resume`].
    pub(crate) fn open(
        (path, firmware): (&std::path::Path, Settings),
        (downlink, attribution): (Downlink, Attribution),
        model: Arc<Model>,
        log: MessageLog,
    ) -> anyhow::Result<Self> {
        let (sender_of_steps, steps) = channel();
        let dispatch = Arc::new(move |step| {
            // Nobody takes steps any more while the program ends.
            let _ = sender_of_steps.send(step);
        });
        let updates = Updates::open(firmware, dispatch, now()).context("firmware")?;
        let sender = Arc::new(Sender {
            downlink: downlink.clone(),
            attribution: attribution.clone(),
            model,
            under_way: Arc::default(),
            controller: OnceLock::new(),
        });
        let dispatcher = Arc::clone(&sender);
        let limits = device_controller::Limits::default();
        let send = Arc::new(move |dispatch| dispatcher.send(dispatch));
        let controller = Controller::open(path, limits, send)?;
        // It is set here only.
        let _ = sender.controller.set(controller.clone());
        let under_way = Arc::clone(&sender.under_way);
        let resources = Mutex::default();
        let steps = Mutex::new(steps);
        Ok(Self(Arc::new(Parts {
            controller,
            updates,
            steps,
            resources,
            downlink,
            log,
            attribution,
            under_way,
        })))
    }

    /// Sends what an earlier process was to send at once. Blocks for a moment.
    pub(crate) fn resume(&self) -> anyhow::Result<()> {
        Ok(self.0.controller.resume(now())?)
    }

    /// Ends and forgets what has waited too long. Blocks for a moment.
    pub(crate) fn end_overdue(&self) -> anyhow::Result<()> {
        while self.0.controller.tick(now())? {}
        Ok(())
    }

    /// What reaches devices.
    pub(crate) fn downlink(&self) -> &Downlink {
        &self.0.downlink
    }

    /// What the management API asks.
    pub(crate) fn controller(&self) -> &Controller {
        &self.0.controller
    }

    /// Messages of these devices are durable.
    pub(crate) fn heard(&self, devices: &[Iccid]) {
        let now = now();
        for device in devices {
            self.0.controller.trigger(*device, now);
            self.0.updates.on_awake(*device, false);
        }
    }

    /// A device has registered, or updated its registration.
    pub(crate) fn awake(&self, device: Iccid, is_new: bool) {
        self.0.controller.trigger(device, now());
        self.0.updates.on_awake(device, is_new);
    }

    /// Values of a device, as flat JSON.
    pub(crate) fn reported(&self, device: Iccid, values: &[u8]) {
        self.0.updates.on_report(device, values);
    }

    /// The firmware image of this name, of which a device fetches the bytes up to `until`.
    pub(crate) fn image(&self, device: Iccid, name: &str, until: u64) -> Option<Arc<[u8]>> {
        let image = self.0.updates.images().serve(name)?;
        self.0.updates.on_bytes(device, until.min(image.len() as u64));
        Some(image)
    }

    /// Firmware images and jobs.
    pub(crate) fn updates(&self) -> &Updates {
        &self.0.updates
    }

    /// Sends the steps of updates that wait.
    pub(crate) fn send_steps(&self) {
        let steps: Vec<StepOrder> = lock(&self.0.steps).try_iter().collect();
        for StepOrder { serial, iccid, step } in steps {
            let resource = step.path();
            lock(&self.0.resources).insert(serial, (iccid, resource));
            let sent =
                firmware::operation(&step).map_err(OrderEnd::Invalid).and_then(|operation| {
                    let what = What::Operation(Box::new(operation));
                    let order = Order { id: serial | STEP, device: iccid, what };
                    self.0.downlink.send(order).map_err(|why| OrderEnd::NotSent(why.to_owned()))
                });
            if let Err(end) = sent {
                self.report_step(serial, end);
            }
        }
    }

    /// Takes back steps that wait for their devices, and that nobody waits for any more.
    pub(crate) fn withdraw_steps(&self) {
        let serials: Vec<u64> = lock(&self.0.resources).keys().copied().collect();
        if serials.is_empty() {
            return;
        }
        for serial in self.0.updates.abandoned(&serials) {
            let mut resources = lock(&self.0.resources);
            let Some((device, _)) = resources.get(&serial) else { continue };
            // One that is under way is reported like any other, and nobody listens.
            if self.0.downlink.registry().withdraw(*device, serial | STEP) {
                resources.remove(&serial);
            }
        }
    }

    fn report_step(&self, serial: u64, end: OrderEnd) {
        if let Some((_, resource)) = lock(&self.0.resources).remove(&serial) {
            self.0.updates.on_outcome(serial, firmware::outcome(resource, end));
        }
    }

    /// The command that rides on the answer to an uplink of `device`.
    pub(crate) fn rider(&self, device: Iccid) -> Option<Rider> {
        let dispatch = self.0.controller.take_piggyback(device, now())?;
        Some(actions::rider(dispatch.serial, &dispatch.action))
    }

    /// An order has ended.
    pub(crate) fn report(&self, order: u64, end: OrderEnd) {
        if order & STEP != 0 {
            return self.report_step(order & !STEP, end);
        }
        let outcome = outcome(end);
        let sent = lock(&self.0.under_way).remove(&order);
        // Each attempt that comes to nothing: at most five of a request.
        if let Some((device, action)) = sent
            && let Outcome::Failed { message, .. } | Outcome::Unreachable { message } = &outcome
        {
            self.note_failure(device, &action, message);
        }
        self.0.controller.report(order, now(), outcome);
    }

    /// Tells the operator that a device did not do what was asked of it.
    fn note_failure(&self, device: Iccid, action: &Action, reason: &str) {
        let mut notice = Notice::new(NoticeCategory::Error, NoticeKind::Device, ACTION_FAILED);
        let sim = self.0.attribution.directory().find_iccid(device).map(|found| found.identity);
        notice = sim.into_iter().fold(notice, Notice::about);
        notice.description = format!("{}: {reason}", actions::describe(action));
        // Nobody waits for it: the request itself says the same.
        drop(self.0.log.append(vec![notice_record(&notice, now())]));
    }
}

impl Sender {
    /// Whether a device is where its registration says: an address that went to another SIM would
    /// bring the operation to that one.
    fn is_at(&self, device: Iccid, address: Option<IpAddr>) -> Result<(), OrderEnd> {
        let contact = self.downlink.registry().contact(device);
        match contact.map(|contact| contact.link) {
            Some(Link::Address(known)) if Some(known.ip()) != address => {
                let reason = "the address of the SIM has changed since the device was heard";
                Err(OrderEnd::NotSent(reason.to_owned()))
            }
            _ => Ok(()),
        }
    }

    fn send(&self, dispatch: Dispatch) {
        let Dispatch { serial, device, action, .. } = dispatch;
        let found = self.attribution.directory().find_iccid(device).filter(|found| found.active);
        let address = found.and_then(|_| self.attribution.address_of(device, now()));
        if let Action::Lwm2m(_) = &*action {
            lock(&self.under_way).insert(serial, (device, Arc::clone(&action)));
        }
        let is_there = match (&*action, found) {
            (_, None) => Err(OrderEnd::NotSent("the SIM is not active".to_owned())),
            (Action::Lwm2m(_), Some(_)) => self.is_at(device, address),
            (Action::Udp(_) | Action::Coap(_), Some(_)) => Ok(()),
        };
        let sent = is_there
            .and_then(|()| actions::order_of(&action, address, &self.model))
            .and_then(|what| {
                let order = Order { id: serial, device, what };
                self.downlink.send(order).map_err(|reason| OrderEnd::NotSent(reason.to_owned()))
            })
            .err();
        if let Some((end, controller)) = sent.zip(self.controller.get()) {
            lock(&self.under_way).remove(&serial);
            controller.report(serial, now(), outcome(end));
        }
    }
}

/// As the controller understands it.
fn outcome(end: OrderEnd) -> Outcome {
    match end {
        OrderEnd::Sent => {
            Outcome::Succeeded { code: None, payload: Vec::new(), content_format: None }
        }
        OrderEnd::Answered { code, format, payload } => {
            let number = u16::from(code.class()) * 100 + u16::from(code.detail());
            let content_format = format.map(|format| format.0);
            if code.is_success() {
                Outcome::Succeeded { code: Some(number), payload, content_format }
            } else {
                let message = format!("the device answered {code}");
                Outcome::Failed { code: Some(number), message, payload }
            }
        }
        OrderEnd::Unreachable(message) => Outcome::Unreachable { message },
        OrderEnd::NotSent(message) => Outcome::NotSent { message },
        OrderEnd::Invalid(message) => Outcome::Failed { code: None, message, payload: Vec::new() },
    }
}

/// Whole entries come and go: a panic of another holder does no harm.
fn lock<T>(entries: &Mutex<T>) -> MutexGuard<'_, T> {
    entries.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> Timestamp {
    Timestamp::from(SystemTime::now())
}
