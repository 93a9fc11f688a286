//! Full disks, broken disks, slow disks.

use std::os::fd::RawFd;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use message_log::{AppendError, Clock, MessageLog, Offset, Options, ReadLimits, State};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::crash::{FOLDER, this_binary};
use crate::world::{open, options, options_of, read_all, record, wait_until};

const TMPFS: &str = "MESSAGE_LOG_TEST_TMPFS";

fn large(number: u64) -> message_log::NewRecord {
    let mut record = record(1, 1, number);
    record.body.resize(4_000, b'x');
    record
}

/// Appends until the disk is full; returns how many records were answered.
fn fill_disk(log: &MessageLog) -> u64 {
    for number in 0..20_000 {
        match log.append(vec![large(number)]).wait() {
            Ok(_) => {}
            Err(AppendError::NoSpace) => return number,
            Err(other) => panic!("{other}"),
        }
    }
    panic!("the disk did not get full");
}

/// What holds on a full disk: refusal at once, no failure, and reads.
fn check_refusal(log: &MessageLog, answered: u64) {
    assert_eq!(log.status().state, State::NoSpace);
    let begun = std::time::Instant::now();
    assert_eq!(log.append(vec![large(0)]).wait(), Err(AppendError::NoSpace));
    assert!(begun.elapsed() < Duration::from_millis(50));
    assert_eq!(read_all(log).len() as u64, answered);
}

/// And after there is space again: appends, without being told.
fn check_recovery(log: &MessageLog, answered: u64) {
    wait_until("recovery", || log.status().state == State::Healthy);
    let appended = log.append(vec![large(answered)]).wait().unwrap();
    assert_eq!(appended.first, Offset::from_u64(answered), "nothing refused left a trace");
    let all = read_all(log);
    let numbers: Vec<u64> = all.iter().map(|record| record.device_seq).collect();
    assert_eq!(numbers, (1..=answered + 1).collect::<Vec<_>>());
}

/// Not a test by itself: a process whose files may not grow beyond a limit.
#[test]
fn limited() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let log = open(Path::new(&folder), &options());
    let answered = fill_disk(&log);
    check_refusal(&log, answered);
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    setrlimit(Resource::RLIMIT_FSIZE, hard, hard).unwrap();
    check_recovery(&log, answered);
    println!("recovered after {answered}");
}

/// Fault F3, without any privilege: the limit on the length of files (EFBIG).
#[test]
fn a_limit_on_files_is_a_full_disk_that_passes() {
    let folder = tempfile::tempdir().unwrap();
    let child = this_binary("faults::limited", folder.path());
    // The signal of the limit would end the process; a gateway ignores it the same way. The limit
    // is soft, in blocks of 512 bytes: 3 MiB.
    let script = "trap '' XFSZ; ulimit -S -f 6144; exec \"$0\" \"$@\"";
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(child.get_program())
        .args(child.get_args())
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("recovered after"), "{text}\n{errors}");
}

/// Not a test by itself: a process on a small file system of its own.
#[test]
fn on_a_small_disk() {
    if std::env::var_os(TMPFS).is_none() {
        return;
    }
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let log = open(Path::new(&folder), &options_of(500));
    let other = Path::new(&folder).join("somebody-else");
    std::fs::write(&other, vec![1; 4 << 20]).unwrap();
    let answered = fill_disk(&log);
    check_refusal(&log, answered);
    std::thread::sleep(Duration::from_millis(100));
    check_refusal(&log, answered);
    std::fs::remove_file(&other).unwrap();
    check_recovery(&log, answered);
    log.close();
    drop(log);
    let log = open(Path::new(&folder), &options_of(500));
    assert_eq!(read_all(&log).len() as u64, answered + 1);
    println!("recovered after {answered}");
}

/// Fault F3 with a real full file system (ENOSPC), in a mount namespace of its own. Where the
/// system allows no such namespace, the test above stands for both, and this one says so.
#[test]
fn a_full_disk_passes() {
    let folder = tempfile::tempdir().unwrap();
    let child = this_binary("faults::on_a_small_disk", folder.path());
    let mount = "mount -t tmpfs -o size=12m tmpfs \"$FOLDER\" || exit 99; exec \"$0\" \"$@\"";
    let output = Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "-c", mount])
        .arg(child.get_program())
        .args(child.get_args())
        .env("FOLDER", folder.path())
        .env(FOLDER, folder.path())
        .env(TMPFS, "1")
        .output();
    let text = match &output {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(_) => String::new(),
    };
    let is_possible =
        matches!(&output, Ok(output) if !matches!(output.status.code(), Some(1 | 99)));
    if !is_possible && !text.contains("running 1 test") {
        eprintln!("no private mount namespace here: only the limit on files was tested");
        return;
    }
    let errors = output.map(|output| String::from_utf8_lossy(&output.stderr).into_owned());
    assert!(text.contains("recovered after"), "{text}\n{errors:?}");
}

/// The descriptors of this process that are open on a write-ahead file.
fn wal_descriptors() -> Vec<RawFd> {
    std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| {
            let path = entry.unwrap().path();
            let target = std::fs::read_link(&path).ok()?;
            let is_wal = target.to_string_lossy().contains("segment-")
                && target.to_string_lossy().ends_with("-wal");
            is_wal.then(|| path.file_name()?.to_str()?.parse().ok()).flatten()
        })
        .collect()
}

