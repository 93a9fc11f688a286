//! The Send operation: a device reports on its own (OMA LwM2M Core 1.1 §6.4.6).

use coap::IncomingRequest;
use coap::wire::{Code, ContentFormat};

use super::Server;
use super::tickets::Action;
use crate::codec;
use crate::contact::{Contact, Device, Moment};
use crate::event::{Event, Exchanged, Origin};
use crate::path::Path;
use crate::record::{Record, by_time, flat_json};
use crate::registration::Refused;

impl Server {
    pub(super) fn handle_send(
        &mut self,
        moment: Moment,
        device: Device,
        request: IncomingRequest<Contact>,
    ) {
        let links = self.registry.with_own(device, moment.at, |entry| {
            entry.registration.links.objects().collect::<Vec<u16>>()
        });
        let Some(objects) = links else {
            self.refuse_unknown(moment, request.exchange);
            return;
        };
        let records = match self.read_send(moment, &request, &objects) {
            Ok(records) => records,
            Err(refused) => {
                self.notice(device.iccid, "Lwm2m[SendRefused]", refused.reason.clone());
                self.refuse(moment, request.exchange, &refused);
                return;
            }
        };
        let exchange = &request.exchange;
        let exchanged = Exchanged::of(exchange);
        let groups = by_time(&records);
        let action = Action::Send(request.exchange, device.iccid);
        let Some(ticket) = self.open(moment, action, groups.len()) else { return };
        for (part, group) in (0..).zip(groups) {
            self.emit(Event::Uplink {
                ticket: Some(ticket),
                iccid: device.iccid,
                exchange: Some(Exchanged { part, ..exchanged }),
                measured_at: group.time.map(super::notifications::timestamp),
                payload: flat_json(&group.records),
                origin: Origin::Send,
            });
        }
    }

    fn read_send(
        &self,
        moment: Moment,
        request: &IncomingRequest<Contact>,
        objects: &[u16],
    ) -> Result<Vec<Record>, Refused> {
        let format = match request.content_format() {
            Some(format @ (ContentFormat::SENML_JSON | ContentFormat::SENML_CBOR)) => format,
            other => {
                let found = other.map_or("missing".to_owned(), |format| format.0.to_string());
                return Err(Refused::new(
                    Code::UNSUPPORTED_CONTENT_FORMAT,
                    format!("Content-Format is {found}, allowed: 110 and 112"),
                ));
            }
        };
        let at = super::notifications::unix(moment.at);
        let records = codec::decode(format, &Path::ROOT, &request.payload, &self.model, at)
            .map_err(|error| Refused::bad_request(error.to_string()))?;
        if records.is_empty() {
            return Err(Refused::bad_request("the payload holds no value"));
        }
        // A device that lists its objects lists all of them (§6.4.6: 4.04 for one that is not
        // registered); instances may have come since.
        let unknown = |object: &u16| !objects.is_empty() && objects.binary_search(object).is_err();
        let found = records.iter().filter_map(|record| record.path.object_id()).find(unknown);
        if let Some(object) = found {
            let reason = format!("object {object} is not registered");
            return Err(Refused::new(Code::NOT_FOUND, reason));
        }
        let moments = by_time(&records).len();
        if moments > self.config.send_moments_max {
            return Err(Refused::new(
                Code::REQUEST_ENTITY_TOO_LARGE,
                format!(
                    "values of {moments} moments exceed the limit of {}",
                    self.config.send_moments_max
                ),
            ));
        }
        Ok(records)
    }
}
