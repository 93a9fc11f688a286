//! The settings of the account.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::{ManagementApi, blocking};
use crate::error::ApiError;
use crate::extract::{Id, JsonBody, Params};
use crate::paging::{Page, PageRequest};
use crate::switches::{Switch, Switches};

/// The documented limit of devices on a page serves here too.
const PAGE_SIZE_MAX: u32 = 50;

/// A setting.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Setting {
    /// Its name.
    #[schema(example = "LWM2M_PASSIVE_REPORTING")]
    pub(crate) name: &'static str,
    /// What it does.
    pub(crate) description: &'static str,
    /// `ENABLED` or `DISABLED`.
    #[schema(example = "DISABLED")]
    pub(crate) state: &'static str,
}

/// A change of a setting.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(crate) struct SettingChange {
    /// `ENABLED` or `DISABLED`.
    #[schema(example = "ENABLED")]
    state: String,
    /// Has to be true where `CELL_TOWER_LOCATION` is enabled: the positions of people's devices are
    /// data about people.
    #[serde(default)]
    read_and_accepted_disclaimer: Option<bool>,
}

/// A setting as it is now.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ChangedSetting {
    /// The account.
    customer_id: String,
    /// The name of the setting.
    #[schema(example = "LWM2M_PASSIVE_REPORTING")]
    name: &'static str,
    /// `ENABLED` or `DISABLED`.
    #[schema(example = "ENABLED")]
    state: &'static str,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParams {
    /// The page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 50, default = 1)]
    page: Option<String>,
    /// Settings on a page.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 50, default = 10)]
    page_size: Option<String>,
    /// The language of descriptions: `en` (the default) or `de`.
    #[param(example = "en")]
    language: Option<String>,
}

#[derive(Clone, Copy)]
enum Language {
    English,
    German,
}

/// List the settings.
#[utoipa::path(
    get, path = "/v1/settings/1nceos",
    operation_id = "listSettings", tag = "Settings", params(ListParams),
    responses((status = 200, description = "A page of settings.", body = Page<Setting>))
)]
pub(crate) async fn list(
    State(api): State<ManagementApi>,
    Params(ListParams { page, page_size, language }): Params<ListParams>,
) -> Result<Json<Page<Setting>>, ApiError> {
    let request = PageRequest::parse(page.as_deref(), page_size.as_deref(), PAGE_SIZE_MAX)?;
    let language = match language.as_deref() {
        None | Some("en") => Language::English,
        Some("de") => Language::German,
        Some(other) => {
            let message = format!("language {other:?} is not known");
            return Err(ApiError::field("language", message, "en, de"));
        }
    };
    let switches = &api.services().switches;
    let all = Switch::ALL.into_iter().map(|switch| Setting {
        name: switch.name(),
        description: description(switch, language),
        state: state(switches, switch),
    });
    Ok(Json(request.slice(all.collect())))
}

/// Change a setting.
#[utoipa::path(
    patch, path = "/v1/settings/1nceos/{name}",
    operation_id = "changeSetting", tag = "Settings", request_body = SettingChange,
    params(("name" = String, Path, description = "LWM2M_PASSIVE_REPORTING or CELL_TOWER_LOCATION.")),
    responses((status = 200, description = "The setting as it is now.", body = ChangedSetting))
)]
pub(crate) async fn patch(
    State(api): State<ManagementApi>,
    Id(name): Id,
    JsonBody(change): JsonBody<SettingChange>,
) -> Result<Json<ChangedSetting>, ApiError> {
    let switch = Switch::from_name(&name);
    let switch = switch.ok_or_else(|| ApiError::not_found("setting", &name))?;
    let on = is_on(&change.state)?;
    let is_accepted = change.read_and_accepted_disclaimer == Some(true);
    if switch == Switch::CellTowerLocation && on && !is_accepted {
        let message = "CELL_TOWER_LOCATION is enabled with readAndAcceptedDisclaimer only";
        return Err(ApiError::field("readAndAcceptedDisclaimer", message, "true"));
    }
    turn(&api, vec![(switch, on)]).await?;
    Ok(Json(ChangedSetting {
        customer_id: api.services().clients.account().to_owned(),
        name: switch.name(),
        state: state(&api.services().switches, switch),
    }))
}

/// Turns switches.
pub(crate) async fn turn(api: &ManagementApi, wanted: Vec<(Switch, bool)>) -> Result<(), ApiError> {
    let switches = api.services().switches.clone();
    let turned = blocking("changing a setting", move || {
        wanted.into_iter().try_for_each(|(switch, on)| switches.set(switch, on))
    });
    turned.await?.map_err(|error| ApiError::internal("changing a setting", error))
}

/// Reads `state` of a body.
pub(crate) fn is_on(state: &str) -> Result<bool, ApiError> {
    match state {
        "ENABLED" => Ok(true),
        "DISABLED" => Ok(false),
        other => {
            let message = format!("state {other:?} is not known");
            Err(ApiError::field("state", message, "ENABLED, DISABLED"))
        }
    }
}

/// A switch as the API names its position.
pub(crate) fn state(switches: &Switches, switch: Switch) -> &'static str {
    if switches.is_on(switch) { "ENABLED" } else { "DISABLED" }
}

/// What a switch does, in English.
pub(crate) fn purpose(switch: Switch) -> &'static str {
    description(switch, Language::English)
}

fn description(switch: Switch, language: Language) -> &'static str {
    match (switch, language) {
        (Switch::Lwm2mPassiveReporting, Language::English) => {
            "At each registration and update of an LwM2M device, read all objects that it has \
             except 1, 2 and 3."
        }
        (Switch::CellTowerLocation, Language::English) => {
            "Locate devices by the cell of their data session, at most once an hour."
        }
        (Switch::CellTowerLocation, Language::German) => {
            "Geräte über die Funkzelle ihrer Datensitzung orten, höchstens einmal je Stunde."
        }
        (Switch::Lwm2mPassiveReporting, Language::German) => {
            "Bei jeder Registrierung und Aktualisierung eines LwM2M-Geräts alle seine Objekte \
             außer 1, 2 und 3 lesen."
        }
    }
}
