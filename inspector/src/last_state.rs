//! The last known state of a device: its last message per protocol, kept for ever.
//!
//! The documented API shows `{id, state}` and leaves the layout of `state` open. Ours has one
//! member per protocol that the device has spoken:
//!
//! ```json
//! {"COAP": {"id": "msg_01...", "time": "2026-11-21T08:15:30.042Z", "topic": "room/1",
//!           "payload": {"temperature": 21}},
//!  "UDP":  {"id": "msg_01...", "time": "2026-11-21T08:14:00.000Z",
//!           "payload": "SGVsbG8=", "encoding": "base64"}}
//! ```
//!
//! Of LwM2M it is the newest value of each resource, whichever message brought it; `id` and `time`
//! are the newest message's.
//!
//! `topic` is there where the message had one, `encoding` where no template translated it.
//!
//! A message that its template cannot translate is an entry of the administration log and not a
//! state, and so is one of more than
//! [`STATE_BYTES_MAX`](crate::STATE_BYTES_MAX) bytes: the state before it stays.

use serde_json::{Map, Value, json};
use template_library::StoreError;
use thiserror::Error;
use vocabulary::{EventId, Iccid, MalformedEvent, Protocol, Telemetry, Timestamp};

use crate::Inspector;
use crate::translation::{self, PayloadText, TemplateChoice};
use crate::unflushed::LastMessage;

/// The last message of a device by one protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProtocolState {
    /// The protocol.
    pub protocol: Protocol,
    /// The id of the message.
    pub id: EventId,
    /// When it was received.
    pub time: Timestamp,
    /// Its topic, of CoAP.
    pub topic: Option<String>,
    /// Its payload, translated by the template of its day.
    pub payload: PayloadText,
}

/// Why there is no state to show.
#[derive(Debug, Error)]
pub enum StateError {
    /// The state file.
    #[error("reading the last state: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// A stored message that this release cannot read.
    #[error("last message: {0}")]
    Malformed(#[from] MalformedEvent),
    /// The templates.
    #[error("reading a template: {0}")]
    Templates(#[from] StoreError),
}

impl ProtocolState {
    /// The layout that the module describes, for one protocol.
    pub fn to_json(&self) -> Value {
        let mut state = json!({ "id": self.id.to_string(), "time": self.time.to_string() });
        if let Some(topic) = &self.topic {
            state["topic"] = json!(topic);
        }
        let base64 = match &self.payload {
            PayloadText::Base64(text) => text,
            PayloadText::Json(text) => match serde_json::from_str(text) {
                Ok(value) => {
                    state["payload"] = value;
                    return state;
                }
                // A program writes valid JSON; if it ever did not, its text would still be shown.
                Err(_) => {
                    state["payload"] = json!(text);
                    return state;
                }
            },
        };
        state["payload"] = json!(base64);
        state["encoding"] = json!("base64");
        state
    }
}

/// The layout that the module describes, for all protocols.
pub fn state_to_json(states: &[ProtocolState]) -> Value {
    let entries = states.iter().map(|state| (state.protocol.to_string(), state.to_json()));
    Value::Object(entries.collect::<Map<String, Value>>())
}

impl Inspector {
    /// The last messages of a device, one per protocol that it has spoken, or of one protocol.
    /// It is empty for a device that was never heard.
    pub fn telemetry_state(
        &self,
        device: Iccid,
        protocol: Option<Protocol>,
    ) -> Result<Vec<ProtocolState>, StateError> {
        let mut states = Vec::new();
        for candidate in Protocol::ALL {
            if protocol.is_some_and(|only| only != candidate) {
                continue;
            }
            if let Some(message) = self.last_message(device, candidate)? {
                states.push(self.protocol_state(device, &message)?);
            }
        }
        Ok(states)
    }

    fn last_message(
        &self,
        device: Iccid,
        protocol: Protocol,
    ) -> Result<Option<LastMessage>, StateError> {
        // Memory first: what leaves it meanwhile is in the file when the file is asked.
        match self.recent().last(&(device, protocol)) {
            Some(message) => Ok(Some(message)),
            None => Ok(self.tables().last(device, protocol)?),
        }
    }

    fn protocol_state(
        &self,
        device: Iccid,
        message: &LastMessage,
    ) -> Result<ProtocolState, StateError> {
        let telemetry = Telemetry::decode(device, &message.body)?;
        let translation =
            translation::translate(self.templates(), &telemetry, TemplateChoice::OfItsDay)?;
        let payload = translation::text(translation, &telemetry)
            .unwrap_or_else(|_| PayloadText::base64(telemetry.payload));
        Ok(ProtocolState {
            protocol: telemetry.protocol,
            id: message.id,
            time: message.received_at,
            topic: telemetry.topic.map(str::to_owned),
            payload,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_the_documented_one() {
        let state = |protocol, topic: Option<&str>, payload| ProtocolState {
            protocol,
            id: EventId::from_bytes([0; 16]),
            time: Timestamp::EPOCH,
            topic: topic.map(str::to_owned),
            payload,
        };
        let states = [
            state(Protocol::Coap, Some("a"), PayloadText::Json("{\"t\":50.934544}".to_owned())),
            state(Protocol::Udp, None, PayloadText::base64(b"Hello")),
        ];
        assert_eq!(
            state_to_json(&states).to_string(),
            "{\"COAP\":{\"id\":\"msg_00000000000000000000000000\",\"payload\":{\"t\":50.934544},\
             \"time\":\"1970-01-01T00:00:00.000Z\",\"topic\":\"a\"},\
             \"UDP\":{\"encoding\":\"base64\",\"id\":\"msg_00000000000000000000000000\",\
             \"payload\":\"SGVsbG8=\",\"time\":\"1970-01-01T00:00:00.000Z\"}}"
        );
    }
}
