//! Requests to devices ("actions"), and when each is handed to a sender.
//!
//! A customer asks for a datagram, a CoAP request or an LwM2M operation, to be sent now or when
//! the device next shows that it is awake. [`Controller`] keeps such requests durably in an SQLite
//! file of its own: they change all the time, and must not wait for an import that holds the state
//! file. What is active stands in memory as well, so that [`Controller::trigger`] costs next to
//! nothing for the many devices for which nothing waits. One thread writes; what waits for the disk
//! at the same time goes into one transaction.
//!
//! The states are SCHEDULED, IN_PROGRESS, then SUCCEEDED or FAILED; only what is SCHEDULED can be
//! CANCELLED. A device has at most one request in flight, and what waits for it is handed over in
//! order of creation. A request is handed over only when it is durable, and its end is shown only
//! when that is durable. That it is in progress is known in memory alone: after a crash everything
//! that has not ended is sent again, datagrams too, so that each request is sent at least once.
//!
//! Not here: sockets, and how to speak to a device. Time is an argument everywhere.

mod action;
mod active;
mod controller;
mod device;
mod error;
mod listing;
mod presence;
mod queue;
mod request;
mod request_id;
mod table;
mod writer;

#[cfg(test)]
mod tests;

pub use action::{
    Action, COAP_PAYLOAD_BYTES_MAX, CoapAction, CoapMethod, LWM2M_DATA_BYTES_MAX, Lwm2mAction,
    Lwm2mOperation, NotBase64, OperationError, Payload, PayloadType, UDP_PAYLOAD_BYTES_MAX,
    UdpAction, UnknownMethod,
};
pub use active::Dispatch;
pub use controller::{Controller, DEVICES_MAX, Dispatcher, Limits};
pub use error::{CancelError, OpenError, Refused, StoreError, SubmitError};
pub use listing::{Listed, Query, Shelf, SortField};
pub use request::{
    ActionResult, EXPIRES_AFTER, KEPT_FOR, Mode, NewRequest, Outcome, RESULT_BYTES_MAX, Request,
    SEND_ATTEMPTS_MAX, Status,
};
pub use request_id::{ParseRequestIdError, RequestId};
