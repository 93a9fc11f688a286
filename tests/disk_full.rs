//! A disk that is full, or broken: nothing is acknowledged that is not stored.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use simulator::{BASE, Fleet};

use crate::support::{
    Gateway, Load, PROBED, Place, Probe, SecureDevice, Store, ask_for_key, eventually, foreign,
    http_page, max_age, plan, told,
};

/// Devices of the fleet; one more is the probe.
const DEVICES: u32 = 50;

/// Space for the reserve (64 MB), two write-ahead files (16 MB) and some records.
const DISK_MEGABYTES: u32 = 128;

/// A small file system over a folder, in a mount namespace of its own: only programs that enter it
/// see it there. It is gone with the value, and with the test.
struct SmallDisk {
    /// Waits for the end of its input, which comes at the latest with the end of the test.
    holder: Child,
    folder: PathBuf,
}

impl SmallDisk {
    fn mount(folder: &Path) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let script = "mount -t tmpfs -o size=$1m tmpfs \"$0\" && echo mounted && exec cat";
        let mut command = foreign("unshare");
        command.arg(if is_root() { "-m" } else { "-Urm" }).args(["sh", "-c", script]);
        command.arg(folder).arg(DISK_MEGABYTES.to_string());
        let mut holder = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(holder.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "mounted\n", "needs root, or namespaces that any user may make");
        // Seen from here.
        let folder = folder.strip_prefix("/").unwrap();
        let folder = Path::new("/proc").join(holder.id().to_string()).join("root").join(folder);
        Self { holder, folder }
    }

    /// What runs a program on this disk.
    fn entrance(&self) -> Vec<String> {
        let holder = self.holder.id().to_string();
        let mut words = vec!["nsenter", "-t", &holder, "-m"];
        if !is_root() {
            words.extend(["-U", "--preserve-credentials"]);
        }
        words.push("--");
        words.into_iter().map(str::to_owned).collect()
    }

    /// Writes a file until not a byte more goes on the disk; how long it became.
    fn fill(&self, name: &str) -> u64 {
        let mut file = std::fs::File::create(self.folder.join(name)).unwrap();
        let mut piece = vec![1; 1 << 20];
        while !piece.is_empty() {
            if file.write_all(&piece).is_err() {
                piece.truncate(piece.len() / 2);
            }
        }
        file.metadata().unwrap().len()
    }

    fn empty(&self, name: &str) {
        std::fs::remove_file(self.folder.join(name)).unwrap();
    }

    /// Copies the message log of a stopped gateway to the ordinary disk.
    fn copy_messages(&self, to: &Path) {
        std::fs::create_dir(to).unwrap();
        for entry in std::fs::read_dir(self.folder.join("messages")).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name() != "ballast" {
                std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        let _ = self.holder.wait();
    }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Messages at a rate that a full disk has to refuse; each fills half a page.
fn steady(target: SocketAddr) -> simulator::Plan {
    simulator::Plan {
        payload: simulator::Payload::Counter { bytes: 1_000 },
        ..plan(target, DEVICES, simulator::Load::PerSecond(2_000))
    }
}

/// The payload of a message that the load does not count.
fn probed(number: u64) -> [u8; 8] {
    // Beyond those of the probe.
    (PROBED + (1 << 32) + number).to_be_bytes()
}

fn health(gateway: &Gateway) -> (u16, String) {
    let (status, body) = http_page(&format!("http://{}/health", gateway.api));
    (status, body["log"]["state"].as_str().unwrap().to_owned())
}

/// Refused for now, with a time at which to come back.
fn assert_refuses(probe: &mut Probe) {
    let answer = eventually("an answer", || probe.ask());
    assert_eq!(answer[1], 0xa3, "5.03 and nothing else: {answer:02x?}");
    let seconds = max_age(&answer).unwrap();
    assert!((60..=300).contains(&seconds), "Max-Age {seconds}");
}

#[test]
fn a_full_disk_is_answered_with_5_03_loses_nothing_and_heals_by_itself() {
    let mut place = Place::with_ports_of_its_own();
    place.set("SIMGATE_DATA_SEGMENT_RECORDS_MAX", "5000");
    place.set("SIMGATE_LOG_FILTER", "off");
    let disk = SmallDisk::mount(&place.data());
    let entrance = disk.entrance();
    place.run_within(&entrance.iter().map(String::as_str).collect::<Vec<_>>());
    let fleet = Fleet::new(BASE, DEVICES + 1).unwrap();
    place.import_fleet(&fleet);
    let gateway = place.start();
    let api = place.api(&gateway);
    let mut probe = Probe::new(fleet.address(DEVICES), gateway.coap);
    let load = Load::start(steady(gateway.coap));
    probe.until_acknowledged();
    std::thread::sleep(Duration::from_millis(500));

    let own = fleet.address(1);
    let credentials = told(&ask_for_key(own, gateway.coap));
    let credentials = (credentials[0].as_str(), credentials[1].as_str());
    let mut secure = SecureDevice::connected(&own.to_string(), gateway.coaps, credentials, false);
    assert_eq!(secure.post(&probed(1)).unwrap().0, 204);

    disk.fill("filler");
    eventually("the log has no space", || {
        (health(&gateway) == (503, "no space".to_owned())).then_some(())
    });
    assert_eq!(secure.post(&probed(2)).unwrap().0, 503, "in a session as well");
    assert_refuses(&mut probe);
    let history = format!("/v1/inspect/devices/{}/history", fleet.iccid(0).unwrap());
    assert!(!api.get(&history)["items"].as_array().unwrap().is_empty(), "reading goes on");
    // The gateway gave its reserve free for its own work, and that is taken from it, too.
    // Now and then it takes it back for a moment, to see whether there is space again.
    eventually("the reserve is taken", || {
        (disk.fill("filler of the reserve") > 32 << 20).then_some(())
    });
    // What it held at that moment is free again afterwards, and may let a message through, which is
    // then as durable as any. It is taken too: from then on there is nothing.
    for round in 0..4 {
        std::thread::sleep(Duration::from_millis(500));
        disk.fill(&format!("filler of the rest {round}"));
    }
    let full = vocabulary::Timestamp::from(std::time::SystemTime::now());
    std::thread::sleep(Duration::from_secs(1));
    assert!(!api.get(&history)["items"].as_array().unwrap().is_empty(), "reading goes on");
    assert_refuses(&mut probe);
    // Where the state file still has a place for it, a key may be told; then it is kept.
    let key = ask_for_key(fleet.address(0), gateway.coap);
    assert!(matches!(key[1], 0x45 | 0xa3), "2.05 or 5.03: {key:02x?}");
    assert_eq!(health(&gateway).0, 503);
    let before_healing = vocabulary::Timestamp::from(std::time::SystemTime::now());

    disk.empty("filler");
    disk.empty("filler of the reserve");
    for round in 0..4 {
        disk.empty(&format!("filler of the rest {round}"));
    }
    let emptied = Instant::now();
    eventually("the log heals", || (health(&gateway).0 == 200).then_some(()));
    probe.until_acknowledged();
    assert_eq!(secure.post(&probed(3)).unwrap().0, 204);
    let now = told(&ask_for_key(fleet.address(0), gateway.coap));
    assert!(key[1] == 0xa3 || told(&key) == now, "a key that was told is another one now");
    println!("healed {:.2?} after there was space", emptied.elapsed());
    std::thread::sleep(Duration::from_millis(500));
    let (ledger, report) = load.stop();
    assert!(gateway.terminate().success());

    let copy = place.folder.path().join("copy");
    disk.copy_messages(&copy);
    let store = Store::read(&copy);
    store.agrees_with(&ledger, &fleet);
    let acknowledged: Vec<_> = ledger.entries().filter_map(|entry| entry.acknowledged_at).collect();
    let wrong = acknowledged.iter().filter(|at| (full..before_healing).contains(*at)).count();
    assert_eq!(wrong, 0, "acknowledgements while the disk was full");
    assert!(acknowledged.iter().any(|at| *at < full), "none before: {report:?}");
    assert!(acknowledged.iter().any(|at| *at > before_healing), "none after: {report:?}");
    let codes: Vec<&String> = report.counts.rejected.keys().collect();
    assert_eq!(codes, ["5.03"], "{report:?}");
    println!("{} acknowledged, {:?} refused", ledger.acknowledged(), report.counts.rejected);
}

/// Sets what `ulimit -f` shows, in bytes, for a running gateway; it can be raised again.
pub(crate) fn limit_file_sizes(gateway: &Gateway, limit: &str) {
    let mut prlimit = foreign("prlimit");
    prlimit.args(["--pid", &gateway.id().to_string(), &format!("--fsize={limit}:unlimited")]);
    assert!(prlimit.status().unwrap().success());
}

#[test]
fn a_limit_on_file_sizes_is_taken_for_a_full_disk() {
    let mut place = Place::with_ports_of_its_own();
    place.set("SIMGATE_LOG_FILTER", "off");
    let fleet = Fleet::new(BASE, DEVICES + 1).unwrap();
    place.import_fleet(&fleet);
    let gateway = place.start();
    let mut probe = Probe::new(fleet.address(DEVICES), gateway.coap);
    let load = Load::start(steady(gateway.coap));
    probe.until_acknowledged();
    // Below the length of the write-ahead file (8 MiB).
    limit_file_sizes(&gateway, "6000000");
    eventually("the log has no space", || (health(&gateway).0 == 503).then_some(()));
    assert_refuses(&mut probe);
    limit_file_sizes(&gateway, "unlimited");
    probe.until_acknowledged();
    let (ledger, _) = load.stop();
    assert!(gateway.terminate().success());
    Store::read(&place.messages()).agrees_with(&ledger, &fleet);
}

/// Runs the program under load while some of its system calls fail, until it ends; what was
/// acknowledged and what was stored by then.
fn run_until_broken(failing: &str) -> (u64, u64) {
    let mut place = Place::with_ports_of_its_own();
    place.set("SIMGATE_LOG_FILTER", "off");
    let fleet = Fleet::new(BASE, DEVICES + 1).unwrap();
    place.import_fleet(&fleet);
    drop(foreign("strace"));
    // Each thread counts its calls for itself, so it is the log's writer that reaches the number:
    // no other thread writes as often. The tracer is a grandchild (-D), so the child is simgate.
    let calls = format!("trace={}", failing.split(':').next().unwrap());
    let inject = format!("inject={failing}");
    let strace = ["strace", "-D", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null"];
    place.run_within(&[&strace[..], &["-e", &calls, "-e", &inject]].concat());
    let mut gateway = place.start();
    let mut load = steady(gateway.coap);
    // Nobody answers any more.
    load.drain = Duration::from_millis(500);
    let load = Load::start(load);
    assert_eq!(gateway.wait().code(), Some(74), "an I/O error, as sysexits.h calls it");
    let (ledger, _) = load.stop();
    place.run_within(&[]);
    let store = Store::read(&place.messages());
    store.agrees_with(&ledger, &fleet);

    // What a supervisor does.
    let gateway = place.start();
    Probe::new(fleet.address(DEVICES), gateway.coap).until_acknowledged();
    assert!(gateway.terminate().success());
    Store::read(&place.messages()).agrees_with(&ledger, &fleet);
    (ledger.acknowledged(), store.records)
}

#[test]
fn a_sync_that_fails_ends_the_program_with_74_and_is_not_acknowledged() {
    let (acknowledged, stored) = run_until_broken("fsync,fdatasync:error=EIO:when=300+");
    assert!(acknowledged > 0, "the disk worked at first");
    // The commit that failed has written its records before the sync, but answered nobody.
    assert!(acknowledged < stored, "the failed commit was acknowledged");
}

#[test]
fn a_write_that_fails_ends_the_program_with_74_and_is_not_acknowledged() {
    let (acknowledged, _) = run_until_broken("pwrite64:error=EIO:when=2000+");
    assert!(acknowledged > 0, "the disk worked at first");
}
