//! A real broker on a free port.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A broker that does not listen by then never will.
const PATIENCE: Duration = Duration::from_secs(20);

/// The name of its configuration in its folder.
pub(crate) const CONFIG: &str = "mosquitto.conf";

/// A running broker; it ends with its handle.
pub(crate) struct Mosquitto {
    pub(crate) child: Child,
    pub(crate) port: u16,
    _folder: tempfile::TempDir,
}

impl Mosquitto {
    /// Starts a broker with `lines` of configuration after the listener's; `{folder}` in them is
    /// its folder, where `prepare` may put files.
    pub(crate) fn start(lines: &str, prepare: impl FnOnce(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        let config = folder.path().join(CONFIG);
        let lines = lines.replace("{folder}", folder.path().to_str().unwrap());
        loop {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            // As root it would become a user who must not read the folder.
            let text = format!("user root\nlistener {port} 127.0.0.1\n{lines}\n");
            std::fs::write(&config, text).unwrap();
            // Somebody else may have taken the port meanwhile.
            if let Some(child) = spawn(&config, port) {
                return Self { child, port, _folder: folder };
            }
        }
    }

    /// A broker that asks nobody for a name.
    pub(crate) fn open_to_all() -> Self {
        Self::start("allow_anonymous true", |_| {})
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until it listens; `None` where it ends instead.
pub(crate) fn spawn(config: &Path, port: u16) -> Option<Child> {
    let mut child = Command::new(program())
        .arg("-c")
        .arg(config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("mosquitto is installed, as test.sh does");
    let start = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(start.elapsed() < PATIENCE, "mosquitto does not listen");
        std::thread::sleep(Duration::from_millis(10));
    }
    // Whoever listens may be somebody else, while this one finds the port taken.
    std::thread::sleep(Duration::from_millis(20));
    child.try_wait().unwrap().is_none().then_some(child)
}

/// Debian puts the broker where only root looks for programs.
fn program() -> &'static Path {
    let system = Path::new("/usr/sbin/mosquitto");
    if system.exists() { system } else { Path::new("mosquitto") }
}
