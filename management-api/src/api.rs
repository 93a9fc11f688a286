//! The API as a whole: which path leads where, and what every answer has in common.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use metrics::{counter, histogram};
use tokio::sync::Semaphore;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::clients::KeyError;
use crate::error::{ApiError, ErrorDetail};
use crate::links::Links;
use crate::services::Services;
use crate::throttle::{Rate, Throttle, address_key};
use crate::tokens::Tokens;
use crate::{
    access, action_requests, actions, administration_logs, aws_integrations, aws_template,
    data_sessions, dead_letters, devices, email_integrations, endpoints, feeds, firmware_images,
    firmware_jobs, geofences, geolocation, history, integration_pauses, integration_status,
    integration_trials, integrations, messages, mqtt_integrations, oauth, openapi, operations,
    positions, psk, registrations, replays, settings, sim_import, sims, templates, webhook_signing,
    webhooks,
};

/// Where every path of the API begins, as documented.
pub(crate) const PREFIX: &str = "/management-api";

/// How often it is said of a feed that its records are incomplete: a vendor who has changed the
/// format sends thousands of bodies.
const COMPLAINTS: Rate = Rate { per_second: 1.0 / 60.0, burst: 1.0 };

/// The management API over one gateway's services. Cheap to clone.
#[derive(Clone)]
pub struct ManagementApi(Arc<Parts>);

struct Parts {
    services: Services,
    tokens: Tokens,
    links: Links,
    clients: Throttle<String>,
    addresses: Throttle<std::net::IpAddr>,
    complaints: Throttle<String>,
    imports: Arc<Semaphore>,
    previews: Arc<Semaphore>,
}

impl ManagementApi {
    /// Takes the keys for tokens and links out of the state file, or makes them at the first start.
    pub fn new(services: Services) -> Result<Self, KeyError> {
        let clients = &services.clients;
        let now = Instant::now();
        Ok(Self(Arc::new(Parts {
            tokens: Tokens::new(&clients.key("tokens")?, clients.account()),
            links: Links::new(&clients.key("links")?),
            clients: Throttle::new(services.settings.client_rate, now),
            addresses: Throttle::new(services.settings.token_rate, now),
            complaints: Throttle::new(COMPLAINTS, now),
            imports: Arc::new(Semaphore::new(1)),
            previews: Arc::new(Semaphore::new(1)),
            services,
        })))
    }

    /// The API without `/health` and `/metrics`, which then need a listener of their own.
    pub fn router(&self) -> Router {
        self.finish(self.documented_router())
    }

    /// The API with `/health` and `/metrics`.
    pub fn router_with_operations(&self) -> Router {
        self.finish(self.documented_router().merge(Router::from(operations_routes())))
    }

    /// `/health` and `/metrics` alone.
    pub fn operations_router(&self) -> Router {
        self.finish(operations_routes().into())
    }

    /// Where SIM vendors post, alone.
    pub fn feeds_router(&self) -> Router {
        self.finish(feed_routes().into())
    }

    fn documented_router(&self) -> Router<Self> {
        let guarded: Router<Self> = guarded_routes().into();
        let guarded =
            guarded.route_layer(middleware::from_fn_with_state(self.clone(), access::guard));
        Router::from(open_routes()).merge(guarded)
    }

    fn finish(&self, router: Router<Self>) -> Router {
        router
            .fallback(unknown_path)
            .method_not_allowed_fallback(wrong_method)
            .layer(middleware::from_fn(every_answer))
            .with_state(self.clone())
    }

    pub(crate) fn services(&self) -> &Services {
        &self.0.services
    }

    pub(crate) fn tokens(&self) -> &Tokens {
        &self.0.tokens
    }

    pub(crate) fn links(&self) -> &Links {
        &self.0.links
    }

    pub(crate) fn client_throttle(&self) -> &Throttle<String> {
        &self.0.clients
    }

    /// Whether something wrong with a feed is worth a line now.
    pub(crate) fn may_complain(&self, feed: &str) -> bool {
        self.0.complaints.take(feed.to_owned(), Instant::now()).is_ok()
    }

    /// The right to import SIMs: there is one.
    pub(crate) fn imports(&self) -> Arc<Semaphore> {
        Arc::clone(&self.0.imports)
    }

    /// The right to look at what a replay would do: there is one.
    pub(crate) fn previews(&self) -> Arc<Semaphore> {
        Arc::clone(&self.0.previews)
    }

