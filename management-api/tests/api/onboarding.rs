//! Devices that fetch their certificates over a listener of its own.

use std::net::IpAddr;

use management_api::server::{Limits, Server, ServerConfig};
use management_api::{
    DeviceCertificate, DeviceCertificates, DeviceSim, DeviceSims, OnboardingServices,
    onboarding_router,
};
use reqwest::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

/// The listener in a network whose only SIM has the address of this machine.
async fn listen() -> (String, oneshot::Sender<()>) {
    let sims = DeviceSims::new(|ip: IpAddr| {
        let iccid = "8988280666000000001".parse().ok()?;
        ip.is_loopback().then_some(DeviceSim { iccid, active: true })
    });
    let certificates = DeviceCertificates::new(|iccid, ip| {
        Ok(Some(DeviceCertificate {
            certificate: format!("certificate of {iccid}\n"),
            private_key: Zeroizing::new(format!("key for {ip}\n")),
            endpoint: "a1-ats.iot.eu-central-1.amazonaws.com".to_owned(),
            root_ca_url: "https://ca.example/root.pem".to_owned(),
            root_ca_pem: "root\n".to_owned(),
        }))
    });
    let router = onboarding_router(OnboardingServices {
        sims,
        certificates,
        trusted_proxies: Vec::new(),
        rate: OnboardingServices::RATE,
    });
    let server = Server::bind(ServerConfig {
        address: "127.0.0.1:0".parse().unwrap(),
        tls: None,
        allow_plain_http: true,
        limits: Limits::default(),
    });
    let server = server.await.unwrap();
    let url = format!("http://{}", server.address());
    let (stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(server.serve(router, async {
        let _ = stopped.await;
    }));
    (url, stop)
}

#[tokio::test]
async fn a_device_fetches_its_certificate_by_the_address_that_it_has() {
    let (url, _stop) = listen().await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = http.get(&url).send().await.unwrap();
    assert_eq!(answer.headers()[CACHE_CONTROL], "no-store");
    let body: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(body["iccid"], "8988280666000000001");
    assert_eq!(body["certificate"], "certificate of 8988280666000000001\n");
    assert_eq!(body["privateKey"], "key for 127.0.0.1\n");
    let answer = http.get(format!("{url}/onboarding")).header(ACCEPT, "text/csv");
    let answer = answer.header("onboarding-ip", "10.0.0.9").send().await.unwrap();
    assert_eq!(answer.headers()[CONTENT_TYPE], "text/csv");
    let row = answer.text().await.unwrap();
    assert!(row.starts_with(r#""8988280666000000001","a1-ats.iot."#), "{row}");
    assert!(
        row.ends_with(r#","root\n","certificate of 8988280666000000001\n","key for 127.0.0.1\n""#)
    );
    assert_eq!(http.get(format!("{url}/other")).send().await.unwrap().status(), 404);
    assert_eq!(http.post(&url).send().await.unwrap().status(), 405);
}
