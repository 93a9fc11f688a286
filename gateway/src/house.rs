//! Everything that lies in the data folder, opened and put together.

use std::fs::DirBuilder;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context as _;
use cloud_integrator::Integrations;
use connectivity::SimRegistry;
use data_sessions::{SessionStore as DataSessionStore, Sessions};
use device_authenticator::{Attribution, SimDirectory};
use device_integrator::{Downlink, SavedSessions};
use inspector::Inspector;
use key_store::Keys;
use locator::{Held, Locator};
use lwm2m::{Contact, Link, Model, Registry};
use management_api::clients::Clients;
use management_api::{Feeds as ApiFeeds, Switch, Switches};
use message_log::{MessageLog, Opened};
use registration_store::RegistrationStore;
use sealing::Sealer;
use session_store::SessionStore;
use state::StateFile;
use template_library::Templates;
use tracing::{debug, warn};
use vocabulary::Timestamp;

use crate::commands::Commands;
use crate::config::{Config, Network};
use crate::firmware;
use crate::ingest::{Ingest, Sources};
use crate::key_desk::KeyDesk;
use crate::network;
use crate::network_desk::{NetworkDesk, NetworkParts};
use crate::rate::DeviceRate;
use crate::readers::SimWatch;
use crate::recovered::RecoveredExchanges;
use crate::registration_desk::RegistrationDesk;
use crate::session_desk::SessionDesk;

/// The parts of a gateway that know no socket.
pub(crate) struct House {
    pub(crate) log: MessageLog,
    pub(crate) clients: Clients,
    pub(crate) registry: Arc<SimRegistry>,
    pub(crate) directory: Arc<SimDirectory>,
    pub(crate) sessions: Sessions,
    pub(crate) attribution: Attribution,
    pub(crate) keys: Keys,
    pub(crate) templates: Templates,
    pub(crate) inspector: Inspector,
    pub(crate) integrations: Integrations,
    pub(crate) locator: Locator,
    pub(crate) switches: Switches,
    recovered: Arc<RecoveredExchanges>,
    rate: (u32, u32),
}

/// The state file of the configured data folder; creates the folder.
pub(crate) fn state_file(config: &Config) -> anyhow::Result<StateFile> {
    let folder = &config.data.dir;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("data folder {} cannot be created", folder.display()))?;
    Ok(StateFile::new(folder.join("state.db")))
}

impl House {
    /// Opens everything, and where data sessions are saved.
    pub(crate) fn open(config: &Config) -> anyhow::Result<(Self, DataSessionStore)> {
        let state = state_file(config)?;
        let options = message_log::Options {
            retention: config.retention(),
            queue_records: config.data.queue_records_max,
            segment_records: config.data.segment_records_max,
            ..message_log::Options::default()
        };
        let (log, opened) = MessageLog::open(&config.data.dir.join("messages"), options)
            .context("the message log cannot be opened")?;
        report(&opened);
        let templates = Templates::open(&state)?;
        let recovered = RecoveredExchanges::read(&log, Timestamp::from(SystemTime::now()))
            .context("the newest messages cannot be read")?;
        // The keys make the data key, so they come first.
        let keys = Keys::open(&state, &config.key_source())?;
        let sealer = Sealer::open(&config.key_source(), cloud_integrator::SEALED_FOR)?;
        let settings = integration_settings(config)?;
        let integrations = Integrations::open(&state, sealer, settings)?;
        let file = StateFile::new(config.data.dir.join("locator.db"));
        let switches = Switches::open(&state)?;
        let by_cells = switches.handle(Switch::CellTowerLocation);
        let directory = Arc::new(SimDirectory::new());
        let sims = Arc::clone(&directory);
        let held = Held::new(move |iccid| sims.find_iccid(iccid).is_some());
        let settings = config.locator.settings(&config.data.dir, by_cells, held);
        let locator = Locator::open(&file, log.clone(), templates.clone(), settings)
            .context("the locator cannot be opened")?;
        let (sessions, session_store) = network::open(config, &log)?;
        let source = config.network.addresses;
        let attribution = Attribution::new(source, Arc::clone(&directory), sessions.clone());
        let house = Self {
            clients: Clients::open(&state, &config.account.number)?,
            registry: Arc::new(SimRegistry::open(&state)?),
            directory,
            sessions,
            attribution,
            keys,
            inspector: Inspector::open_for_customer(
                &state,
                log.clone(),
                templates.clone(),
                &config.account.number,
            )?,
            integrations,
            locator,
            switches,
            templates,
            log,
            recovered: Arc::new(recovered),
            rate: (config.devices.rate_per_second, config.devices.rate_burst),
        };
        Ok((house, session_store))
    }

