//! A gateway without device listeners: what the tests talk to.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use cloud_integrator::{
    ForwarderSettings, Integrations, MailSecurity, MailSettings, NetworkPolicy, Source,
};
use connectivity::{NewSim, SimPatch, SimRegistry};
use data_sessions::Sessions;
use device_controller::{Controller, Dispatch};
use firmware_update::{ImageLimits, Updates, Urls};
use inspector::Inspector;
use locator::{Held, Locator};
use management_api::clients::{Clients, NewClient};
use management_api::server::{Limits, Server, ServerConfig};
use management_api::{
    DeviceEndpoint, FeedState, Feeds, ManagementApi, MetricsText, Readiness, Registration,
    Registrations, Services, Settings, StreamAccess, Switches,
};
use message_log::{DeviceKey, Kind, MessageLog, NewRecord};
use reqwest::{Method, StatusCode};
use sealing::{KeySource, Sealer};
use serde_json::Value;
use state::StateFile;
use tempfile::TempDir;
use template_library::Templates;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use vocabulary::{
    EventId, EventKind, Iccid, Identity, IdentityClass, Notice, NoticeCategory, NoticeKind,
    Protocol, Telemetry, Timestamp,
};

pub(crate) const ACCOUNT: &str = "2000523120";
pub(crate) const ICCID: &str = "8988280666000002864";
/// The one device that is registered by LwM2M.
pub(crate) const REGISTERED: &str = "8988280666000002865";

pub(crate) struct Gateway {
    pub(crate) folder: TempDir,
    pub(crate) address: SocketAddr,
    pub(crate) clients: Clients,
    pub(crate) client: NewClient,
    pub(crate) registry: Arc<SimRegistry>,
    pub(crate) templates: Templates,
    pub(crate) inspector: Inspector,
    pub(crate) log: MessageLog,
    pub(crate) integrations: Integrations,
    pub(crate) firmware: Updates,
    pub(crate) readiness: Readiness,
    pub(crate) controller: Controller,
    /// What a sender was handed.
    pub(crate) handed: Arc<Mutex<Vec<Dispatch>>>,
    pub(crate) switches: Switches,
    pub(crate) locator: Locator,
    pub(crate) sessions: Sessions,
    pub(crate) http: reqwest::Client,
    pub(crate) api: ManagementApi,
    token: String,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<()>>,
}

/// What a test may choose.
#[derive(Default)]
pub(crate) struct Choices {
    pub(crate) limits: Limits,
    pub(crate) settings: Settings,
    pub(crate) operations_apart: bool,
    pub(crate) forwarder: ForwarderSettings,
}

/// An answer, read as a whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) async fn of(response: reqwest::Response) -> Self {
        let (status, headers) = (response.status(), response.headers().clone());
        Self { status, headers, text: response.text().await.unwrap() }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The answer's JSON, after checking its status.
    pub(crate) fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        if self.text.is_empty() { Value::Null } else { self.json() }
    }

    /// The first entry of `errors`, after checking the documented shape of a refusal.
    pub(crate) fn refusal(&self, status: u16) -> Value {
        let body = self.expect(status);
        assert_eq!(body["statusCode"], status, "{body}");
        assert!(body["statusText"].is_string(), "{body}");
        assert!(body["errors"][0]["message"].is_string(), "{body}");
        body["errors"][0].clone()
    }
}

impl Gateway {
    pub(crate) async fn start() -> Self {
        Self::start_with(Choices::default()).await
    }

    /// One that finds in its folder what `fill` puts there.
    pub(crate) async fn start_filled(fill: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fill(folder.path());
        Self::start_chosen(folder, Choices::default()).await
    }

    pub(crate) async fn start_with(choices: Choices) -> Self {
        Self::start_chosen(tempfile::tempdir().unwrap(), choices).await
    }

    async fn start_chosen(folder: TempDir, choices: Choices) -> Self {
        let config = ServerConfig {
            address: "127.0.0.1:0".parse().unwrap(),
            tls: None,
            allow_plain_http: false,
            limits: choices.limits,
        };
        let http = reqwest::Client::new();
        Self::start_in(folder, config, choices, http).await
    }

