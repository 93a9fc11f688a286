//! Onboarding against `moto_server`, a foreign implementation of AWS: as a whole, cut off after
//! every single call, and refused.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[path = "../../tests/moto/mod.rs"]
mod moto;
mod proxy;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_onboarding::{
    AMAZON_ROOT_CA_URL, Credentials, Happening, Onboarding, OnboardingSettings, SEALED_FOR,
};
use aws_sdk_iot::Client;
use aws_sdk_iot::types::CertificateStatus;
use cloud_integrator::{AwsAccess, AwsKeys, AwsOptions, NetworkPolicy, Resolver};
use moto::Moto;
use proxy::Proxy;
use sealing::{KeySource, Sealer};
use state::StateFile;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use vocabulary::Iccid;
use zeroize::Zeroizing;

/// A test that waits longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);
/// More requests than one SIM takes.
const NEVER: usize = usize::MAX;

fn iccid(number: u64) -> Iccid {
    Iccid::from_u64(8_988_280_666_000_000_000 + number).unwrap()
}

fn access() -> AwsAccess {
    let keys = AwsKeys {
        access_key_id: "AKIAEXAMPLE".to_owned(),
        secret_access_key: Zeroizing::new("the-secret".to_owned()),
        session_token: None,
    };
    let options = AwsOptions { keys: Some(keys), ..AwsOptions::default() };
    let policy = NetworkPolicy { allow_http_loopback: true, ..NetworkPolicy::default() };
    AwsAccess::new(options, Resolver::new(policy)).unwrap()
}

/// What the gateway of one folder knows, and what was told to it.
struct World {
    onboarding: Onboarding,
    heard: Arc<Mutex<Vec<Happening>>>,
}

fn open(folder: &Path, url: &str) -> World {
    let settings = OnboardingSettings {
        control_endpoint: Some(url.to_owned()),
        data_endpoint: Some(url.to_owned()),
        retry_wait: Duration::from_millis(10),
        devices_per_second: 1_000,
        attributes: [("source".to_owned(), "simgate".to_owned())].into(),
        ..OnboardingSettings::new("eu-central-1")
    };
    open_with(folder, settings)
}

fn open_with(folder: &Path, settings: OnboardingSettings) -> World {
    let source = KeySource::File(folder.join("data.key"));
    source.load(false).unwrap();
    let sealer = Sealer::open(&source, SEALED_FOR).unwrap();
    let file = StateFile::new(folder.join("state.db"));
    let heard: Arc<Mutex<Vec<Happening>>> = Arc::default();
    let listener = Arc::clone(&heard);
    let onboarding = Onboarding::open(&file, sealer, access(), settings, move |happening| {
        listener.lock().unwrap().push(happening);
    });
    World { onboarding: onboarding.unwrap(), heard }
}

/// A run that can be ended in order.
struct Run {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Run {
    fn start(onboarding: &Onboarding) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let run = onboarding.clone().run(async {
            let _ = stopped.await;
        });
        Self { stop, task: tokio::spawn(run) }
    }