    /// The DTLS sessions of earlier starts, and where new ones are kept, for the listeners at these
    /// addresses.
    pub(crate) fn sessions(
        &self,
        config: &Config,
        listeners: &[SocketAddr],
    ) -> anyhow::Result<(SessionDesk, SavedSessions)> {
        let file = StateFile::new(config.data.dir.join("sessions.db"));
        let sealer = Sealer::open(&config.key_source(), session_store::SEALED_FOR)?;
        let opened = SessionStore::open(&file, sealer, listeners, config.sessions_kept_for())?;
        if opened.unopened > 0 {
            warn!(sessions = opened.unopened, "saved dtls sessions do not open and are skipped");
        }
        let saved = SavedSessions { generation: opened.generation, of_listener: opened.sessions };
        let desk = SessionDesk::open(opened.store).context("no thread for sessions")?;
        Ok((desk, saved))
    }

    /// Fills the registry of LwM2M with the registrations of earlier starts; `seat` knows which
    /// socket hears a device.
    pub(crate) fn registrations(
        config: &Config,
        registry: &Registry,
        seat: impl Fn(Link) -> Option<u32>,
    ) -> anyhow::Result<RegistrationDesk> {
        let file = StateFile::new(config.data.dir.join("registrations.db"));
        let mut unreadable = 0;
        let store = RegistrationStore::open(&file, |iccid, state| {
            let contact = Registry::saved_link(state)
                .ok()
                .flatten()
                .and_then(|link| Some(Contact { seat: seat(link)?, link }));
            if let Err(error) = registry.restore(iccid, state, contact) {
                debug!(?iccid, %error, "a registration cannot be read");
                unreadable += 1;
            }
        })?;
        if unreadable > 0 {
            warn!(unreadable, "registrations cannot be read: their devices will register again");
        }
        RegistrationDesk::open(store).context("no thread for registrations")
    }

    /// Requests to devices, given to `downlink`.
    pub(crate) fn commands(
        &self,
        config: &Config,
        (downlink, model): (Downlink, Arc<Model>),
        urls: [Option<String>; 2],
    ) -> anyhow::Result<Commands> {
        let path = config.data.dir.join("actions.db");
        let attribution = self.attribution.clone();
        let stores = (path.as_path(), firmware::settings(config, urls));
        Commands::open(stores, (downlink, attribution), model, self.log.clone())
            .context("the requests to devices cannot be opened")
    }

    /// The pipeline that listeners feed. Devices that ask for their keys are told `coaps_url`.
    pub(crate) fn ingest(
        &self,
        coaps_url: Option<String>,
        sessions: SessionDesk,
        (registrations, commands): (RegistrationDesk, Commands),
    ) -> anyhow::Result<Ingest> {
        let (per_second, burst) = self.rate;
        Ok(Ingest::new(Sources {
            attribution: self.attribution.clone(),
            log: self.log.clone(),
            templates: self.templates.clone(),
            recovered: Arc::clone(&self.recovered),
            rate: DeviceRate::new(per_second, burst),
            keys: self.keys.clone(),
            key_desk: KeyDesk::open(self.keys.clone()).context("no thread for keys")?,
            sessions,
            registrations,
            commands,
            coaps_url: coaps_url.map(Into::into),
        }))
    }

    /// Where reports of network feeds go, and the feeds as the API has them; `store` keeps the
    /// sessions from now on.
    pub(crate) fn follow_network(
        &self,
        network: &Network,
        store: DataSessionStore,
    ) -> anyhow::Result<(NetworkDesk, ApiFeeds)> {
        let feeds = network::feeds(network, &self.sessions);
        let desk = NetworkDesk::open(NetworkParts {
            log: self.log.clone(),
            sessions: self.sessions.clone(),
            directory: Arc::clone(&self.directory),
            feeds: feeds.clone(),
        });
        let kept = (self.sessions.clone(), store);
        tokio::spawn(network::keep(kept, feeds.clone(), desk.clone()));
        let feeds = network::api_feeds(network, (feeds, desk.clone()))?;
        Ok((desk, feeds))
    }

    /// Fills the directory of SIMs; the watch keeps it filled.
    pub(crate) fn sim_watch(&self) -> anyhow::Result<SimWatch> {
        let recovered = Arc::clone(&self.recovered);
        let sims = (Arc::clone(&self.registry), Arc::clone(&self.directory));
        SimWatch::load(sims, recovered, self.locator.clone())
    }
}

fn report(opened: &Opened) {
    if opened.damaged > 0 {
        warn!(damaged = opened.damaged, "records of the message log are damaged and skipped");
    }
}

fn integration_settings(config: &Config) -> anyhow::Result<cloud_integrator::Settings> {
    let integrations = &config.integrations;
    Ok(cloud_integrator::Settings {
        forwarder: integrations.forwarder(),
        network: integrations.network()?,
        extra_roots_pem: integrations.roots()?,
        integrations_max: integrations.integrations_max,
        mail: config.mail.settings()?,
        mails_per_hour: config.mail.per_hour,
        ..cloud_integrator::Settings::default()
    })
}