    pub(crate) async fn start_in(
        folder: TempDir,
        config: ServerConfig,
        choices: Choices,
        http: reqwest::Client,
    ) -> Self {
        let state = StateFile::new(folder.path().join("state.db"));
        let log = message_log(folder.path());
        let clients = Clients::open(&state, ACCOUNT).unwrap();
        let client = clients.create("tests").unwrap();
        let templates = Templates::open(&state).unwrap();
        let inspector =
            Inspector::open_for_customer(&state, log.clone(), templates.clone(), ACCOUNT).unwrap();
        let registry = Arc::new(SimRegistry::open(&state).unwrap());
        let key_file = KeySource::File(folder.path().join("data.key"));
        let keys = key_store::Keys::open(&state, &key_file).unwrap();
        let integrations = integrations((&state, &key_file), choices.forwarder);
        integrations.start(source(&log, &templates)).await.unwrap();
        let firmware = firmware(folder.path());
        let readiness = ready();
        let handed: Arc<Mutex<Vec<Dispatch>>> = Arc::default();
        let controller = controller(folder.path(), &handed);
        let switches = Switches::open(&state).unwrap();
        let locator = locator(folder.path(), &log, &templates, &registry);
        let sessions = Sessions::new(data_sessions::Settings::default());
        let api = ManagementApi::new(Services {
            clients: clients.clone(),
            registry: Arc::clone(&registry),
            keys,
            templates: templates.clone(),
            inspector: inspector.clone(),
            integrations: integrations.clone(),
            controller: controller.clone(),
            registrations: Registrations::new(registration),
            switches: switches.clone(),
            locator: locator.clone(),
            sessions: sessions.clone(),
            feeds: feeds(&sessions),
            firmware: firmware.clone(),
            log: log.clone(),
            metrics: MetricsText::new(|| "simgate_up 1\n".to_owned()),
            readiness: readiness.clone(),
            settings: Settings { endpoints: endpoints(), ..choices.settings },
        })
        .unwrap();
        let router =
            if choices.operations_apart { api.router() } else { api.router_with_operations() };
        let (address, stop, serving) = serve(config, router).await;
        let mut gateway = Self {
            folder,
            address,
            clients,
            client,
            registry,
            templates,
            inspector,
            log,
            integrations,
            firmware,
            readiness,
            controller,
            handed,
            switches,
            locator,
            sessions,
            http,
            api,
            token: String::new(),
            stop: Some(stop),
            serving: Some(serving),
        };
        gateway.token = gateway.token_without_tls().await;
        gateway
    }

    /// Over TLS a test logs in by itself.
    async fn token_without_tls(&self) -> String {
        if self.is_tls() { String::new() } else { self.login().await }
    }

    fn is_tls(&self) -> bool {
        self.folder.path().join("certificate.pem").exists()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        let scheme = if self.is_tls() { "https" } else { "http" };
        format!("{scheme}://localhost:{}{path}", self.address.port())
    }

    pub(crate) async fn login(&self) -> String {
        let NewClient { client_id, client_secret } = &self.client;
        let request = self
            .http
            .post(self.url("/management-api/oauth/token?grant_type=client_credentials"))
            .basic_auth(client_id, Some(client_secret));
        let body = Answer::of(request.send().await.unwrap()).await.expect(200);
        body["access_token"].as_str().unwrap().to_owned()
    }

