//! A running gateway: its parts started in order, and stopped in the reverse one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use aws_onboarding::Onboarding;
use cloud_integrator::Source;
use device_integrator::{Listeners, Lwm2mParts, Running};
use inspector::ReaderThread;
use lwm2m::{Account, Registry, RegistryLimits, Security};
use management_api::server::{Limits, Server, ServerConfig, TlsFiles};
use management_api::{
    DeviceEndpoint, Feeds, ManagementApi, MetricsText, OnboardingServices, Readiness, Registration,
    Registrations, Services, Settings, Switch, onboarding_router,
};
use message_log::State;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::sync::watch;
use tokio::task::JoinHandle as Task;
use tracing::error;
use vocabulary::{Iccid, Protocol};

use crate::commands::Commands;
use crate::config::{Api, Config};
use crate::firmware::FirmwareThread;
use crate::house::House;
use crate::listeners;
use crate::network::{RadiusServers, RunningRadius};
use crate::objects;
use crate::onboarding;
use crate::registration_desk::RegistrationDesk;
use crate::signals;
use crate::upkeep;

/// How long attempts at webhooks may still run when the gateway stops; with the API's 5 s this
/// stays below the 10 s that the whole has.
const FORWARDERS_GRACE: Duration = Duration::from_secs(3);

/// A gateway that takes messages.
pub(crate) struct Gateway {
    pub(crate) house: House,
    pub(crate) addresses: Addresses,
    readiness: Readiness,
    devices: Running,
    commands: Commands,
    registrations: RegistrationDesk,
    inspector: ReaderThread,
    locator: locator::ReaderThread,
    sims: JoinHandle<()>,
    firmware: FirmwareThread,
    sims_stop: Arc<AtomicBool>,
    servers: Vec<Task<()>>,
    radius: RunningRadius,
    servers_stop: watch::Sender<bool>,
}

/// Where a gateway listens.
pub(crate) struct Addresses {
    pub(crate) udp: Vec<SocketAddr>,
    pub(crate) coap: Vec<SocketAddr>,
    pub(crate) coaps: Vec<SocketAddr>,
    pub(crate) lwm2m: Vec<SocketAddr>,
    pub(crate) lwm2ms: Vec<SocketAddr>,
    /// Where RADIUS accounting is heard.
    pub(crate) radius: Vec<SocketAddr>,
    /// Where plain requests to devices come from.
    pub(crate) commands: Vec<SocketAddr>,
    /// With scheme, without a path.
    pub(crate) api: String,
    /// Of `/health` and `/metrics`; with scheme, without a path.
    pub(crate) operations: String,
    /// Where devices ask for certificates; with scheme, without a path.
    pub(crate) onboarding: Option<String>,
    /// Where SIM vendors post; with scheme, without a path.
    pub(crate) feeds: String,
}

/// The HTTP servers, bound.
struct Servers {
    api: Server,
    operations: Option<Server>,
    onboarding: Option<Server>,
    streams: Option<Server>,
}

