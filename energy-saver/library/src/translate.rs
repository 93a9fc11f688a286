//! Translating stored messages.

use energy_saver::{PayloadError, Translated};
use thiserror::Error;
use vocabulary::Telemetry;

use crate::{StoreError, Templates};

/// What a message becomes.
#[derive(Debug, Clone, PartialEq)]
pub enum Translation {
    /// A template applied.
    Json(Translated),
    /// No template applied: the payload goes on as the device sent it.
    Raw,
}

/// Why a message could not be translated.
#[derive(Debug, Error)]
pub enum TranslateError {
    /// The payload does not fit the template; the text is the administration log's description.
    #[error(transparent)]
    Payload(#[from] PayloadError),
    /// The version could not be read now: our own fault, to be tried again.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The version is not known: it was forgotten, or the message comes from another state file.
    #[error("template version {version} is not known")]
    UnknownVersion {
        /// The version that the message names.
        version: u32,
    },
}

impl Templates {
    /// Translates a message by the version that was active when it arrived.
    pub fn translate(&self, telemetry: &Telemetry<'_>) -> Result<Translation, TranslateError> {
        let Some(version) = telemetry.template else { return Ok(Translation::Raw) };
        let program = self.load(version)?.ok_or(TranslateError::UnknownVersion { version })?;
        Ok(Translation::Json(program.run(telemetry.payload)?))
    }

    /// Translates a message by the version that is active now for its protocol: for replaying
    /// messages after a template was mended.
    pub fn translate_newest(
        &self,
        telemetry: &Telemetry<'_>,
    ) -> Result<Translation, TranslateError> {
        match self.active_program(telemetry.protocol) {
            Some(program) => Ok(Translation::Json(program.run(telemetry.payload)?)),
            None => Ok(Translation::Raw),
        }
    }
}

#[cfg(test)]
mod tests {
    use state::StateFile;
    use vocabulary::{Iccid, Identity, IdentityClass, Protocol};

    use super::*;
    use crate::{NewTemplate, Patch, ProtocolFilter, Status};

    const BYTE: &str = r#"{"sense":[{"asset":"n","value":{"byte":0,"type":"uint"}}]}"#;
    const PAIR: &str = r#"{"sense":[{"asset":"n","value":{"byte":0,"bytelength":2}}]}"#;
    const GPS: &str = r#"{"sense":[{"asset":"location","value":{
        "latitude":{"byte":0,"bytelength":1,"type":"int"},"longitude":{"byte":1}}}]}"#;

    fn telemetry(template: Option<u32>, payload: &[u8]) -> Telemetry<'_> {
        let iccid: Iccid = "8988280666000002864".parse().unwrap();
        Telemetry {
            identity: Identity { iccid, imsi: None, ip: None },
            class: IdentityClass::SimIp,
            protocol: Protocol::Udp,
            topic: None,
            template,
            exchange: None,
            measured: None,
            session: None,
            payload,
        }
    }

    fn open(source: &str) -> (tempfile::TempDir, Templates, String) {
        let folder = tempfile::tempdir().unwrap();
        let templates = Templates::open(&StateFile::new(folder.path().join("s.db"))).unwrap();
        let created = templates
            .create(NewTemplate {
                name: "meter".to_owned(),
                source: source.to_owned(),
                status: Status::Active,
                protocol_filter: ProtocolFilter::new([Protocol::Udp]).unwrap(),
            })
            .unwrap();
        let id = created.id.to_string();
        (folder, templates, id)
    }

    fn json(translation: Result<Translation, TranslateError>) -> String {
        match translation.unwrap() {
            Translation::Json(translated) => translated.json,
            Translation::Raw => "raw".to_owned(),
        }
    }

    #[test]
    fn a_stored_message_is_decoded_by_the_version_of_its_day() {
        let (folder, templates, id) = open(BYTE);
        let stored = telemetry(templates.active(Protocol::Udp), &[1, 2]);
        let patch = Patch { source: Some(PAIR.to_owned()), ..Patch::default() };
        templates.update(&id, patch).unwrap();
        let arriving = telemetry(templates.active(Protocol::Udp), &[1, 2]);
        let reopened = Templates::open(&StateFile::new(folder.path().join("s.db"))).unwrap();
        for templates in [&templates, &reopened] {
            assert_eq!(json(templates.translate(&stored)), r#"{"n":1}"#);
            assert_eq!(json(templates.translate(&arriving)), r#"{"n":258}"#);
            assert_eq!(json(templates.translate_newest(&stored)), r#"{"n":258}"#);
        }
        templates.delete(&id).unwrap();
        assert_eq!(json(templates.translate(&stored)), r#"{"n":1}"#);
        assert_eq!(json(templates.translate_newest(&stored)), "raw");
    }

    #[test]
    fn a_message_without_a_template_stays_raw() {
        let (_folder, templates, _) = open(BYTE);
        assert_eq!(json(templates.translate(&telemetry(None, &[1]))), "raw");
        let mut lwm2m = telemetry(None, &[1]);
        lwm2m.protocol = Protocol::Lwm2m;
        assert_eq!(json(templates.translate_newest(&lwm2m)), "raw");
    }

    #[test]
    fn a_payload_that_does_not_fit_gives_the_documented_text() {
        let (_folder, templates, _) = open(PAIR);
        let version = templates.active(Protocol::Udp);
        let error = templates.translate(&telemetry(version, &[1])).unwrap_err();
        assert_eq!(error.to_string(), "Asset path:n, Error: can't extract [0:2] from 1 bytes");
        assert!(matches!(error, TranslateError::Payload(PayloadError::Extract { .. })));
    }

    #[test]
    fn an_unknown_version_is_an_error_of_its_own() {
        let (_folder, templates, _) = open(BYTE);
        let error = templates.translate(&telemetry(Some(77), &[1])).unwrap_err();
        assert_eq!(error.to_string(), "template version 77 is not known");
    }

    #[test]
    fn a_position_comes_beside_the_json() {
        let (_folder, templates, _) = open(GPS);
        let stored = telemetry(templates.active(Protocol::Udp), &[0xd8, 100]);
        let Translation::Json(translated) = templates.translate(&stored).unwrap() else {
            panic!("raw");
        };
        assert_eq!(translated.json, r#"{"location":{"latitude":-40,"longitude":100}}"#);
        let position = translated.position.unwrap();
        assert_eq!((position.latitude, position.longitude), (-40.0, 100.0));
    }
}
