//! The program under test as a child process: its directory, ports, logs and exit.

use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, Once};
use std::thread::JoinHandle;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use serde_json::Value;
use tempfile::TempDir;

use super::{Reply, Wire, eventually, get};

/// A temporary directory, removed with the test.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(TempDir::with_prefix("portcullis-").unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Writes a file atomically, creating its directories, as careful editors do.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let beside = path.with_extension("new~");
        fs::write(&beside, content).unwrap();
        fs::rename(&beside, &path).unwrap();
        path
    }

    /// Creates a symbolic link, or replaces it atomically.
    pub(crate) fn link(&self, name: &str, to: impl AsRef<Path>) {
        let beside = self.path("link.new~");
        symlink(to, &beside).unwrap();
        fs::rename(&beside, self.path(name)).unwrap();
    }
}

/// A running `portcullis run`. Dropping it kills the child and fails the test if it panicked.
pub(crate) struct Gateway {
    pub(crate) folder: Folder,
    child: Child,
    out: Log,
    err: Log,
}

impl Gateway {
    /// Starts the program on this configuration and waits until it listens.
    pub(crate) async fn start(config: &str) -> Self {
        Self::start_in(Folder::new(), config).await
    }

    /// Starts the program in a directory that already has files.
    pub(crate) async fn start_in(folder: Folder, config: &str) -> Self {
        folder.write("gateway.yaml", config);
        let listeners = config.matches("address:").count();
        Self::start_as_it_is(folder, listeners, &[]).await
    }

    /// Starts the program with the `gateway.yaml` in the directory.
    pub(crate) async fn start_as_it_is(
        folder: Folder,
        listeners: usize,
        env: &[(&str, &str)],
    ) -> Self {
        raise_the_limit_of_open_files();
        let mut command = program();
        command.envs(env.iter().copied());
        Self::start_program(folder, listeners, command).await
    }

    /// Starts the program with this limit of open files and connections.
    pub(crate) async fn start_with_descriptors(config: &str, most: u32) -> Self {
        let folder = Folder::new();
        folder.write("gateway.yaml", config);
        let mut command = Command::new("sh");
        command.env("NO_COLOR", "1").env_remove("RUST_LOG");
        command.args(["-c", &format!("ulimit -n {most} && exec \"$0\" \"$@\"")]);
        command.arg(env!("CARGO_BIN_EXE_portcullis"));
        Self::start_program(folder, config.matches("address:").count(), command).await
    }

    /// Starts a program that is or becomes ours, with its arguments still to come.
    pub(crate) async fn start_program(
        folder: Folder,
        listeners: usize,
        mut command: Command,
    ) -> Self {
        let mut child = command
            .args(["run", "-c"])
            .arg(folder.path("gateway.yaml"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = Log::of(child.stdout.take().unwrap());
        let err = Log::of(child.stderr.take().unwrap());
        let mut gateway = Self {
            folder,
            child,
            out,
            err,
        };
        eventually("the listeners", async || {
            let end = gateway.child.try_wait().unwrap();
            assert!(end.is_none(), "the gateway ended: {end:?}");
            (gateway.addresses().len() >= listeners).then_some(())
        })
        .await;
        gateway
    }

    /// The addresses in the log, in order.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        let log = self.err.text();
        log.split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
            .filter_map(|line| {
                line.split_once("listening address=")?
                    .1
                    .split_whitespace()
                    .next()
            })
            .filter_map(|address| address.trim_matches('"').parse().ok())
            .collect()
    }

    /// The first listener's address.
    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses()[0]
    }

    /// A connection to the first listener.
    pub(crate) async fn connect(&self) -> Wire {
        Wire::connect(self.address()).await
    }

    /// One GET on a new connection.
    pub(crate) async fn get(&self, target: &str, fields: &[(&str, &str)]) -> Reply {
        get(self.address(), target, fields).await
    }

    /// Polls until a GET returns this status and body.
    pub(crate) async fn answers(&self, target: &str, status: u16, body: &str) {
        eventually(&format!("{status} {body:?} at {target}"), async || {
            let reply = self.get(target, &[]).await;
            (reply.status == status && reply.text() == body).then_some(())
        })
        .await;
    }