impl Gateway {
    /// Opens the data, binds every port, and only then lets messages in.
    pub(crate) async fn start(config: &Config, metrics: PrometheusHandle) -> anyhow::Result<Self> {
        signals::survive_file_size_limit()?;
        let servers = Servers::bind(config).await?;
        let model = Arc::new(objects::load(config.lwm2m.objects_dir.as_deref())?);
        let registrations_max = config.lwm2m.registrations_max;
        let registry =
            Registry::new(RegistryLimits { registrations_max, ..RegistryLimits::default() });
        let listeners = Listeners::bind(&listeners::config(config), registry.clone())?;
        let radius = RadiusServers::bind(&config.network).await?;
        let addresses = Addresses { radius: radius.addresses(), ..servers.addresses(&listeners) };
        let (house, session_store) = House::open(config)?;
        let sims = house.sim_watch()?;
        let parts = (listeners.downlink(), Arc::clone(&model));
        let [urls, _] = config.lwm2m_urls([&addresses.lwm2m, &addresses.lwm2ms]);
        let commands = house.commands(config, parts, urls)?;
        let readiness = Readiness::default();
        let (servers_stop, stopped) = watch::channel(false);
        tokio::spawn(upkeep::metrics(metrics.clone()));
        tokio::spawn(upkeep::templates(house.log.clone(), house.templates.clone()));
        let (network_desk, feeds) = house.follow_network(&config.network, session_store)?;
        let parts = (&house, &commands, feeds);
        let services = services(parts, config, &addresses, metrics, &readiness);
        let api = ManagementApi::new(services)?;
        api.work_off_key_jobs();
        let source = Source { log: house.log.clone(), templates: house.templates.clone() };
        house.integrations.start(source).await.context("integrations cannot be started")?;
        let secure = [&addresses.coaps[..], &addresses.lwm2ms].concat();
        let (desk, sessions) = house.sessions(config, &secure)?;
        let seats = listeners.lwm2m_seats(&sessions);
        let registrations = House::registrations(config, &registry, seats)?;
        let coaps_url = config.coaps_url(&addresses.coaps);
        let desks = (registrations.clone(), commands.clone());
        let ingest = house.ingest(coaps_url, desk, desks)?;
        tokio::spawn(upkeep::rate(ingest.clone()));
        tokio::spawn(upkeep::registrations(registry.clone(), registrations.clone()));
        tokio::spawn(upkeep::commands(commands.clone()));
        let lwm2m = Lwm2mParts {
            registry: registry.clone(),
            model,
            server: addresses.lwm2m_server(config),
            passive_reporting: house.switches.handle(Switch::Lwm2mPassiveReporting),
        };
        let onboarding = onboarding::open(config, &house)?;
        let asked = onboarding.as_ref().map(|onboarding| asked(onboarding, &house, config));
        let mut servers = servers.serve(&api, asked, &stopped);
        let sims_stop = Arc::new(AtomicBool::new(false));
        servers.extend(onboard(onboarding.clone(), &house, config, stopped));
        let gateway = Self {
            servers,
            radius: radius.serve(&network_desk),
            inspector: house.inspector.reader()?.spawn()?,
            locator: house.locator.reader()?.spawn()?,
            sims: sims
                .with_registrations(registry, registrations.clone())
                .with_onboarding(onboarding)
                .spawn(Arc::clone(&sims_stop))?,
            firmware: FirmwareThread::spawn(commands.clone())?,
            devices: listeners.run(&ingest, sessions, &lwm2m)?,
            commands,
            registrations,
            house,
            addresses,
            readiness,
            sims_stop,
            servers_stop,
        };
        gateway.commands.resume()?;
        gateway.readiness.set(true);
        Ok(gateway)
    }

    /// Resolves when the message log fails for good.
    pub(crate) async fn store_failed(&self) {
        let mut state = self.house.log.watch_state();
        if state.wait_for(|state| *state == State::Failed).await.is_err() {
            // The log is gone, which only happens after a drain.
            std::future::pending::<()>().await;
        }
    }

    /// Resolves when a listener ended unasked.
    pub(crate) async fn listener_ended(&self) {
        tokio::select! {
            () = self.devices.ended() => {}
            () = self.radius.ended() => {}
        }
    }

    /// Stops reading, commits and answers what was read, and ends every part.
    pub(crate) async fn drain(self) {
        self.readiness.set(false);
        self.radius.stop();
        let Self {
            house,
            devices,
            commands,
            registrations,
            inspector,
            locator,
            sims,
            firmware,
            servers,
            ..
        } = self;
        let devices = tokio::task::spawn_blocking(move || devices.stop());
        report("listeners", devices.await.map_err(anyhow::Error::from));
        // What was noted is written before what is waited for.
        registrations.write(Vec::new()).await;
        self.servers_stop.send_replace(true);
        self.sims_stop.store(true, Ordering::Relaxed);
        house.integrations.shutdown(FORWARDERS_GRACE).await;
        for server in servers {
            report("server", server.await.map_err(anyhow::Error::from));
        }
        let rest = tokio::task::spawn_blocking(move || {
            report("inspector", inspector.stop().map_err(anyhow::Error::from));
            report("locator", locator.stop().map_err(anyhow::Error::from));
            firmware.stop();
            if sims.join().is_err() {
                error!("the watch on SIMs had panicked");
            }
            commands.controller().close();
            house.log.close();
        });
        report("message log", rest.await.map_err(anyhow::Error::from));
    }
}