    async fn stop(self) {
        let _ = self.stop.send(());
        self.task.await.unwrap();
    }
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn until_done(onboarding: &Onboarding) {
    until("everything", || onboarding.status().unwrap().waiting == 0).await;
}

/// The account as its owner sees it.
async fn owner(url: &str) -> Client {
    let config = access().config("eu-central-1", None).await;
    Client::from_conf(aws_sdk_iot::config::Builder::from(&config).endpoint_url(url).build())
}

/// Ids of the certificates that are active, and how many are not.
async fn certificates(owner: &Client) -> (Vec<String>, usize) {
    let listed = owner.list_certificates().page_size(100).send().await.unwrap();
    let all = listed.certificates();
    let is_active = |status: Option<&CertificateStatus>| status == Some(&CertificateStatus::Active);
    let active: Vec<String> = all
        .iter()
        .filter(|certificate| is_active(certificate.status()))
        .map(|certificate| certificate.certificate_id().unwrap().to_owned())
        .collect();
    let inactive = all.len() - active.len();
    (active, inactive)
}

async fn thing_names(owner: &Client) -> Vec<String> {
    let listed = owner.list_things().send().await.unwrap();
    listed.things().iter().map(|thing| thing.thing_name().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn sims_get_certificates_things_and_one_policy() {
    let moto = Moto::start();
    let folder = tempfile::tempdir().unwrap();
    let World { onboarding, heard } = open(folder.path(), &moto.url);
    let run = Run::start(&onboarding);
    for number in 1..=5 {
        assert!(matches!(onboarding.credentials_of(iccid(number)), Ok(Credentials::Missing)));
        assert!(onboarding.enqueue(iccid(number), Some([10, 0, 0, 1].into())).unwrap());
        assert!(!onboarding.enqueue(iccid(number), None).unwrap());
        assert!(!matches!(onboarding.credentials_of(iccid(number)), Ok(Credentials::Missing)));
    }
    until_done(&onboarding).await;
    until("the news", || heard.lock().unwrap().len() == 5).await;
    run.stop().await;
    let owner = owner(&moto.url).await;
    let (active, inactive) = certificates(&owner).await;
    assert_eq!((active.len(), inactive), (5, 0));
    let mut things = thing_names(&owner).await;
    things.sort();
    assert_eq!(things, (1..=5).map(|number| iccid(number).to_string()).collect::<Vec<_>>());
    let policies = owner.list_policies().send().await.unwrap();
    assert_eq!(policies.policies().len(), 1);
    let policy = owner.get_policy().policy_name("simgate-device").send().await.unwrap();
    let document = policy.policy_document().unwrap().to_owned();
    assert!(document.contains("client/${iot:Connection.Thing.ThingName}"), "{document}");

    let Credentials::Found(found) = onboarding.credentials_of(iccid(1)).unwrap() else { panic!() };
    assert!(found.certificate.starts_with("-----BEGIN CERTIFICATE-----\n"));
    assert!(found.private_key.starts_with("-----BEGIN RSA PRIVATE KEY-----\n"));
    assert!(found.root_ca_pem.starts_with("-----BEGIN CERTIFICATE-----\n"));
    assert_eq!(found.root_ca_url, AMAZON_ROOT_CA_URL);
    assert!(!format!("{found:?}").contains("PRIVATE"));
}

/// The host of the data plane is asked for once, also over a restart.
#[tokio::test]
async fn the_account_is_asked_for_its_endpoint_once() {
    let moto = Moto::start();
    let folder = tempfile::tempdir().unwrap();
    let settings = |url: &str| OnboardingSettings {
        control_endpoint: Some(url.to_owned()),
        data_endpoint: None,
        registration_topic: None,
        retry_wait: Duration::from_millis(10),
        ..OnboardingSettings::new("eu-central-1")
    };
    let first = Proxy::start(&moto.url, NEVER).await;
    let World { onboarding, .. } = open_with(folder.path(), settings(&first.url));
    onboarding.enqueue(iccid(1), None).unwrap();
    let run = Run::start(&onboarding);
    let found = || match onboarding.credentials_of(iccid(1)).unwrap() {
        Credentials::Found(found) => Some(found.endpoint),
        _ => None,
    };
    until_done(&onboarding).await;
    run.stop().await;
    let host = found().unwrap();
    assert!(host.contains("-ats.iot.eu-central-1.amazonaws.com"), "{host}");
    // Endpoint, certificate, thing, policy three times, principal, activation.
    assert_eq!(first.count(), 8);
}

/// The gateway was killed between the answer of AWS and its note of it: at worst a certificate
/// that is not active remains, and nothing is there twice.
#[tokio::test]
async fn a_crash_after_any_call_leaves_no_second_thing_and_no_stray_active_certificate() {
    // Certificate, thing, policy three times, principal, activation, message.
    let calls = (0..8).map(|lost| tokio::spawn(crash_and_go_on(lost)));
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
}

async fn crash_and_go_on(lost: usize) {
    let moto = tokio::task::spawn_blocking(Moto::start).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    {
        let proxy = Proxy::start(&moto.url, lost).await;
        let World { onboarding, .. } = open(folder.path(), &proxy.url);
        onboarding.enqueue(iccid(1), None).unwrap();
        let run = Run::start(&onboarding);
        tokio::time::timeout(PATIENCE, proxy.lost()).await.unwrap();
        assert_eq!(onboarding.status().unwrap().done, 0);
        // As a kill would: nothing of the attempt goes on.
        run.task.abort();
        let _ = run.task.await;
    }
    let World { onboarding, .. } = open(folder.path(), &moto.url);
    let run = Run::start(&onboarding);
    until_done(&onboarding).await;
    run.stop().await;
    let owner = owner(&moto.url).await;
    let (active, inactive) = certificates(&owner).await;
    assert_eq!((active.len(), inactive), (1, usize::from(lost == 0)), "after call {lost}");
    let name = iccid(1).to_string();
    assert_eq!(thing_names(&owner).await, std::slice::from_ref(&name));
    let attached = owner.list_thing_principals().thing_name(&name).send().await.unwrap();
    let [principal] = attached.principals() else { panic!("after call {lost}: {attached:?}") };
    assert!(principal.ends_with(active[0].as_str()));
    let policies = owner.list_attached_policies().target(principal).send().await.unwrap();
    assert_eq!(policies.policies().len(), 1, "after call {lost}");
}

#[tokio::test]
async fn a_disabled_sim_cannot_connect_and_an_enabled_one_can_again() {
    let moto = Moto::start();
    let folder = tempfile::tempdir().unwrap();
    let World { onboarding, .. } = open(folder.path(), &moto.url);
    let run = Run::start(&onboarding);
    onboarding.enqueue(iccid(1), None).unwrap();
    until_done(&onboarding).await;
    let owner = owner(&moto.url).await;
    assert_eq!(certificates(&owner).await.0.len(), 1);
    assert!(onboarding.set_active(iccid(1), false).unwrap());
    assert!(!onboarding.set_active(iccid(1), false).unwrap());
    assert!(matches!(onboarding.credentials_of(iccid(1)), Ok(Credentials::Pending)));
    until_done(&onboarding).await;
    assert_eq!(certificates(&owner).await, (vec![], 1));
    assert!(onboarding.set_active(iccid(1), true).unwrap());
    until_done(&onboarding).await;
    assert_eq!(certificates(&owner).await.0.len(), 1);
    assert!(matches!(onboarding.credentials_of(iccid(1)), Ok(Credentials::Found(_))));
    assert!(!onboarding.set_active(iccid(2), true).unwrap(), "nobody knows it");
    // It was deleted while the gateway did not run.
    run.stop().await;
    let World { onboarding, .. } = open(folder.path(), &moto.url);
    assert_eq!(onboarding.reconcile(|_| true).unwrap(), 0);
    assert_eq!(onboarding.reconcile(|_| false).unwrap(), 1);
    let run = Run::start(&onboarding);
    until_done(&onboarding).await;
    run.stop().await;
    assert_eq!(certificates(&owner).await, (vec![], 1));
}

#[tokio::test]
async fn a_failure_is_visible_and_heals_by_itself() {
    let moto = Moto::start();
    let folder = tempfile::tempdir().unwrap();
    let typed = OnboardingSettings {
        control_endpoint: Some(moto.url.clone()),
        data_endpoint: Some(moto.url.clone()),
        retry_wait: Duration::from_millis(10),
        thing_type: Some("meter".to_owned()),
        ..OnboardingSettings::new("eu-central-1")
    };
    let World { onboarding, heard } = open_with(folder.path(), typed);
    let run = Run::start(&onboarding);
    onboarding.enqueue(iccid(1), None).unwrap();
    until("two failures", || {
        onboarding.status().unwrap().stuck.first().is_some_and(|stuck| stuck.failures >= 2)
    })
    .await;
    let status = onboarding.status().unwrap();
    assert_eq!((status.done, status.waiting, status.failing), (0, 1, 1));
    assert_eq!(status.stuck[0].iccid, iccid(1));
    let error = &status.stuck[0].error;
    assert!(error.contains("ResourceNotFoundException: "), "what aws says of it: {error}");
    let first = heard.lock().unwrap()[0].clone();
    assert!(matches!(first, Happening::Failed { .. }), "{first:?}");
    owner(&moto.url).await.create_thing_type().thing_type_name("meter").send().await.unwrap();
    until_done(&onboarding).await;
    // One failure was told, however often it failed, and then the success.
    until("the news", || heard.lock().unwrap().len() >= 2).await;
    run.stop().await;
    let heard = heard.lock().unwrap();
    assert_eq!(heard[1..], [Happening::Onboarded { iccid: iccid(1) }]);
    let status = onboarding.status().unwrap();
    assert_eq!((status.done, status.failing), (1, 0));
}

/// A role without `iot:Publish` on the topic of registrations: each SIM had its certificate and was
/// refused at its last step, which counted as what all meet alike, so that one SIM at a time was
/// let through, and one each minute in the end.
#[tokio::test]
async fn a_refused_message_about_one_sim_stops_no_other() {
    let moto = Moto::start();
    let folder = tempfile::tempdir().unwrap();
    // The first pause for all would be the longest there is.
    let settings = OnboardingSettings {
        control_endpoint: Some(moto.url.clone()),
        data_endpoint: Some(proxy::refusing().await),
        retry_wait: Duration::from_secs(3_600),
        devices_per_second: 1_000,
        ..OnboardingSettings::new("eu-central-1")
    };
    let World { onboarding, .. } = open_with(folder.path(), settings);
    // More than are on their way together.
    for number in 1..=20 {
        onboarding.enqueue(iccid(number), None).unwrap();
    }
    let run = Run::start(&onboarding);
    until("all to be refused", || onboarding.status().unwrap().failing == 20).await;
    run.stop().await;
    let error = &onboarding.status().unwrap().stuck[0].error;
    assert!(error.starts_with("credentials: access is denied"), "{error}");
    let (active, inactive) = certificates(&owner(&moto.url).await).await;
    assert_eq!((active.len(), inactive), (20, 0));
}
