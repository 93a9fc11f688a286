//! What a device asks for its certificate of AWS IoT Core: one `GET` over the mobile network, whose
//! source address says which SIM asks. Paths, answers and texts are those of the onboarding that
//! 1NCE documents (docs/aws.md).
//!
//! A router for a listener of its own, which must stand in the network of the devices alone: who
//! can send from a SIM's address gets its key, and gets it unencrypted. It is no part of the
//! management API and of its document.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Extension, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use metrics::counter;
use serde::Serialize;
use serde_json::json;
use tracing::error;
use vocabulary::Iccid;
use zeroize::Zeroizing;

use crate::connection::Peer;
use crate::error::retry_after;
use crate::throttle::{Rate, Throttle, address_key};

/// Who a trusted proxy says that it speaks for.
const DEVICE_ADDRESS: &str = "onboarding-ip";
/// A certificate takes some seconds to make; one for each of a new fleet, an hour.
const MADE_AFTER: Duration = Duration::from_secs(30);

/// What the router asks, and what the operator configured.
pub struct OnboardingServices {
    /// The SIM of a source address.
    pub sims: DeviceSims,
    /// What there is for a SIM.
    pub certificates: DeviceCertificates,
    /// Addresses whose header `onboarding-ip` is believed.
    pub trusted_proxies: Vec<IpAddr>,
    /// How fast one device may ask.
    pub rate: Rate,
}

/// Finds the SIM of a source address, in memory.
pub struct DeviceSims(Box<dyn Fn(IpAddr) -> Option<DeviceSim> + Send + Sync>);

/// Finds the certificate of a SIM that asks from an address; where there is none yet, it may see
/// to it that one is made.
pub struct DeviceCertificates(
    Box<dyn Fn(Iccid, IpAddr) -> Result<Option<DeviceCertificate>, String> + Send + Sync>,
);

/// The SIM of a source address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceSim {
    /// Its number.
    pub iccid: Iccid,
    /// Whether it may speak.
    pub active: bool,
}

/// What a device needs to connect to AWS IoT Core. `Debug` shows none of it.
pub struct DeviceCertificate {
    /// The certificate, in PEM.
    pub certificate: String,
    /// Its key, in PEM.
    pub private_key: Zeroizing<String>,
    /// The host of the data plane.
    pub endpoint: String,
    /// Where the authority of its servers is.
    pub root_ca_url: String,
    /// That authority, in PEM.
    pub root_ca_pem: String,
}

impl OnboardingServices {
    /// One request a second for each device, after ten at once: a device that starts asks once.
    pub const RATE: Rate = Rate { per_second: 1.0, burst: 10.0 };
}

impl DeviceSims {
    /// What `find` finds. It must not block.
    pub fn new(find: impl Fn(IpAddr) -> Option<DeviceSim> + Send + Sync + 'static) -> Self {
        Self(Box::new(find))
    }
}

impl DeviceCertificates {
    /// What `find` finds. It may block; its error goes to the log.
    pub fn new(
        find: impl Fn(Iccid, IpAddr) -> Result<Option<DeviceCertificate>, String>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self(Box::new(find))
    }
}

struct Parts {
    services: OnboardingServices,
    devices: Throttle<IpAddr>,
}

/// `GET /` and `GET /onboarding`, for a [`Server`](crate::server::Server) of its own.
pub fn onboarding_router(services: OnboardingServices) -> Router {
    let devices = Throttle::new(services.rate, Instant::now());
    Router::new()
        .route("/", get(answer))
        .route("/onboarding", get(answer))
        .with_state(Arc::new(Parts { services, devices }))
}

async fn answer(
    State(parts): State<Arc<Parts>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Response {
    let ip = device_address(peer.ip, &headers, &parts.services.trusted_proxies);
    let mut response = match parts.devices.take(address_key(ip), Instant::now()) {
        Ok(()) => match find(&parts, ip).await {
            Ok((iccid, found)) if wants_csv(&headers) => csv(iccid, &found),
            Ok((iccid, found)) => Json(Credentials::new(iccid, &found)).into_response(),
            Err(refusal) => refusal.into_response(),
        },
        Err(wait) => Refusal::TooMany(wait).into_response(),
    };
    let status = response.status().as_str().to_owned();
    counter!("simgate_onboarding_requests_total", "status" => status).increment(1);
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The address of the device: that of the connection, or what a trusted proxy says. A proxy that
/// says nothing, or several things, speaks for itself.
fn device_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpAddr]) -> IpAddr {
    let peer = peer.to_canonical();
    let is_trusted = trusted.iter().any(|proxy| proxy.to_canonical() == peer);
    let mut named = headers.get_all(DEVICE_ADDRESS).iter();
    let (Some(only), None, true) = (named.next(), named.next(), is_trusted) else { return peer };
    only.to_str().ok().and_then(|text| text.trim().parse().ok()).unwrap_or(peer)
}