impl Addresses {
    /// What a bootstrap tells devices of LwM2M, and how their registrations are kept.
    fn lwm2m_server(&self, config: &Config) -> lwm2m::ServerConfig {
        let urls = config.lwm2m_urls([&self.lwm2m, &self.lwm2ms]);
        // Without a listener of the kind nobody bootstraps there.
        let [servers, bootstraps] = urls.map(|urls| urls.map(Option::unwrap_or_default));
        let account = |(server_uri, bootstrap_uri)| Account { server_uri, bootstrap_uri };
        let ([plain, secure], [plain_bootstrap, secure_bootstrap]) = (servers, bootstraps);
        let (plain, secure) =
            (account((plain, plain_bootstrap)), account((secure, secure_bootstrap)));
        let shared = &config.lwm2m;
        lwm2m::ServerConfig {
            lifetime_seconds: shared.lifetime_seconds,
            lifetime_max: Duration::from_hours(24 * u64::from(shared.lifetime_days_max)),
            expiry_grace: Duration::from_secs(u64::from(shared.grace_seconds)),
            awake_for: Duration::from_secs(u64::from(shared.awake_seconds)),
            bootstrap_discover: shared.bootstrap_discover,
            ..lwm2m::ServerConfig::new(plain, secure)
        }
    }
}

impl Servers {
    async fn bind(config: &Config) -> anyhow::Result<Self> {
        let api = Server::bind(server_config(&config.api)).await?;
        let operations = match config.operations.listen {
            None => None,
            Some(address) => Some(Server::bind(plain_config(address)).await?),
        };
        let onboarding = match config.onboarding.listen {
            None => None,
            // The device's network is trusted, or the configuration would not be.
            Some(address) => Some(Server::bind(plain_config(address)).await?),
        };
        let streams = match config.network.streams_listen {
            None => None,
            // With the certificate of the API: vendors post by HTTPS only.
            Some(listen) => Some(
                Server::bind(ServerConfig { address: listen, ..server_config(&config.api) })
                    .await?,
            ),
        };
        Ok(Self { api, operations, onboarding, streams })
    }

    fn addresses(&self, listeners: &Listeners) -> Addresses {
        let url = |server: &Server| format!("{}://{}", server.scheme(), server.address());
        Addresses {
            udp: listeners.udp_addresses(),
            coap: listeners.coap_addresses(),
            coaps: listeners.coaps_addresses(),
            lwm2m: listeners.lwm2m_addresses(),
            lwm2ms: listeners.lwm2ms_addresses(),
            radius: Vec::new(),
            commands: listeners.commands_addresses(),
            api: url(&self.api),
            operations: url(self.operations.as_ref().unwrap_or(&self.api)),
            onboarding: self.onboarding.as_ref().map(url),
            feeds: url(self.streams.as_ref().unwrap_or(&self.api)),
        }
    }

    fn serve(
        self,
        api: &ManagementApi,
        asked: Option<OnboardingServices>,
        stopped: &watch::Receiver<bool>,
    ) -> Vec<Task<()>> {
        let router = match self.operations {
            Some(_) => api.router(),
            None => api.router_with_operations(),
        };
        let mut tasks = vec![tokio::spawn(self.api.serve(router, shutdown(stopped.clone())))];
        if let Some(server) = self.operations {
            let router = api.operations_router();
            tasks.push(tokio::spawn(server.serve(router, shutdown(stopped.clone()))));
        }
        if let Some(server) = self.streams {
            let router = api.feeds_router();
            tasks.push(tokio::spawn(server.serve(router, shutdown(stopped.clone()))));
        }
        if let (Some(server), Some(services)) = (self.onboarding, asked) {
            let router = onboarding_router(services);
            tasks.push(tokio::spawn(server.serve(router, shutdown(stopped.clone()))));
        }
        tasks
    }
}

/// What devices ask for their certificates.
fn asked(onboarding: &Onboarding, house: &House, config: &Config) -> OnboardingServices {
    let proxies = config.onboarding.trusted_proxies.clone();
    onboarding::services(onboarding, &house.attribution, proxies)
}

