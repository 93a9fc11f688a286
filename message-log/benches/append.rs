//! How fast the log takes and gives records, on a real disk with every commit synced.
//!
//! ```text
//! cargo bench -p message-log -- [--records 10000000] [--payload 100] [--batch 1000]
//!     [--devices 100000] [--page 4096] [--wal 8388608] [--dir /path/on/a/real/disk]
//!     [--only latency]
//! ```
//!
//! Prints records per second of each million, the newest 25 of one device, the time of a start,
//! and how long appends wait when few are outstanding. Removes its files.

#![allow(
    missing_docs,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program, not a library"
)]

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use hdrhistogram::Histogram;
use message_log::{
    AppendError, Appending, DeviceKey, Kind, MessageLog, NewRecord, Offset, Options, Query,
    ReadLimits,
};

struct Arguments {
    records: u64,
    payload: usize,
    batch: usize,
    devices: u64,
    options: Options,
    dir: PathBuf,
    only: Option<String>,
}

fn main() {
    let arguments = arguments();
    let folder = tempfile::Builder::new().prefix("log-bench").tempdir_in(&arguments.dir).unwrap();
    if arguments.only.is_none() {
        throughput(&arguments, &folder.path().join("many"));
        std::fs::remove_dir_all(folder.path().join("many")).unwrap();
    }
    for outstanding in [1, 16, 32, 64, 256] {
        latency(&arguments, &folder.path().join("few"), outstanding);
    }
}

fn arguments() -> Arguments {
    let given: Vec<String> = std::env::args().collect();
    let text = |name: &str| {
        given.iter().position(|argument| argument == name).and_then(|at| given.get(at + 1)).cloned()
    };
    let number = |name: &str, usual: u64| text(name).map_or(usual, |text| text.parse().unwrap());
    let usual = Options::default();
    Arguments {
        records: number("--records", 10_000_000),
        payload: usize::try_from(number("--payload", 100)).unwrap(),
        batch: usize::try_from(number("--batch", 1_000)).unwrap(),
        devices: number("--devices", 100_000),
        options: Options {
            page_bytes: u32::try_from(number("--page", u64::from(usual.page_bytes))).unwrap(),
            wal_bytes: number("--wal", usual.wal_bytes),
            ..usual
        },
        dir: text("--dir").map_or_else(|| PathBuf::from("."), PathBuf::from),
        only: text("--only"),
    }
}

fn record(arguments: &Arguments, random: &mut u64) -> NewRecord {
    // Xorshift64 (Marsaglia 2003): the devices come in no order, the worst case of an index.
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    NewRecord {
        kind: Kind::new(1),
        device: DeviceKey::from_u64(*random % arguments.devices + 1),
        received_at: SystemTime::now().into(),
        body: vec![(*random & 0xff) as u8; arguments.payload],
    }
}

fn throughput(arguments: &Arguments, dir: &Path) {
    let (log, _) = MessageLog::open(dir, arguments.options.clone()).unwrap();
    let mut random = 88_172_645_463_325_252;
    let mut waiting: VecDeque<Appending> = VecDeque::new();
    let (mut rates, mut done, mut begun) = (Vec::new(), 0, Instant::now());
    while done < arguments.records {
        let records = (0..arguments.batch).map(|_| record(arguments, &mut random)).collect();
        waiting.push_back(log.append(records));
        // Some calls outstanding, as from a gateway's tasks.
        if waiting.len() >= 8 {
            waiting.pop_front().unwrap().wait().unwrap();
        }
        done += arguments.batch as u64;
        if done % 1_000_000 < arguments.batch as u64 {
            waiting.drain(..).for_each(|appending| drop(appending.wait().unwrap()));
            let seconds = begun.elapsed().as_secs_f64();
            rates.push(1e6 / seconds);
            println!("million {}: {:.0} records/s", done / 1_000_000, 1e6 / seconds);
            begun = Instant::now();
        }
    }
    waiting.drain(..).for_each(|appending| drop(appending.wait().unwrap()));
    if let (Some(first), Some(last)) = (rates.first(), rates.last()) {
        println!("last / first: {:.2}", last / first);
    }
    questions(arguments, &log, "at once after");
    let begun = Instant::now();
    while log.status().unsealed > 1 && begun.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(10));
    }
    println!("sealed {:.2} s later; {:?}", begun.elapsed().as_secs_f64(), log.status());
    questions(arguments, &log, "all sealed");
    forward(&log);
    drop(log);
    let begun = Instant::now();
    let (log, opened) = MessageLog::open(dir, arguments.options.clone()).unwrap();
    println!("start after a crash: {:.2} s; {opened:?}", begun.elapsed().as_secs_f64());
    log.close();
}

fn questions(arguments: &Arguments, log: &MessageLog, name: &str) {
    let mut times = Histogram::<u64>::new(3).unwrap();
    for question in 0..2_000 {
        let device = DeviceKey::from_u64(question * 7_919 % arguments.devices + 1);
        let begun = Instant::now();
        let newest = log.newest(Query { device: Some(device), ..Query::default() }).unwrap();
        times.record(u64::try_from(begun.elapsed().as_micros()).unwrap()).unwrap();
        assert!(newest.len() == 25 || arguments.records < 100 * arguments.devices);
    }
    report(&format!("newest 25 of a device, {name}"), &times);
}

fn forward(log: &MessageLog) {
    let (mut next, mut read, begun) = (Offset::BEGINNING, 0, Instant::now());
    while read < 1_000_000 {
        let batch = log.read(next, ReadLimits::default()).unwrap();
        if batch.next == next {
            break;
        }
        read += batch.records.len();
        next = batch.next;
    }
    println!("read forward: {:.0} records/s", read as f64 / begun.elapsed().as_secs_f64());
}

fn latency(arguments: &Arguments, dir: &Path, outstanding: usize) {
    let (log, _) = MessageLog::open(dir, arguments.options.clone()).unwrap();
    let mut times = Histogram::<u64>::new(3).unwrap();
    let mut random = 88_172_645_463_325_252;
    let mut waiting: VecDeque<(Instant, Appending)> = VecDeque::new();
    let begun = Instant::now();
    let mut answered = 0_u64;
    while begun.elapsed() < Duration::from_secs(3) {
        // A round of appends of one record each: the writer sees them one by one.
        for _ in 0..outstanding {
            let appending = log.append(vec![record(arguments, &mut random)]);
            waiting.push_back((Instant::now(), appending));
        }
        for (sent, appending) in waiting.drain(..) {
            appending.wait().unwrap_or_else(|error: AppendError| panic!("{error}"));
            times.record(u64::try_from(sent.elapsed().as_micros()).unwrap()).unwrap();
            answered += 1;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let name = format!(
        "{outstanding} outstanding: {:.0} rounds/s, {:.0} records/s, wait",
        answered as f64 / outstanding as f64 / seconds,
        answered as f64 / seconds
    );
    report(&name, &times);
    log.close();
    std::fs::remove_dir_all(dir).unwrap();
}

fn report(name: &str, times: &Histogram<u64>) {
    let at = |quantile| times.value_at_quantile(quantile);
    println!(
        "{name}: p50 {} us, p99 {} us, p99.9 {} us, max {} us",
        at(0.5),
        at(0.99),
        at(0.999),
        times.max()
    );
}