    /// Takes one request for a token from the budget of an address.
    pub(crate) fn admit_login(&self, ip: std::net::IpAddr) -> Result<(), std::time::Duration> {
        self.0.addresses.take(address_key(ip), Instant::now())
    }

    /// Counts a failed login as nine requests more.
    pub(crate) fn count_failed_login(&self, ip: std::net::IpAddr) {
        self.0.addresses.charge(address_key(ip), 9.0, Instant::now());
    }
}

/// Paths that need no token.
pub(crate) fn open_routes() -> OpenApiRouter<ManagementApi> {
    let routes = OpenApiRouter::new()
        .routes(routes!(oauth::issue_token))
        .routes(routes!(openapi::document))
        .routes(routes!(messages::linked_payload))
        .routes(routes!(aws_integrations::finish_rollout))
        .routes(routes!(aws_template::template));
    OpenApiRouter::new().nest(PREFIX, routes).merge(feed_routes())
}

/// Where SIM vendors post: with secrets of their own, and where their URLs are short.
fn feed_routes() -> OpenApiRouter<ManagementApi> {
    OpenApiRouter::new().routes(routes!(feeds::receive))
}

/// Paths that need a token: the documented ones, and simgate's own.
pub(crate) fn guarded_routes() -> OpenApiRouter<ManagementApi> {
    let routes = inspection_routes()
        .merge(configuration_routes())
        .merge(device_routes())
        .merge(location_routes())
        .merge(action_routes())
        .merge(own_routes());
    OpenApiRouter::new().nest(PREFIX, routes)
}

fn inspection_routes() -> OpenApiRouter<ManagementApi> {
    OpenApiRouter::new()
        .routes(routes!(devices::list))
        .routes(routes!(devices::find))
        .routes(routes!(devices::last_state))
        .routes(routes!(devices::statistics))
        .routes(routes!(history::of_device))
        .routes(routes!(history::of_all))
        .routes(routes!(history::insights_of_device))
        .routes(routes!(history::insights_of_all))
        .routes(routes!(administration_logs::list))
        .routes(routes!(administration_logs::statistics))
        .routes(routes!(administration_logs::payload_link))
}

fn configuration_routes() -> OpenApiRouter<ManagementApi> {
    OpenApiRouter::new()
        .routes(routes!(templates::list, templates::create))
        .routes(routes!(templates::patch, templates::delete))
        .routes(routes!(templates::test))
        .routes(routes!(integrations::list))
        .routes(routes!(integrations::find, integrations::patch, integrations::delete))
        .routes(routes!(integrations::event_types))
        .routes(routes!(webhooks::create))
        .routes(routes!(webhooks::patch))
        .routes(routes!(integration_trials::test_webhook))
        .routes(routes!(integration_trials::restart_webhook))
        .routes(routes!(aws_integrations::create))
        .routes(routes!(aws_template::parameters))
        .routes(routes!(integration_trials::test_aws))
        .routes(routes!(integration_trials::restart_aws))
}

fn device_routes() -> OpenApiRouter<ManagementApi> {
    OpenApiRouter::new()
        .routes(routes!(endpoints::list))
        .routes(routes!(endpoints::find, endpoints::patch))
        .routes(routes!(settings::list))
        .routes(routes!(settings::patch))
        .routes(routes!(psk::set))
        .routes(routes!(psk::set_alias))
        .routes(routes!(psk::find))
        .routes(routes!(psk::find_alias))
        .routes(routes!(psk::list_jobs, psk::create_job))
        .routes(routes!(psk::list_jobs_alias, psk::create_job_alias))
}

fn location_routes() -> OpenApiRouter<ManagementApi> {
    OpenApiRouter::new()
        .routes(routes!(positions::of_device))
        .routes(routes!(positions::latest))
        .routes(routes!(positions::activity))
        .routes(routes!(geofences::list, geofences::create))
        .routes(routes!(geofences::find, geofences::patch, geofences::delete))
}

fn action_routes() -> OpenApiRouter<ManagementApi> {
    OpenApiRouter::new()
        .routes(routes!(actions::send_udp))
        .routes(routes!(actions::send_coap))
        .routes(routes!(actions::send_lwm2m))
        .routes(routes!(actions::send_alias))
        .routes(routes!(actions::send_udp_to_many))
        .routes(routes!(actions::send_coap_to_many))
        .routes(routes!(actions::send_lwm2m_to_many))
        .routes(routes!(action_requests::list_active))
        .routes(routes!(action_requests::list_archived))
        .routes(routes!(action_requests::list_all))
        .routes(routes!(action_requests::find, action_requests::cancel))
        .routes(routes!(action_requests::cancel_all))
}

