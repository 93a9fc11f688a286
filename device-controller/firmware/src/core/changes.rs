//! What users do to jobs.

use rusqlite::TransactionBehavior;
use tracing::info;
use vocabulary::{Iccid, Timestamp};

use super::{Core, JobUnderWay};
use crate::device::{DeviceUpdate, Entry, Stage};
use crate::job::{
    DEVICES_UNDER_WAY_MAX, DeviceState, JOBS_KEPT_MAX, JOBS_UNDER_WAY_MAX, JobError, JobState,
    NewJob, StartError, StoreError,
};
use crate::step::StepOrder;
use crate::table;

impl Core {
    /// Starts a job; gives its id and the first steps.
    pub(crate) fn start(
        &mut self,
        new: &NewJob,
        now: Timestamp,
    ) -> Result<(String, Vec<StepOrder>), StartError> {
        new.check()?;
        if self.jobs.len() >= JOBS_UNDER_WAY_MAX {
            return Err(StartError::Full { what: "jobs", limit: JOBS_UNDER_WAY_MAX });
        }
        let left = |job: &JobUnderWay| (job.row.job.counts.total() - job.ended) as usize;
        let under_way: usize = self.jobs.values().map(left).sum();
        if under_way + new.devices.len() > DEVICES_UNDER_WAY_MAX {
            return Err(StartError::Full { what: "devices", limit: DEVICES_UNDER_WAY_MAX });
        }
        // Before anything is stored: a damaged image is found here. The job takes it up itself.
        self.images.take_up(new.image)?;
        let started = self.add(new, now);
        self.images.put_down(new.image);
        started
    }

    fn add(
        &mut self,
        new: &NewJob,
        now: Timestamp,
    ) -> Result<(String, Vec<StepOrder>), StartError> {
        // Devices that have just ended must not count as busy.
        self.save()?;
        let id = state::nanoid().map_err(StoreError::Random)?;
        let image = self.images.find(new.image)?;
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        if let Some((first, count)) = table::busy(&transaction, &new.devices)? {
            return Err(StartError::Busy { first, count });
        }
        table::forget(&transaction, JOBS_KEPT_MAX)?;
        table::add_job(&transaction, (&id, &image), new, now)?;
        // Read back within the transaction: what is under way is what the file holds.
        let row =
            table::find_job(&transaction, &id)?.ok_or(rusqlite::Error::QueryReturnedNoRows)?;
        let number = row.number;
        transaction.commit()?;
        let plan = match self.plan(&row) {
            Ok(plan) => plan,
            Err(problem) => {
                self.fail_job(row, &problem.to_string(), now)?;
                return Err(problem.into());
            }
        };
        info!(job = id, devices = new.devices.len(), image = %image.digest, "firmware job begins");
        let mut job = JobUnderWay::new(row, plan);
        job.waiting.extend(&new.devices);
        self.jobs.insert(number, job);
        self.fill(number, now);
        Ok((id, self.save_and_take()))
    }

    /// Holds a job: no step is made until it is resumed.
    pub(crate) fn pause(&mut self, id: &str, now: Timestamp) -> Result<(), JobError> {
        let number = self.number_of(id, &[JobState::Running])?;
        self.hold(number, None, now);
        self.save()?;
        Ok(())
    }

    /// Devices of a job that is held lie in the file alone, as after a restart.
    pub(super) fn hold(&mut self, number: i64, reason: Option<String>, now: Timestamp) {
        let devices: Vec<Iccid> = self.seated(number);
        for iccid in devices {
            self.feed(iccid, now, |update| update.note(now, "the job is paused"));
            let Some(seat) = self.seats.remove(&iccid) else { continue };
            self.watched.remove(iccid);
            if let Some(serial) = seat.serial {
                self.serials.remove(&serial);
            }
            let row = super::device_row(iccid, seat.shown, &seat.update, now);
            self.unsaved.devices.insert((number, iccid), row);
        }
        let Some(job) = self.jobs.get_mut(&number) else { return };
        info!(job = job.row.job.id, reason, "firmware job is paused");
        job.set_state(JobState::Paused, reason, now);
        job.held = 0;
        job.waiting.clear();
        job.ready.clear();
        self.unsaved.jobs.insert(number);
    }

    /// Lets a job go on that was held.
    pub(crate) fn resume(&mut self, id: &str, now: Timestamp) -> Result<Vec<StepOrder>, JobError> {
        let number = self.number_of(id, &[JobState::Paused])?;
        self.wake_up(number, now)?;
        self.fill(number, now);
        Ok(self.save_and_take())
    }

    fn wake_up(&mut self, number: i64, now: Timestamp) -> Result<(), StoreError> {
        // What was held must be in the file before it is read.
        self.save()?;
        let Some(job) = self.jobs.get_mut(&number) else { return Ok(()) };
        table::shift(&self.connection, number, now.saturating_since(job.row.job.updated))?;
        job.set_state(JobState::Running, None, now);
        (job.row.ended_before, job.row.failed_before) = (job.ended, job.failed);
        self.unsaved.jobs.insert(number);
        self.seat_devices(number, now)
    }

    /// Gives a job up.
    pub(crate) fn cancel(&mut self, id: &str, now: Timestamp) -> Result<Vec<StepOrder>, JobError> {
        let number = self.number_of(id, &[JobState::Running, JobState::Paused])?;
        self.save()?;
        self.end_waiting(number, now)?;
        if let Some(job) = self.jobs.get_mut(&number)
            && job.row.job.state == JobState::Paused
        {
            // Its devices are told, too.
            self.wake_up(number, now)?;
        }
        for iccid in self.seated(number) {
            self.feed(iccid, now, |update: &mut DeviceUpdate| update.cancel(now));
        }
        self.end_job(number, JobState::Cancelled, now);
        Ok(self.save_and_take())
    }

    /// Ends devices whose turn has not come.
    fn end_waiting(&mut self, number: i64, now: Timestamp) -> Result<(), StoreError> {
        let Some(job) = self.jobs.get_mut(&number) else { return Ok(()) };
        let rows = table::unfinished(&self.connection, number)?;
        let transaction =
            self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let entry = Entry { at: now, stage: Stage::Cancelled, text: "cancelled".to_owned() };
        let waiting = rows.iter().filter(|row| row.device.progress.is_none());
        for row in waiting {
            table::add_entry(&transaction, number, row.device.iccid, &entry)?;
            job.ended += 1;
        }
        table::end_waiting(&transaction, number, DeviceState::Cancelled, now)?;
        transaction.commit()?;
        job.waiting.clear();
        Ok(())
    }

    fn seated(&self, number: i64) -> Vec<Iccid> {
        let of_job = self.seats.iter().filter(|(_, seat)| seat.job == number);
        of_job.map(|(iccid, _)| *iccid).collect()
    }

    fn number_of(&self, id: &str, allowed: &[JobState]) -> Result<i64, JobError> {
        if let Some((number, job)) = self.jobs.iter().find(|(_, job)| job.row.job.id == id) {
            let state = job.row.job.state;
            return if allowed.contains(&state) {
                Ok(*number)
            } else {
                Err(JobError::Conflict(state))
            };
        }
        match table::find_job(&self.connection, id)? {
            Some(row) => Err(JobError::Conflict(row.job.state)),
            None => Err(JobError::Unknown(id.to_owned())),
        }
    }
}