/// Onboards devices, if any are to be.
fn onboard(
    onboarding: Option<Onboarding>,
    house: &House,
    config: &Config,
    stopped: watch::Receiver<bool>,
) -> Option<Task<()>> {
    let sources = (house.log.clone(), Arc::clone(&house.directory));
    let when = config.onboarding.when;
    Some(tokio::spawn(onboarding::run(onboarding?, sources, when, shutdown(stopped))))
}

/// Resolves when the servers are to stop.
async fn shutdown(mut stopped: watch::Receiver<bool>) {
    // A sender that is gone means the end, too.
    let _ = stopped.wait_for(|stop| *stop).await;
}

fn services(
    (house, commands, feeds): (&House, &Commands, Feeds),
    config: &Config,
    addresses: &Addresses,
    metrics: PrometheusHandle,
    readiness: &Readiness,
) -> Services {
    let endpoint = |protocol, addresses: &[SocketAddr], secure: Option<&SocketAddr>| {
        addresses.first().map(|address: &SocketAddr| DeviceEndpoint {
            protocol,
            domain: config.devices.domain.clone().unwrap_or_else(|| address.ip().to_string()),
            ip_addresses: addresses.iter().map(SocketAddr::ip).collect(),
            port: address.port(),
            secure_port: secure.map(SocketAddr::port),
        })
    };
    let lwm2m = commands.downlink().registry().clone();
    let endpoints = [
        endpoint(Protocol::Udp, &addresses.udp, None),
        endpoint(Protocol::Coap, &addresses.coap, addresses.coaps.first()),
        endpoint(Protocol::Lwm2m, &addresses.lwm2m, addresses.lwm2ms.first()),
    ];
    Services {
        clients: house.clients.clone(),
        registry: Arc::clone(&house.registry),
        keys: house.keys.clone(),
        templates: house.templates.clone(),
        inspector: house.inspector.clone(),
        integrations: house.integrations.clone(),
        controller: commands.controller().clone(),
        firmware: commands.updates().clone(),
        registrations: Registrations::new(move |device| registration(&lwm2m, device)),
        switches: house.switches.clone(),
        locator: house.locator.clone(),
        sessions: house.sessions.clone(),
        feeds,
        log: house.log.clone(),
        metrics: MetricsText::new(move || metrics.render()),
        readiness: readiness.clone(),
        settings: Settings {
            endpoints: endpoints.into_iter().flatten().collect(),
            public_url: config.api.public_url.clone(),
            ..Settings::default()
        },
    }
}

/// A registration as the API shows it.
fn registration(registry: &Registry, device: Iccid) -> Option<Registration> {
    let found = registry.snapshot(device)?;
    let place = |(object, instance): (u16, Option<u16>)| {
        instance.map_or_else(|| format!("/{object}"), |instance| format!("/{object}/{instance}"))
    };
    let observed = found.observations.iter().flat_map(|observation| &observation.paths);
    Some(Registration {
        device_id: device.to_string(),
        version: found.version.as_str().to_owned(),
        binding: found.binding.to_string(),
        security: match found.security {
            Security::NoSec => "NONE",
            Security::BootstrapKey | Security::ServerKey => "PSK",
        },
        lifetime_seconds: found.lifetime_seconds,
        registered_at: found.registered_at.to_string(),
        updated_at: found.updated_at.to_string(),
        expires_at: found.expires_at.to_string(),
        objects: found.links.places().map(place).collect(),
        observations: observed.map(ToString::to_string).collect(),
    })
}

fn server_config(api: &Api) -> ServerConfig {
    let tls = match (&api.tls_certificate, &api.tls_key) {
        (Some(certificate), Some(key)) => {
            Some(TlsFiles { certificate: certificate.clone(), key: key.clone() })
        }
        _ => None,
    };
    ServerConfig {
        address: api.listen,
        tls,
        allow_plain_http: api.allow_plain_http,
        limits: Limits::default(),
    }
}

/// Of a server without TLS, whose address the operator named for just this.
fn plain_config(address: SocketAddr) -> ServerConfig {
    let limits = Limits::default();
    ServerConfig { address, tls: None, allow_plain_http: true, limits }
}

fn report(part: &str, ended: anyhow::Result<()>) {
    if let Err(error) = ended {
        error!(part, error = crate::causes::said(&error), "did not end in order");
    }
}