    /// Writes a new configuration and waits until it is reloaded.
    pub(crate) async fn reconfigure(&self, config: &str) {
        let before = self.reloads();
        self.folder.write("gateway.yaml", config);
        self.reloaded_after(before).await;
    }

    /// Writes a new configuration and waits until it is refused; returns the new log text.
    pub(crate) async fn reconfigure_in_vain(&self, config: &str) -> String {
        let before = self.stderr().len();
        self.folder.write("gateway.yaml", config);
        eventually("the refusal", async || {
            let log = self.stderr();
            log[before..]
                .contains("configuration refused")
                .then(|| log[before..].to_owned())
        })
        .await
    }

    /// The number of successful reloads.
    pub(crate) fn reloads(&self) -> usize {
        self.stderr().matches("configuration reloaded").count()
    }

    /// Waits for a reload after the counted ones.
    pub(crate) async fn reloaded_after(&self, before: usize) {
        eventually("a reload", async || (self.reloads() > before).then_some(())).await;
    }

    /// The operator's log so far.
    pub(crate) fn stderr(&self) -> String {
        self.err.text()
    }

    /// Everything that the child has written so far.
    pub(crate) fn output(&self) -> String {
        self.out.text() + &self.err.text()
    }

    /// The access record of the request with this path; paths in a test are unique.
    pub(crate) async fn record(&self, path: &str) -> Value {
        eventually(&format!("the access record of {path}"), async || {
            self.records()
                .into_iter()
                .find(|record| record["path"] == path)
        })
        .await
    }

    /// The access records, once there are at least this many.
    pub(crate) async fn records_of(&self, count: usize) -> Vec<Value> {
        eventually(&format!("{count} access records"), async || {
            Some(self.records()).filter(|records| records.len() >= count)
        })
        .await
    }

    /// All access records so far.
    pub(crate) fn records(&self) -> Vec<Value> {
        let log = self.out.text();
        let whole = log.rfind('\n').map_or("", |end| &log[..end]);
        whole
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}")))
            .collect()
    }

    /// The process's id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until the child exits by itself.
    pub(crate) async fn exit(&mut self) -> ExitStatus {
        eventually("the end of the program", async || {
            self.child.try_wait().unwrap()
        })
        .await
    }

    /// The child's resident memory in bytes; `None` where the system does not report it.
    pub(crate) fn resident(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?;
        Some(
            line.trim()
                .trim_end_matches("kB")
                .trim()
                .parse::<u64>()
                .ok()?
                * 1024,
        )
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        self.out.end();
        self.err.end();
        let log = self.err.text();
        if std::thread::panicking() {
            let tail = log.len().saturating_sub(6_000);
            eprintln!(
                "--- the gateway's log:\n{}",
                String::from_utf8_lossy(&log.as_bytes()[tail..])
            );
        } else {
            assert!(!log.contains("panicked at"), "the gateway panicked:\n{log}");
        }
    }
}

/// The output of a pipe so far.
struct Log {
    text: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Log {
    fn of(mut pipe: impl Read + Send + 'static) -> Self {
        let text = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&text);
        let reader = std::thread::spawn(move || {
            let mut piece = [0; 8192];
            while let Ok(length @ 1..) = pipe.read(&mut piece) {
                sink.lock().unwrap().extend_from_slice(&piece[..length]);
            }
        });
        Self {
            text,
            reader: Some(reader),
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().unwrap()).into_owned()
    }

    fn end(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.join().ok();
        }
    }
}

/// Runs the program with these arguments until it exits.
pub(crate) fn run_to_end(folder: &Folder, arguments: &[&str], env: &[(&str, &str)]) -> Output {
    program()
        .args(arguments)
        .envs(env.iter().copied())
        .current_dir(folder.path(""))
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// The program's command.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.env("NO_COLOR", "1").env_remove("RUST_LOG");
    command
}

/// Thousands of connections need as many descriptors, here and in the child, which inherits the limit.
fn raise_the_limit_of_open_files() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let limit = getrlimit(Resource::Nofile);
        let maximum = limit.maximum;
        setrlimit(
            Resource::Nofile,
            Rlimit {
                current: maximum,
                maximum,
            },
        )
        .ok();
    });
}
