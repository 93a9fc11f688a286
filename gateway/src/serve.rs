//! `simgate serve`: build everything, say where it listens, run, drain.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::anyhow;
use thiserror::Error;
use tracing::{info, warn};

use crate::config::Config;
use crate::gateway::Gateway;
use crate::signals::Termination;
use crate::telemetry;

/// From the signal to the end of the process at most, with half a second to spare.
const DRAIN_TIME: Duration = Duration::from_millis(9_500);

/// Exit code of a gateway that failed and whose disk does not answer: EX_IOERR of sysexits.h.
const SLOW_FAILURE: i32 = 74;

/// The message log failed: nothing more can be acknowledged.
#[derive(Debug, Error)]
#[error("the message log failed: no message can be acknowledged any more; restart simgate")]
pub(crate) struct StoreFailed;

pub(crate) fn run(config: &Config) -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    telemetry::start_log(&config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let metrics = telemetry::start_metrics()?;
    runtime.block_on(async {
        // Before the greeting: who reads that the gateway is ready may send the signal at once.
        let mut termination = Termination::listen()?;
        let gateway = Gateway::start(config, metrics).await?;
        greet(&mut io::stdout(), &gateway, config, started)?;
        let ended = tokio::select! {
            () = termination.arrived() => Ok(()),
            () = gateway.store_failed() => Err(StoreFailed.into()),
            () = gateway.listener_ended() => Err(anyhow!("a listener ended; restart simgate")),
        };
        info!("stopping");
        let mut drain = Box::pin(gateway.drain());
        if tokio::time::timeout(DRAIN_TIME, &mut drain).await.is_err() {
            warn!("the disk is too slow to end in order; nothing acknowledged is lost");
            // Dropping the parts would wait for the disk as well.
            std::process::exit(if ended.is_ok() { 0 } else { SLOW_FAILURE });
        }
        ended.map(|()| ExitCode::SUCCESS)
    })
}

/// Prints every address and the durability class; the last line says that messages are taken.
fn greet(
    output: &mut impl Write,
    gateway: &Gateway,
    config: &Config,
    started: Instant,
) -> io::Result<()> {
    let addresses = &gateway.addresses;
    writeln!(output, "simgate {}", env!("CARGO_PKG_VERSION"))?;
    for udp in &addresses.udp {
        writeln!(output, "udp         udp://{udp}")?;
    }
    for coap in &addresses.coap {
        writeln!(output, "coap        coap://{coap}")?;
    }
    for coaps in &addresses.coaps {
        writeln!(output, "coaps       coaps://{coaps}")?;
    }
    for lwm2m in &addresses.lwm2m {
        writeln!(output, "lwm2m       coap://{lwm2m}")?;
    }
    for lwm2ms in &addresses.lwm2ms {
        writeln!(output, "lwm2ms      coaps://{lwm2ms}")?;
    }
    for radius in &addresses.radius {
        writeln!(output, "radius      udp://{radius}")?;
    }
    for stream in &config.network.streams {
        writeln!(output, "feed        {}/feeds/{}", addresses.feeds, stream.name)?;
    }
    for commands in &addresses.commands {
        writeln!(output, "commands    from {commands}")?;
    }
    writeln!(output, "api         {}/management-api", addresses.api)?;
    writeln!(output, "operations  {0}/health, {0}/metrics", addresses.operations)?;
    if let Some(onboarding) = &addresses.onboarding {
        writeln!(output, "onboarding  {onboarding}")?;
    }
    writeln!(output, "data        {}", config.data.dir.display())?;
    writeln!(
        output,
        "durability  D1 local (SQLite, WAL, synchronous=FULL): what is acknowledged survives \
         kill -9 and a power cut"
    )?;
    writeln!(output, "ready after {:.2} s", started.elapsed().as_secs_f64())?;
    output.flush()
}
