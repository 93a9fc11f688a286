//! Firmware updates of devices over LwM2M (object 5): images, jobs, and what each device does.
//!
//! A user uploads an image once ([`Images`]) and starts a [`Job`] for a list of devices. Each
//! device has a machine without I/O ([`DeviceUpdate`]) that says which [`Step`] comes next;
//! [`Updates`] shares out places, writes every change before the steps that follow from it, and
//! takes all jobs up again after a restart.
//!
//! What it is not: it speaks no protocol and owns no socket. Steps go out through [`Dispatch`],
//! outcomes come back by [`Updates::on_outcome`], devices fetch by [`Images::serve`]. It owns one
//! SQLite file, `firmware.db`, and the files of the images.
//!
//! OMA LwM2M 1.1 Core, E.6 "LwM2M Object: Firmware Update"; 1.0 devices have the same resources.

mod core;
mod device;
mod image_table;
mod images;
mod inbox;
mod job;
mod plan;
mod step;
mod table;
mod updates;

pub use device::{
    Delivery, DeviceUpdate, ENTRIES_MAX, Entry, POLL_INTERVAL, POLL_SPACING, Presence, Progress,
    SLEEP_AFTER, Stage, result_text,
};
pub use images::{
    Digest, Image, ImageError, ImageLimits, Images, LABEL_CHARS_MAX, NAME_CHARS, ParseDigestError,
    UPLOADS_MAX, Upload,
};
pub use inbox::REPORTS_MAX;
pub use job::{
    Counts, DEVICES_UNDER_WAY_MAX, DeviceState, JOB_DEVICES_MAX, JOBS_KEPT_MAX, JOBS_UNDER_WAY_MAX,
    Job, JobDevice, JobError, JobState, NewJob, PARALLEL_DEFAULT, PARALLEL_MAX, STOP_SAMPLE,
    StartError, StoreError, Timeline,
};
pub use plan::{Method, Patience, Plan};
pub use step::{Code, Step, StepOrder, StepOutcome, Value, path};
pub use updates::{Dispatch, OpenError, Settings, Updates, Urls};