    /// A request with a token, below `/management-api`.
    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = self.url(&format!("/management-api{path}"));
        self.http.request(method, url).bearer_auth(&self.token)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::GET, path).send().await.unwrap()).await
    }

    pub(crate) async fn send(&self, method: Method, path: &str, body: Value) -> Answer {
        Answer::of(self.request(method, path).json(&body).send().await.unwrap()).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Method::POST, path, body).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        self.send(Method::PATCH, path, body).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::DELETE, path).send().await.unwrap()).await
    }

    pub(crate) async fn post_empty(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::POST, path).send().await.unwrap()).await
    }

    /// Puts a SIM into the registry.
    pub(crate) fn add_sim(&self, iccid: &str, ip: &str) {
        let properties = SimPatch {
            imsi: Some(Some("901405100002864".parse().unwrap())),
            ip: Some(Some(ip.parse().unwrap())),
            ..SimPatch::default()
        };
        let new = NewSim { iccid: iccid.parse().unwrap(), properties };
        self.registry.create(new, SystemTime::now().into()).unwrap();
    }

    /// Appends a message as the gateway would, `at` ago.
    pub(crate) async fn append(
        &self,
        protocol: Protocol,
        payload: &[u8],
        at: Timestamp,
    ) -> EventId {
        let iccid: Iccid = ICCID.parse().unwrap();
        let telemetry = Telemetry {
            identity: Identity { iccid, imsi: None, ip: None },
            class: IdentityClass::SimIp,
            protocol,
            topic: (protocol == Protocol::Coap).then_some("room/1"),
            template: self.templates.active(protocol),
            exchange: None,
            measured: None,
            session: None,
            payload,
        };
        self.append_event(EventKind::Telemetry, iccid.as_u64(), telemetry.encode(), at).await
    }

    /// Appends a notice about the message `about`.
    pub(crate) async fn append_notice(&self, about: EventId) -> EventId {
        let iccid: Iccid = ICCID.parse().unwrap();
        let message = "Translator[UserPayloadError]";
        let mut notice = Notice::new(NoticeCategory::Error, NoticeKind::Device, message);
        notice.iccid = Some(iccid);
        notice.payload_of = Some(about.to_string());
        self.append_entry(&notice).await
    }

    /// Appends a notice.
    pub(crate) async fn append_entry(&self, notice: &Notice) -> EventId {
        let device = notice.iccid.map_or(0, Iccid::as_u64);
        let now = SystemTime::now().into();
        self.append_event(EventKind::Notice, device, notice.encode(), now).await
    }

    async fn append_event(
        &self,
        kind: EventKind,
        device: u64,
        body: Vec<u8>,
        received_at: Timestamp,
    ) -> EventId {
        let (kind, device) = (Kind::new(kind.code()), DeviceKey::from_u64(device));
        let before = self.log.end();
        self.log.append(vec![NewRecord { kind, device, received_at, body }]).await.unwrap();
        let limits = message_log::ReadLimits { records: 10, bytes: 1 << 20 };
        self.log.read(before, limits).unwrap().records.last().unwrap().id
    }

    /// Asks the server to stop and waits until it has.
    pub(crate) async fn stop(mut self) {
        drop(self.stop.take());
        self.serving.take().unwrap().await.unwrap();
    }
}

async fn serve(
    config: ServerConfig,
    router: axum::Router,
) -> (SocketAddr, oneshot::Sender<()>, JoinHandle<()>) {
    let server = Server::bind(config).await.unwrap();
    let address = server.address();
    let (stop, stopped) = oneshot::channel();
    let serving = tokio::spawn(server.serve(router, async {
        let _ = stopped.await;
    }));
    (address, stop, serving)
}

fn message_log(folder: &Path) -> MessageLog {
    MessageLog::open(&folder.join("messages"), message_log::Options::default()).unwrap().0
}

fn controller(folder: &Path, handed: &Arc<Mutex<Vec<Dispatch>>>) -> Controller {
    let handed = Arc::clone(handed);
    let dispatcher = Arc::new(move |dispatch| handed.lock().unwrap().push(dispatch));
    Controller::open(&folder.join("actions.db"), Default::default(), dispatcher).unwrap()
}

fn registration(device: Iccid) -> Option<Registration> {
    (device.to_string() == REGISTERED).then(|| Registration {
        device_id: REGISTERED.to_owned(),
        version: "1.1".to_owned(),
        binding: "UQ".to_owned(),
        security: "PSK",
        lifetime_seconds: 300,
        registered_at: "2026-11-21T08:15:30.042Z".to_owned(),
        updated_at: "2026-11-21T08:15:30.042Z".to_owned(),
        expires_at: "2026-11-21T08:24:37.042Z".to_owned(),
        objects: vec!["/3/0".to_owned()],
        observations: vec!["/3/0/9".to_owned()],
    })
}

