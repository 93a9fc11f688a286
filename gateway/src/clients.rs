//! `simgate client`: API clients.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use management_api::clients::Clients;

use crate::arguments::ClientCommand;
use crate::house;

pub(crate) fn run(command: ClientCommand) -> anyhow::Result<ExitCode> {
    let ClientCommand::Create { name, place } = command;
    let config = place.config()?;
    let state = house::state_file(&config)?;
    let clients = Clients::open(&state, &config.account.number)?;
    let created = clients.create(&name).context("the client cannot be created")?;
    let answer = serde_json::json!({
        "client_id": created.client_id,
        "client_secret": created.client_secret,
    });
    writeln!(std::io::stdout(), "{answer}")?;
    Ok(ExitCode::SUCCESS)
}
