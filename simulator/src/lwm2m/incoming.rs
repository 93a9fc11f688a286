//! What the devices of a run do with the requests of their servers.

use std::time::Duration;

use coap::wire::Code;
use coap::{Exchange, IncomingRequest, Output, Response};

use crate::lwm2m::device::Stage;
use crate::lwm2m::leg::Leg;
use crate::lwm2m::objects::{Effect, Facts};
use crate::lwm2m::observations::Observation;
use crate::lwm2m::registration;
use crate::lwm2m::requests::{Answer, Asked, answer};
use crate::lwm2m::world::{Late, World};

impl World<'_> {
    pub(crate) fn handle_request(&mut self, now: Duration, request: IncomingRequest<Leg>) {
        let index = request.peer().device;
        let device = &mut self.devices[index as usize];
        if request.peer().server != device.server {
            return self.answer_with(now, request.exchange, Response::new(Code::UNAUTHORIZED));
        }
        if device.stage == Stage::Bootstrapping {
            return self.handle_bootstrap(now, request);
        }
        if let Some(at) = device.uplink_at.take() {
            self.lwm2m.note_command(now.saturating_sub(at));
        }
        let Some(asked) = Asked::new(&request) else {
            return self.answer_with(now, request.exchange, Response::new(Code::BAD_REQUEST));
        };
        let endpoint = self.endpoint_name(index);
        let facts = Facts {
            index,
            endpoint: &endpoint,
            address: self.fleet.address(index),
            unix_seconds: self.at(now).as_micros() / 1_000_000,
            binding: registration::binding_text(self.settings),
            firmware: &self.firmware,
        };
        if self.settings.mute {
            // The kind of the request is found out without doing it.
            let mut copy = self.devices[index as usize].objects.clone();
            let operation = answer(&mut copy, &facts, &self.tongue, &asked).operation;
            return self.lwm2m.note_request(operation, None);
        }
        let objects = &mut self.devices[index as usize].objects;
        let answer = answer(objects, &facts, &self.tongue, &asked);
        self.lwm2m.note_request(answer.operation, Some(answer.response.code));
        self.carry_out(now, request.exchange, answer);
    }

    /// Sends an answer, and lets what it leads to happen.
    fn carry_out(&mut self, now: Duration, mut exchange: Exchange<Leg>, answer: Answer) {
        let index = exchange.peer().device;
        if let Some(watch) = answer.watch
            && let Ok(id) = self.endpoint.accept_observation(self.started + now, &mut exchange)
        {
            let device = &mut self.devices[index as usize];
            let told = device.objects.measured();
            let observation = Observation::new(id, watch, now, told);
            if observation.is_measured() && !device.is_observed {
                device.is_observed = true;
                self.observed.push(index);
            }
            // The same token again is the same observation, with another format perhaps.
            device.observations.retain(|one| one.id != id);
            device.observations.push(observation);
            self.lwm2m.counts.observations_begun += 1;
        }
        self.answer_with(now, exchange, answer.response);
        let device = &mut self.devices[index as usize];
        if let Some(path) = answer.changed {
            device.observations.iter_mut().for_each(|one| one.note_written(&path));
        }
        if let Some(effect) = answer.effect {
            let restarts = matches!(effect, Effect::Reboot | Effect::Install);
            self.lwm2m.counts.restarts += u64::from(restarts);
            device.handle_effect(now, &effect, &self.rules);
        }
    }

    fn answer_with(&mut self, now: Duration, exchange: Exchange<Leg>, response: Response) {
        match self.settings.late {
            Some(late) => {
                let exchange = self.endpoint.acknowledge(exchange);
                self.late.push_back(Late { due: now + late, exchange, response });
            }
            None => self.endpoint.respond(self.started + now, exchange, response),
        }
    }

    fn handle_bootstrap(&mut self, now: Duration, request: IncomingRequest<Leg>) {
        let index = request.peer().device;
        let Some(asked) = Asked::new(&request) else {
            return self.answer_with(now, request.exchange, Response::new(Code::BAD_REQUEST));
        };
        let device = &mut self.devices[index as usize];
        let Some(accounts) = &mut device.accounts else { return };
        if asked.method != Some(Code::POST) || asked.segments != ["bs"] {
            let instances = device.objects.instances();
            let (operation, response) = accounts.answer(&asked, &self.tongue.model, instances);
            self.lwm2m.note_request(operation, Some(response.code));
            return self.answer_with(now, request.exchange, response);
        }
        let account = accounts.server(*device.server.ip());
        let code = if account.is_some() { Code::CHANGED } else { Code::NOT_ACCEPTABLE };
        self.lwm2m.note_request("bootstrap-finish", Some(code));
        // Before the device turns to another server.
        self.endpoint.respond(self.started + now, request.exchange, Response::new(code));
        let first = self.endpoint.poll_output();
        if !matches!(first, Output::Timeout(_)) {
            self.handle_output(now, first, false);
        }
        let Some(account) = account else {
            self.lwm2m.counts.bootstraps_failed += 1;
            return;
        };
        let started = self.started + now;
        let is_usable = account.credentials.as_ref().is_none_or(|(identity, key)| {
            self.network.turn_to_server(started, index, account.server, (identity, key))
        });
        if is_usable {
            self.lwm2m.counts.bootstraps_finished += 1;
            self.devices[index as usize].finish_bootstrap(now, &account, &self.rules);
        } else {
            self.lwm2m.counts.bootstraps_failed += 1;
        }
    }
}