fn ready() -> Readiness {
    let readiness = Readiness::default();
    readiness.set(true);
    readiness
}

fn source(log: &MessageLog, templates: &Templates) -> Source {
    Source { log: log.clone(), templates: templates.clone() }
}

fn integrations(
    (state, key): (&StateFile, &KeySource),
    forwarder: ForwarderSettings,
) -> Integrations {
    let sealer = Sealer::open(key, cloud_integrator::SEALED_FOR).unwrap();
    let network = NetworkPolicy { allow_http_loopback: true, ..NetworkPolicy::default() };
    let mail = MailSettings {
        host: "127.0.0.1".to_owned(),
        // Where nobody listens.
        port: 1,
        security: MailSecurity::None,
        user: None,
        password: None,
        from: "alerts@example.com".to_owned(),
        hello_name: None,
    };
    let settings =
        cloud_integrator::Settings { forwarder, network, mail: Some(mail), ..Default::default() };
    Integrations::open(state, sealer, settings).unwrap()
}

/// Updates whose steps lead nowhere, with a small limit for images.
fn firmware(folder: &Path) -> Updates {
    let settings = firmware_update::Settings {
        folder: folder.to_owned(),
        images: ImageLimits { bytes_max: 4 << 20, ..ImageLimits::default() },
        urls: Urls { coap: Some("coap://localhost:5683".to_owned()), coaps: None },
    };
    Updates::open(settings, Arc::new(|_| {}), SystemTime::now().into()).unwrap()
}

fn endpoints() -> Vec<DeviceEndpoint> {
    let endpoint = |protocol, port| DeviceEndpoint {
        protocol,
        domain: "gateway.example.com".to_owned(),
        ip_addresses: vec![[10, 0, 0, 1].into()],
        port,
        secure_port: None,
    };
    vec![
        endpoint(Protocol::Udp, 4445),
        endpoint(Protocol::Coap, 5683),
        endpoint(Protocol::Lwm2m, 5783),
    ]
}

fn locator(
    folder: &Path,
    log: &MessageLog,
    templates: &Templates,
    registry: &Arc<SimRegistry>,
) -> Locator {
    let sims = Arc::clone(registry);
    let settings = locator::Settings {
        cells: folder.join("cells.db"),
        cell_interval: std::time::Duration::from_hours(1),
        learn_cells: true,
        geofences_max: 3,
        hysteresis_m: 20.0,
        dwell: std::time::Duration::ZERO,
        by_cells: Arc::default(),
        held: Held::new(move |iccid| sims.find(iccid).is_ok_and(|sim| sim.is_some())),
    };
    let file = StateFile::new(folder.join("locator.db"));
    Locator::open(&file, log.clone(), templates.clone(), settings).unwrap()
}

/// One stream by HTTP Basic and one by a bearer token, whose reports count at once. A session named
/// `refused` cannot be stored.
fn feeds(sessions: &Sessions) -> Feeds {
    let access = |user: Option<&str>| StreamAccess {
        user: user.map(str::to_owned),
        secret: "a secret of 20 bytes".to_owned().into(),
    };
    let sessions = sessions.clone();
    Feeds {
        streams: [
            ("vendor".to_owned(), access(Some("simgate"))),
            ("bearer".to_owned(), access(None)),
        ]
        .into(),
        store: Some(Box::new(move |reports| {
            let sessions = sessions.clone();
            Box::pin(async move {
                let now = Timestamp::from(SystemTime::now());
                for report in &reports {
                    sessions.apply((sessions.cursor(), now), report);
                }
                reports.iter().all(|report| report.session != "refused")
            })
        })),
        list: Some(Box::new(|| {
            vec![FeedState {
                name: "vendor".to_owned(),
                kind: "STREAM",
                state: "HEARD",
                heard: Some("2026-11-21T08:15:30.042Z".to_owned()),
                reports: 7,
            }]
        })),
    }
}