async fn find(parts: &Arc<Parts>, ip: IpAddr) -> Result<(Iccid, DeviceCertificate), Refusal> {
    let sim = (parts.services.sims.0)(ip).ok_or(Refusal::NotFound(ip))?;
    if !sim.active {
        return Err(Refusal::NotActive(ip));
    }
    let shared = Arc::clone(parts);
    let asked =
        tokio::task::spawn_blocking(move || (shared.services.certificates.0)(sim.iccid, ip));
    // A panic of the work becomes a 500 of this one request.
    match asked.await.map_err(|fault| fault.to_string()).and_then(|found| found) {
        Ok(Some(found)) => Ok((sim.iccid, found)),
        Ok(None) => Err(Refusal::Missing(ip)),
        Err(cause) => Err(Refusal::Failed(cause)),
    }
}

/// As documented: by `Accept`.
fn wants_csv(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted
        .flat_map(|value| value.split(','))
        .filter_map(|range| range.split(';').next())
        .any(|range| range.trim().eq_ignore_ascii_case("text/csv"))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Credentials<'a> {
    amazon_root_ca_url: &'a str,
    certificate: &'a str,
    private_key: &'a str,
    iccid: String,
    iot_core_endpoint_url: &'a str,
}

impl<'a> Credentials<'a> {
    fn new(iccid: Iccid, found: &'a DeviceCertificate) -> Self {
        Self {
            amazon_root_ca_url: &found.root_ca_url,
            certificate: &found.certificate,
            private_key: &found.private_key,
            iccid: iccid.to_string(),
            iot_core_endpoint_url: &found.endpoint,
        }
    }
}

/// One row: iccid, iotCoreEndpointUrl, amazonRootCaUrl, amazonRootCa, certificate, privateKey.
fn csv(iccid: Iccid, found: &DeviceCertificate) -> Response {
    let columns = [
        &iccid.to_string(),
        &found.endpoint,
        &found.root_ca_url,
        &found.root_ca_pem,
        &found.certificate,
        &*found.private_key,
    ];
    let row = columns.map(|text| quoted(text)).join(",");
    ([(header::CONTENT_TYPE, HeaderValue::from_static("text/csv"))], row).into_response()
}

/// In quotes, with the ends of lines written as `\n`: the whole answer is one line.
fn quoted(text: &str) -> String {
    let escaped = text.replace('"', "\"\"").replace("\r\n", "\n").replace('\n', "\\n");
    format!("\"{escaped}\"")
}

