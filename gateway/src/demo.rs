//! `simgate demo`: a gateway, a small simulated fleet and a webhook receiver in one process.

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use cloud_integrator::{DeliveryOptions, NewIntegration, Target, WebhookTarget};
use simulator::{
    Delivery, Fleet, Load, Payload, Plan, Protocol, Receiver, ReceiverOptions,
    THREE_FIELDS_TEMPLATE,
};
use template_library::{NewTemplate, ProtocolFilter, Status};
use vocabulary::Timestamp;

use crate::arguments::DemoArguments;
use crate::config::Config;
use crate::gateway::Gateway;
use crate::house::House;
use crate::signals::Termination;
use crate::telemetry;

pub(crate) fn run(arguments: &DemoArguments) -> anyhow::Result<ExitCode> {
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let config = config(folder.path());
    telemetry::start_log(&config.log)?;
    let metrics = telemetry::start_metrics()?;
    let fleet = Fleet::new(simulator::BASE, arguments.devices)?;
    let receiver = receiver()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut termination = Termination::listen()?;
        let gateway = Gateway::start(&config, metrics).await?;
        prepare(&gateway.house, &fleet, &receiver).await?;
        explain(&gateway, &receiver, &fleet)?;
        wait_for_sims(&gateway.house, &fleet).await?;
        let stop = Arc::new(AtomicBool::new(false));
        let devices = start_devices(&gateway, &fleet, &stop)?;
        let end = async {
            match arguments.seconds {
                0 => std::future::pending().await,
                seconds => tokio::time::sleep(Duration::from_secs(seconds)).await,
            }
        };
        tokio::select! {
            () = termination.arrived() => {}
            () = end => {}
        }
        stop.store(true, Ordering::Relaxed);
        let devices = tokio::task::spawn_blocking(move || devices.join());
        let Ok(report) = devices.await? else { bail!("the simulated devices panicked") };
        gateway.drain().await;
        writeln!(io::stdout(), "\nWhat the devices saw:")?;
        report?.write_table(&mut io::stdout())?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Free ports and a temporary folder, so that the demonstration runs beside a gateway.
fn config(folder: &std::path::Path) -> Config {
    let mut config = Config::default();
    let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    folder.clone_into(&mut config.data.dir);
    config.api.listen = free;
    config.integrations.allow_http_loopback = true;
    config.log.filter = "warn".to_owned();
    let devices = &mut config.devices;
    devices.udp.iter_mut().for_each(|listener| listener.listen = free);
    for listener in devices.coap.iter_mut().chain(&mut devices.lwm2m) {
        listener.listen = free;
    }
    for listener in devices.coaps.iter_mut().chain(&mut devices.lwm2ms) {
        listener.listen = free;
    }
    config
}

/// A webhook receiver that prints what it gets.
fn receiver() -> anyhow::Result<Receiver> {
    let on_delivery = |delivery: &Delivery| {
        let _ = writeln!(io::stdout(), "{}", line(&delivery.body));
    };
    let options = ReceiverOptions {
        keep: 0,
        on_delivery: Some(Box::new(on_delivery)),
        ..ReceiverOptions::default()
    };
    Receiver::start(options).context("the webhook receiver cannot be started")
}

/// An event in one line for a person.
fn line(body: &[u8]) -> String {
    let event: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let iccid = event["device"]["iccid"].as_str().unwrap_or("-");
    match event["type"].as_str() {
        Some("TELEMETRY_DATA") => {
            let source = event["source"].as_str().unwrap_or("-");
            format!("{source:<4} {iccid}  {}", event["payload"]["value"])
        }
        Some("LIFECYCLE") => format!("NEW  {iccid}  {}", event["lifecycle"]["message"]),
        _ => event.to_string(),
    }
}

/// SIMs, a template and a webhook, as an operator would set them up.
async fn prepare(house: &House, fleet: &Fleet, receiver: &Receiver) -> anyhow::Result<()> {
    let mut csv = Vec::new();
    fleet.write_csv(&mut csv)?;
    house.registry.import(&csv[..], Timestamp::from(SystemTime::now()), |_| {})?;
    house.templates.create(NewTemplate {
        name: "demo".to_owned(),
        source: THREE_FIELDS_TEMPLATE.to_owned(),
        protocol_filter: ProtocolFilter::new([
            vocabulary::Protocol::Udp,
            vocabulary::Protocol::Coap,
        ])?,
        status: Status::Active,
    })?;
    let target = WebhookTarget { url: receiver.url(), ..WebhookTarget::default() };
    let webhook = NewIntegration {
        name: "demo".to_owned(),
        target: Target::Webhook(target),
        delivery: DeliveryOptions::default(),
        event_types: vec![("TELEMETRY_DATA".into(), None), ("LIFECYCLE".into(), None)],
        json_payload_enabled: false,
    };
    house.integrations.create(webhook).await?;
    Ok(())
}

/// The listeners take new SIMs over within half a second.
async fn wait_for_sims(house: &House, fleet: &Fleet) -> anyhow::Result<()> {
    for _ in 0..100 {
        if house.directory.len() >= fleet.devices() as usize {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!("the SIMs were not taken over within 5 s")
}

fn explain(gateway: &Gateway, receiver: &Receiver, fleet: &Fleet) -> io::Result<()> {
    let mut output = io::stdout();
    let coap = gateway.addresses.coap.first().map(ToString::to_string).unwrap_or_default();
    writeln!(
        output,
        "{} simulated devices send 8 bytes each second by CoAP to coap://{coap}.\n\
         simgate knows each by its address, stores the bytes, acknowledges, decodes them with a\n\
         template, and pushes JSON to the webhook {}:\n",
        fleet.devices(),
        receiver.url()
    )
}

type Devices = std::thread::JoinHandle<Result<simulator::Report, simulator::RunError>>;

fn start_devices(
    gateway: &Gateway,
    fleet: &Fleet,
    stop: &Arc<AtomicBool>,
) -> anyhow::Result<Devices> {
    let Some(SocketAddr::V4(target)) = gateway.addresses.coap.first().copied() else {
        bail!("the demonstration needs a CoAP listener on IPv4");
    };
    let plan = plan(target, fleet);
    let stop = Arc::clone(stop);
    let thread = std::thread::Builder::new().name("devices".to_owned());
    Ok(thread.spawn(move || simulator::run(&plan, |_| {}, &stop))?)
}

fn plan(target: SocketAddrV4, fleet: &Fleet) -> Plan {
    Plan {
        target,
        devices: fleet.devices(),
        protocol: Protocol::CoapCon,
        load: Load::PerSecond(u64::from(fleet.devices())),
        duration: None,
        payload: Payload::ThreeFields,
        drain: Duration::from_secs(1),
        ..Plan::default()
    }
}