/// Not a test by itself: a process whose disk breaks, by losing the descriptor of the file.
#[test]
fn broken() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let log = open(Path::new(&folder), &options());
    log.append(vec![record(1, 1, 0)]).wait().unwrap();
    let state = log.watch_state();
    std::thread::sleep(Duration::from_millis(100));
    for descriptor in wal_descriptors() {
        nix::unistd::close(descriptor).unwrap();
    }
    assert_eq!(log.append(vec![record(1, 1, 1)]).wait(), Err(AppendError::Failed));
    assert_eq!(log.append(vec![record(1, 1, 2)]).wait(), Err(AppendError::Failed));
    assert_eq!((*state.borrow(), log.status().state), (State::Failed, State::Failed));
    println!("failed as it must");
    // As the owner does (EX_IOERR).
    std::process::exit(74);
}

/// Faults F5 and F6: any other error of the disk ends the log, and no append is answered well.
#[test]
fn a_broken_disk_fails_the_log_for_good() {
    let folder = tempfile::tempdir().unwrap();
    let output = this_binary("faults::broken", folder.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(74), "{text}");
    let log = open(folder.path(), &options());
    let batch = log.read(Offset::BEGINNING, ReadLimits::default()).unwrap();
    assert_eq!(batch.records[0].body, b"1/1/0");
}

/// What waits too long is answered so.
#[test]
fn a_queue_that_does_not_move_answers_overdue() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { queue_wait: Duration::ZERO, ..options() };
    let log = open(folder.path(), &options);
    let refused = log.append(vec![record(1, 1, 0)]).wait();
    assert!(matches!(refused, Err(AppendError::Overdue { limit_ms: 0, .. })), "{refused:?}");
    assert_eq!(log.end(), Offset::BEGINNING);
}

/// A thread of the log that panicked left the state healthy: calls gathered in the queue, nobody
/// answered, and the process that should have ended stayed. A panic is a failure like another.
#[test]
fn a_panic_of_a_thread_fails_the_log() {
    for thread in ["log-writer", "log-keeper"] {
        let folder = tempfile::tempdir().unwrap();
        let panics = Arc::new(AtomicBool::new(false));
        let switch = Arc::clone(&panics);
        let now = move || {
            let is_here = std::thread::current().name() == Some(thread);
            assert!(!(is_here && switch.load(Ordering::SeqCst)), "a panic for the test");
            SystemTime::now().into()
        };
        let clock = Clock::new(now, || Duration::ZERO);
        let log = open(folder.path(), &Options { clock, ..options() });
        log.append(vec![record(1, 1, 0)]).wait().unwrap();
        panics.store(true, Ordering::SeqCst);
        if thread == "log-writer" {
            let waiting: Vec<_> =
                (1..20).map(|number| log.append(vec![record(1, 1, number)])).collect();
            for appending in waiting {
                assert_eq!(appending.wait(), Err(AppendError::Failed));
            }
        }
        wait_until("failure", || log.status().state == State::Failed);
        assert_eq!(log.append(vec![record(1, 1, 99)]).wait(), Err(AppendError::Failed));
        drop(log);
        assert!(!read_all(&open(folder.path(), &options())).is_empty());
    }
}

/// Keeps the values of gauges.
#[derive(Default)]
struct Gauges(Arc<Mutex<Vec<(String, f64)>>>);

struct Gauge(String, Arc<Mutex<Vec<(String, f64)>>>);

impl metrics::GaugeFn for Gauge {
    fn increment(&self, _: f64) {}
    fn decrement(&self, _: f64) {}
    fn set(&self, value: f64) {
        self.1.lock().unwrap().push((self.0.clone(), value));
    }
}

impl metrics::Recorder for Gauges {
    fn describe_counter(
        &self,
        _: metrics::KeyName,
        _: Option<metrics::Unit>,
        _: metrics::SharedString,
    ) {
    }
    fn describe_gauge(
        &self,
        _: metrics::KeyName,
        _: Option<metrics::Unit>,
        _: metrics::SharedString,
    ) {
    }
    fn describe_histogram(
        &self,
        _: metrics::KeyName,
        _: Option<metrics::Unit>,
        _: metrics::SharedString,
    ) {
    }
    fn register_counter(&self, _: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Counter {
        metrics::Counter::noop()
    }
    fn register_gauge(&self, key: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Gauge {
        let gauge = Gauge(key.name().to_owned(), Arc::clone(&self.0));
        metrics::Gauge::from_arc(Arc::new(gauge))
    }
    fn register_histogram(
        &self,
        _: &metrics::Key,
        _: &metrics::Metadata<'_>,
    ) -> metrics::Histogram {
        metrics::Histogram::noop()
    }
}

/// The gauge of the state was there only after the state had changed: an alert on it could not
/// tell a sound log from a gateway that measures nothing.
#[test]
fn the_gauge_of_the_state_is_there_from_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let gauges = Gauges::default();
    let log = metrics::with_local_recorder(&gauges, || open(folder.path(), &options()));
    drop(log);
    let seen = gauges.0.lock().unwrap();
    assert!(seen.contains(&("simgate_log_state".to_owned(), 0.0)), "{seen:?}");
}