/// Why a device gets nothing. The texts are the documented ones.
enum Refusal {
    NotFound(IpAddr),
    NotActive(IpAddr),
    Missing(IpAddr),
    TooMany(Duration),
    Failed(String),
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let not_found = |message: String| {
            (StatusCode::NOT_FOUND, Json(json!({ "message": message }))).into_response()
        };
        let (mut response, wait) = match self {
            Self::NotFound(ip) => (not_found(format!("Sim not found for IP={ip}")), None),
            Self::NotActive(ip) => {
                (not_found(format!("Device with the IP={ip} is not active")), None)
            }
            Self::Missing(ip) => {
                let what = "Certificate or private key is missing for the device";
                (not_found(format!("{what} with the IP={ip}")), Some(MADE_AFTER))
            }
            Self::TooMany(wait) => {
                let body = Json(json!({ "message": "Too many requests" }));
                ((StatusCode::TOO_MANY_REQUESTS, body).into_response(), Some(wait))
            }
            Self::Failed(cause) => (failed(&cause), None),
        };
        if let Some((name, value)) = wait.map(retry_after) {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

/// Our own fault; the number leads from the answer to the line in the log.
fn failed(cause: &str) -> Response {
    let request_id = getrandom::u64().map_or_else(|_| "none".to_owned(), |id| format!("{id:016x}"));
    error!(request_id, cause, "a device did not get its certificate");
    let body = json!({ "message": "Unexpected error occurred", "requestId": request_id });
    (StatusCode::INTERNAL_SERVER_ERROR, Json(body)).into_response()
}

impl fmt::Debug for DeviceCertificate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("DeviceCertificate").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::extract::Request;
    use tower::ServiceExt as _;

    use super::*;

    const DEVICE: [u8; 4] = [10, 0, 0, 1];
    const PROXY: [u8; 4] = [10, 9, 9, 9];

    fn certificate() -> DeviceCertificate {
        DeviceCertificate {
            certificate: "-----BEGIN CERTIFICATE-----\nAQ==\n".to_owned(),
            private_key: Zeroizing::new("-----BEGIN RSA PRIVATE KEY-----\nAg==\n".to_owned()),
            endpoint: "a1-ats.iot.eu-central-1.amazonaws.com".to_owned(),
            root_ca_url: "https://ca.example/root.pem".to_owned(),
            root_ca_pem: "-----BEGIN CERTIFICATE-----\nAw==\n".to_owned(),
        }
    }

    /// 10.0.0.1 has everything, .2 is not active, .3 has no certificate yet, .4 meets a failure.
    fn router(burst: f64) -> Router {
        let sims = DeviceSims::new(|ip| {
            let IpAddr::V4(v4) = ip else { return None };
            let [10, 0, 0, last @ 1..=4] = v4.octets() else { return None };
            let iccid = Iccid::from_u64(8_988_280_666_000_000_000 + u64::from(last))?;
            Some(DeviceSim { iccid, active: last != 2 })
        });
        let certificates = DeviceCertificates::new(|iccid, _| match iccid.as_u64() % 10 {
            1 => Ok(Some(certificate())),
            3 => Ok(None),
            _ => Err("the disk is gone".to_owned()),
        });
        onboarding_router(OnboardingServices {
            sims,
            certificates,
            trusted_proxies: vec![PROXY.into()],
            rate: Rate { per_second: 0.001, burst },
        })
    }

    async fn ask(
        router: &Router,
        from: [u8; 4],
        path: &str,
        headers: &[(&str, &str)],
    ) -> (StatusCode, HeaderMap, String) {
        let peer = Peer { ip: from.into(), secure: false };
        let mut request = Request::get(path).extension(peer);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 100_000).await.unwrap();
        (head.status, head.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_device_gets_its_certificate_as_json() {
        for path in ["/", "/onboarding"] {
            let (status, headers, body) = ask(&router(10.0), DEVICE, path, &[]).await;
            assert_eq!(
                (status, &headers["content-type"]),
                (StatusCode::OK, &"application/json".parse().unwrap())
            );
            assert_eq!(headers["cache-control"], "no-store");
            let body: serde_json::Value = serde_json::from_str(&body).unwrap();
            let expected = json!({
                "amazonRootCaUrl": "https://ca.example/root.pem",
                "certificate": "-----BEGIN CERTIFICATE-----\nAQ==\n",
                "privateKey": "-----BEGIN RSA PRIVATE KEY-----\nAg==\n",
                "iccid": "8988280666000000001",
                "iotCoreEndpointUrl": "a1-ats.iot.eu-central-1.amazonaws.com",
            });
            assert_eq!(body, expected);
        }
    }

    #[tokio::test]
    async fn a_device_gets_its_certificate_as_one_line_of_csv() {
        for accept in ["text/csv", "application/json;q=0.1, Text/CSV;q=0.9"] {
            let (status, headers, body) =
                ask(&router(10.0), DEVICE, "/", &[("accept", accept)]).await;
            assert_eq!(
                (status, &headers["content-type"]),
                (StatusCode::OK, &"text/csv".parse().unwrap())
            );
            assert_eq!(
                body,
                concat!(
                    r#""8988280666000000001","a1-ats.iot.eu-central-1.amazonaws.com","#,
                    r#""https://ca.example/root.pem","-----BEGIN CERTIFICATE-----\nAw==\n","#,
                    r#""-----BEGIN CERTIFICATE-----\nAQ==\n","#,
                    r#""-----BEGIN RSA PRIVATE KEY-----\nAg==\n""#,
                )
            );
        }
    }

    #[tokio::test]
    async fn refusals_are_the_documented_ones() {
        let router = router(10.0);
        for (last, message, wait) in [
            (9, "Sim not found for IP=10.0.0.9", None),
            (2, "Device with the IP=10.0.0.2 is not active", None),
            (
                3,
                "Certificate or private key is missing for the device with the IP=10.0.0.3",
                Some("30"),
            ),
        ] {
            let (status, headers, body) = ask(&router, [10, 0, 0, last], "/", &[]).await;
            assert_eq!(status, StatusCode::NOT_FOUND);
            assert_eq!(body, json!({ "message": message }).to_string());
            let found = headers.get("retry-after").map(|value| value.to_str().unwrap());
            assert_eq!(found, wait);
        }
        let (status, _, body) = ask(&router, [10, 0, 0, 4], "/", &[]).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["message"], "Unexpected error occurred");
        assert_eq!(body["requestId"].as_str().unwrap().len(), 16);
        assert!(!body.to_string().contains("disk"));
    }

    #[tokio::test]
    async fn the_header_of_a_proxy_is_believed_and_nobody_elses() {
        let router = router(100.0);
        let named = [("onboarding-ip", "10.0.0.1")];
        assert_eq!(ask(&router, PROXY, "/", &named).await.0, StatusCode::OK);
        // A device that names another's address is only itself.
        let (status, _, body) = ask(&router, [10, 0, 0, 3], "/", &named).await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert!(body.contains("IP=10.0.0.3"), "{body}");
        let forwarded = [("x-forwarded-for", "10.0.0.1"), ("forwarded", "for=10.0.0.1")];
        assert_eq!(ask(&router, PROXY, "/", &forwarded).await.0, StatusCode::NOT_FOUND);
        let two = [("onboarding-ip", "10.0.0.1"), ("onboarding-ip", "10.0.0.3")];
        assert_eq!(ask(&router, PROXY, "/", &two).await.0, StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn a_device_that_asks_too_often_waits_and_slows_down_no_other() {
        let router = router(2.0);
        for _ in 0..2 {
            assert_eq!(ask(&router, DEVICE, "/", &[]).await.0, StatusCode::OK);
        }
        let (status, headers, _) = ask(&router, DEVICE, "/", &[]).await;
        assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
        assert!(headers.contains_key("retry-after"));
        assert_eq!(ask(&router, PROXY, "/", &[("onboarding-ip", "10.0.0.4")]).await.0, 500);
    }
}
