//! Killed processes: what was answered is there afterwards.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use message_log::MessageLog;

use crate::world::{open, options_of, read_all, record};

/// Names the folder of a process that this test binary starts of itself.
pub(crate) const FOLDER: &str = "MESSAGE_LOG_TEST_FOLDER";

/// This test binary again, running one test alone.
pub(crate) fn this_binary(test: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]).env(FOLDER, folder);
    command
}

/// Not a test by itself: the process that is killed. Tells each answer.
#[test]
fn victim() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let log = open(Path::new(&folder), &options_of(700));
    let begun = log.status().records;
    let mut waiting = std::collections::VecDeque::new();
    for number in begun.. {
        let records = vec![record(number % 5 + 1, 1, number), record(number % 5 + 1, 64, number)];
        waiting.push_back(log.append(records));
        if waiting.len() >= 20 {
            let appended = waiting.pop_front().unwrap().wait().unwrap();
            println!("answered {} {}", appended.first, appended.ids[0]);
        }
    }
}

/// Fault F1: kill -9 at any point, eight times over the same folder.
#[test]
fn what_was_answered_survives_kill_9() {
    let folder = tempfile::tempdir().unwrap();
    let mut answered: Vec<(u64, String)> = Vec::new();
    for round in 0..8_u64 {
        let mut victim = this_binary("crash::victim", folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
        let reader = std::thread::spawn(move || {
            lines.map_while(Result::ok).filter_map(|line| parse(&line)).collect::<Vec<_>>()
        });
        // Different moments: during the start, early, while segments change and are sealed.
        std::thread::sleep(Duration::from_millis(40 + round * 60));
        victim.kill().unwrap();
        victim.wait().unwrap();
        answered.extend(reader.join().unwrap());
        check(folder.path(), &answered);
    }
    assert!(answered.len() > 1_000, "only {} answers", answered.len());
}

fn parse(line: &str) -> Option<(u64, String)> {
    // The last line may be cut.
    let (offset, id) = line.split("answered ").nth(1)?.split_once(' ')?;
    (id.len() == 30).then(|| (offset.parse().unwrap(), id.to_owned()))
}

fn check(folder: &Path, answered: &[(u64, String)]) {
    let (log, opened) = MessageLog::open(folder, options_of(700)).unwrap();
    assert_eq!((opened.damaged, opened.quarantined), (0, 0));
    let all = read_all(&log);
    for (offset, id) in answered {
        let found = &all[usize::try_from(*offset).unwrap()];
        assert_eq!((found.offset.as_u64(), &found.id.to_string()), (*offset, id));
    }
    // Both records of a call, or none.
    assert_eq!(all.len() % 2, 0);
    let mut numbers = std::collections::HashMap::new();
    for record in all.iter().filter(|record| record.device_seq > 0) {
        let last = numbers.insert(record.device, record.device_seq).unwrap_or(0);
        assert_eq!(record.device_seq, last + 1);
    }
}
