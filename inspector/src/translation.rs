//! A payload in the form that a customer reads.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use template_library::{StoreError, Templates, TranslateError, Translation as library};
use vocabulary::{Protocol, Telemetry};

/// Which version of a template translates a stored message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TemplateChoice {
    /// The one that was active when the message arrived.
    #[default]
    OfItsDay,
    /// The one that is active now: after a template was mended, over the stored days.
    Newest,
}

/// What a template makes of a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Translation {
    /// No template: the payload speaks for itself.
    Raw,
    /// Compact JSON.
    Json {
        /// The version of the template.
        version: u32,
        /// The text.
        json: String,
    },
    /// The template does not fit.
    Failed {
        /// The version of the template.
        version: u32,
        /// The exact text of the error: docs/templates.md shows one.
        error: String,
    },
}

/// A payload as text: the two forms of history and state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PayloadText {
    /// Translated: compact JSON.
    Json(String),
    /// As received, in base 64 (RFC 4648 §4).
    Base64(String),
}

impl PayloadText {
    /// A payload as it was received.
    pub(crate) fn base64(payload: &[u8]) -> Self {
        Self::Base64(STANDARD.encode(payload))
    }

    /// The text of either form.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Json(text) | Self::Base64(text) => text,
        }
    }
}

/// Translates; a version that the library does not know (any more) is as good as none.
pub(crate) fn translate(
    templates: &Templates,
    telemetry: &Telemetry<'_>,
    choice: TemplateChoice,
) -> Result<Translation, StoreError> {
    let template = match choice {
        TemplateChoice::OfItsDay => telemetry.template,
        TemplateChoice::Newest => templates.active(telemetry.protocol),
    };
    let Some(version) = template else { return Ok(Translation::Raw) };
    match templates.translate(&Telemetry { template, ..*telemetry }) {
        Ok(library::Json(translated)) => Ok(Translation::Json { version, json: translated.json }),
        Ok(library::Raw) | Err(TranslateError::UnknownVersion { .. }) => Ok(Translation::Raw),
        Err(TranslateError::Payload(error)) => {
            Ok(Translation::Failed { version, error: error.to_string() })
        }
        Err(TranslateError::Store(error)) => Err(error),
    }
}

/// The text of a payload, or the error of its translation.
pub(crate) fn text(
    translation: Translation,
    telemetry: &Telemetry<'_>,
) -> Result<PayloadText, String> {
    match translation {
        // LwM2M was decoded when it came, because the answer to the device depended on it.
        Translation::Raw if telemetry.protocol == Protocol::Lwm2m => {
            let text = String::from_utf8(telemetry.payload.to_vec());
            Ok(text.map_or_else(|_| PayloadText::base64(telemetry.payload), PayloadText::Json))
        }
        Translation::Raw => Ok(PayloadText::base64(telemetry.payload)),
        Translation::Json { json, .. } => Ok(PayloadText::Json(json)),
        Translation::Failed { error, .. } => Err(error),
    }
}