fn own_routes() -> OpenApiRouter<ManagementApi> {
    OpenApiRouter::new()
        .routes(routes!(registrations::find))
        .routes(routes!(data_sessions::list))
        .routes(routes!(feeds::list))
        .routes(routes!(geolocation::geolocate))
        .routes(routes!(sims::list, sims::create))
        .routes(routes!(sim_import::import))
        .routes(routes!(sims::find, sims::patch, sims::delete))
        .routes(routes!(messages::list))
        .routes(routes!(messages::find))
        .merge(integration_routes())
        .merge(firmware_routes())
}

fn integration_routes() -> OpenApiRouter<ManagementApi> {
    OpenApiRouter::new()
        .routes(routes!(aws_integrations::patch))
        .routes(routes!(mqtt_integrations::create))
        .routes(routes!(mqtt_integrations::patch))
        .routes(routes!(integration_trials::test_mqtt))
        .routes(routes!(integration_trials::restart_mqtt))
        .routes(routes!(email_integrations::create))
        .routes(routes!(email_integrations::patch))
        .routes(routes!(integration_trials::test_email))
        .routes(routes!(integration_trials::restart_email))
        .routes(routes!(integration_pauses::pause))
        .routes(routes!(integration_pauses::resume))
        .routes(routes!(integration_status::find))
        .routes(routes!(webhook_signing::find, webhook_signing::delete))
        .routes(routes!(webhook_signing::rotate))
        .routes(routes!(dead_letters::list, dead_letters::delete))
        .routes(routes!(dead_letters::replay))
        .routes(routes!(replays::list, replays::start))
        .routes(routes!(replays::find))
        .routes(routes!(replays::cancel))
}

fn firmware_routes() -> OpenApiRouter<ManagementApi> {
    OpenApiRouter::new()
        .routes(routes!(firmware_images::list, firmware_images::upload))
        .routes(routes!(firmware_images::find, firmware_images::delete))
        .routes(routes!(firmware_jobs::list, firmware_jobs::start))
        .routes(routes!(firmware_jobs::find))
        .routes(routes!(firmware_jobs::pause))
        .routes(routes!(firmware_jobs::resume))
        .routes(routes!(firmware_jobs::cancel))
        .routes(routes!(firmware_jobs::devices))
        .routes(routes!(firmware_jobs::timeline))
}

/// Paths for operators; they show no customer's data.
pub(crate) fn operations_routes() -> OpenApiRouter<ManagementApi> {
    OpenApiRouter::new().routes(routes!(operations::health)).routes(routes!(operations::metrics))
}

/// Runs work that blocks on files on a thread that may.
pub(crate) async fn blocking<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, ApiError> {
    // A panic of the work becomes a 500 of this one request.
    tokio::task::spawn_blocking(work).await.map_err(|error| ApiError::internal(doing, error))
}

/// Does work of several steps to its end, also when its client hangs up between two of them.
pub(crate) async fn to_the_end<T: Send + 'static>(
    doing: &'static str,
    work: impl Future<Output = Result<T, ApiError>> + Send + 'static,
) -> Result<T, ApiError> {
    let done = tokio::spawn(work).await;
    done.unwrap_or_else(|error| Err(ApiError::internal(doing, error)))
}

async fn unknown_path(uri: Uri) -> ApiError {
    let path: String = uri.path().chars().take(200).collect();
    ApiError::not_found("path", path)
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    let path: String = uri.path().chars().take(200).collect();
    let message = format!("method {method} is not allowed on {path}");
    // The methods that are stand in the header `Allow`.
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, ErrorDetail::new(message))
}

/// Headers of every answer, and its count.
async fn every_answer(path: Option<MatchedPath>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = known_method(request.method());
    // Only patterns of our own become labels: a client cannot make new ones.
    let path = path.map_or_else(|| "unknown".to_owned(), |path| path.as_str().to_owned());
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers
        .entry(HeaderName::from_static("content-security-policy"))
        .or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    let status = response.status().as_str().to_owned();
    let labels = [("method", method.to_owned()), ("path", path), ("status", status)];
    counter!("simgate_api_requests_total", &labels).increment(1);
    histogram!("simgate_api_request_seconds", &labels[..2]).record(started.elapsed().as_secs_f64());
    response
}

fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}
