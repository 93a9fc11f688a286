//! Devices on their way to AWS IoT Core: who is begun with, and what an operator hears of it.
//!
//! The administration log is the trigger: its first entry about a device. It is read from its
//! beginning at each start, because beginning twice with a SIM does nothing.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use aws_onboarding::{Credentials, Found, Happening, Onboarding, StoreError};
use device_authenticator::{Attribution, SimDirectory};
use management_api::{
    DeviceCertificate, DeviceCertificates, DeviceSim, DeviceSims, OnboardingServices,
};
use message_log::{DeviceKey, Kind, KindSet, MessageLog, NewRecord, Offset, ReadError, ReadLimits};
use sealing::Sealer;
use tracing::{error, warn};
use vocabulary::{EventKind, Iccid, Notice, NoticeCategory, NoticeKind};

use crate::config::{Config, OnboardingWhen};
use crate::house::{House, state_file};

/// After this a read or a write that failed is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// A device's certificate could not be made. The text is our own.
const FAILED: &str = "AwsOnboarding[Failed]";

/// Opens what is to be done; `None` where no devices are onboarded. What became of SIMs while the
/// gateway did not run is made up for, so the directory must be filled.
pub(crate) fn open(config: &Config, house: &House) -> anyhow::Result<Option<Onboarding>> {
    let Some(settings) = config.onboarding.settings()? else { return Ok(None) };
    let sealer = Sealer::open(&config.key_source(), aws_onboarding::SEALED_FOR)?;
    let access = house.integrations.aws_access();
    let log = house.log.clone();
    let tell = move |happening| tell(&log, happening);
    let opened = Onboarding::open(&state_file(config)?, sealer, access, settings, tell);
    let onboarding = opened.context("onboarding cannot be opened")?;
    onboarding.reconcile(|iccid| is_active(&house.directory, iccid))?;
    Ok(Some(onboarding))
}

/// Works off what is to be done, and begins with devices as it is configured, until `stopped`.
pub(crate) async fn run(
    onboarding: Onboarding,
    (log, directory): (MessageLog, Arc<SimDirectory>),
    when: OnboardingWhen,
    stopped: impl Future<Output = ()>,
) {
    let follow = async {
        match when {
            OnboardingWhen::FirstSeen => follow(onboarding.clone(), log, directory).await,
            OnboardingWhen::Asked => std::future::pending().await,
        }
    };
    tokio::select! {
        () = onboarding.clone().run(stopped) => {}
        () = follow => {}
    }
}

/// What devices ask for their certificates.
pub(crate) fn services(
    onboarding: &Onboarding,
    attribution: &Attribution,
    trusted_proxies: Vec<IpAddr>,
) -> OnboardingServices {
    let attribution = attribution.clone();
    let onboarding = onboarding.clone();
    OnboardingServices {
        sims: DeviceSims::new(move |ip| {
            let found = attribution.find(ip, SystemTime::now().into()).ok()?;
            Some(DeviceSim { iccid: found.identity.iccid, active: found.active })
        }),
        certificates: DeviceCertificates::new(move |iccid, ip| {
            certificate(&onboarding, iccid, ip).map_err(|error| error.to_string())
        }),
        trusted_proxies,
        rate: OnboardingServices::RATE,
    }
}

fn certificate(
    onboarding: &Onboarding,
    iccid: Iccid,
    ip: IpAddr,
) -> Result<Option<DeviceCertificate>, StoreError> {
    match onboarding.credentials_of(iccid)? {
        Credentials::Found(found) => {
            let Found { certificate, private_key, endpoint, root_ca_url, root_ca_pem } = *found;
            let device =
                DeviceCertificate { certificate, private_key, endpoint, root_ca_url, root_ca_pem };
            Ok(Some(device))
        }
        Credentials::Pending => Ok(None),
        Credentials::Missing => {
            onboarding.enqueue(iccid, Some(ip))?;
            Ok(None)
        }
    }
}

/// Begins with every device that the administration log says was heard first.
async fn follow(onboarding: Onboarding, log: MessageLog, directory: Arc<SimDirectory>) {
    let mut end = log.watch();
    let mut next = Offset::BEGINNING;
    loop {
        let (begun, reader, sims) = (onboarding.clone(), log.clone(), Arc::clone(&directory));
        let read = tokio::task::spawn_blocking(move || begin_from(&begun, &reader, &sims, next));
        match read.await {
            Ok(Ok(read_to)) if read_to > next => next = read_to,
            // The log outlives its readers.
            Ok(Ok(_)) => drop(end.changed().await),
            Ok(Err(error)) => {
                warn!(%error, "onboarding waits");
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
            Err(error) => {
                error!(%error, "onboarding was cut off");
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
        }
    }
}

/// Begins with the devices of one read from `next` on; says where to go on. Blocks.
fn begin_from(
    onboarding: &Onboarding,
    log: &MessageLog,
    directory: &SimDirectory,
    next: Offset,
) -> anyhow::Result<Offset> {
    let limits = ReadLimits::default();
    let batch = match log.read_kinds(next, KindSet::rare(), limits) {
        Ok(batch) => batch,
        Err(ReadError::Overtaken { oldest }) => return Ok(oldest),
        Err(error) => return Err(error.into()),
    };
    for record in &batch.records {
        let Ok(notice) = Notice::decode(&record.body) else { continue };
        let is_first = notice.message == inspector::FIRST_CONTACT;
        if let (true, Some(iccid)) = (is_first, notice.iccid) {
            onboarding.enqueue(iccid, notice.ip)?;
            // The entry may be days old.
            onboarding.set_active(iccid, is_active(directory, iccid))?;
        }
    }
    Ok(batch.next)
}

fn is_active(directory: &SimDirectory, iccid: Iccid) -> bool {
    directory.find_iccid(iccid).is_some_and(|sim| sim.active)
}

fn tell(log: &MessageLog, happening: Happening) {
    let Happening::Failed { iccid, error } = happening else { return };
    let mut notice = Notice::new(NoticeCategory::Error, NoticeKind::Device, FAILED);
    notice.iccid = Some(iccid);
    notice.description = format!(
        "The certificate of AWS IoT Core for the device with ICCID {iccid} cannot be made: {error}. \
         It is tried again and again."
    );
    let record = NewRecord {
        kind: Kind::new(EventKind::Notice.code()),
        device: DeviceKey::from_u64(iccid.as_u64()),
        received_at: SystemTime::now().into(),
        body: notice.encode(),
    };
    let appending = log.append(vec![record]);
    tokio::spawn(async move {
        if let Err(error) = appending.await {
            warn!(%error, "a notice about onboarding is lost");
        }
    });
}
