//! `portcullis demo` from the program alone: in a directory where nothing is and nothing can be written, with its ports taken,
//! as a user who may write nowhere but the temporary directory. What its page does is tested in Chromium (tests/browser).

use std::fs;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, getuid, kill_process};
use serde_json::{Value, json};

use super::support::{Folder, Reply, Wire, eventually, free_port, program, request, run_to_end};

/// A user without rights.
const NOBODY: u32 = 65_534;

/// A demo that runs. Dropping it ends it.
struct Demo {
    child: Child,
    text: Arc<Mutex<String>>,
}

impl Demo {
    async fn start(mut command: Command, arguments: &[&str]) -> Self {
        let mut child = command
            .arg("demo")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let text = Arc::new(Mutex::new(String::new()));
        let (mut pipe, sink) = (child.stdout.take().unwrap(), Arc::clone(&text));
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = pipe.read(&mut piece) {
                let piece = String::from_utf8_lossy(&piece[..length]).into_owned();
                sink.lock().unwrap().push_str(&piece);
            }
        });
        let mut demo = Self { child, text };
        eventually("what the demo prints", async || {
            let end = demo.child.try_wait().unwrap();
            assert!(end.is_none(), "the demo ended: {end:?}");
            demo.text().contains("A live edit").then_some(())
        })
        .await;
        demo
    }

    fn text(&self) -> String {
        self.text.lock().unwrap().clone()
    }

    /// The word behind a label.
    fn word(&self, label: &str) -> String {
        let text = self.text();
        let line = text
            .lines()
            .find_map(|line| line.trim_start().strip_prefix(label));
        let line = line.unwrap_or_else(|| panic!("no {label:?} in {text}"));
        line.split_whitespace().next().unwrap().to_owned()
    }

    fn address(&self) -> SocketAddr {
        let page = self.word("Browser ");
        page.trim_start_matches("http://")
            .trim_end_matches('/')
            .parse()
            .unwrap()
    }

    async fn post(&self, path: &str, host: &str, body: Value) -> Reply {
        let fields = [("Content-Type", "application/json"), ("Host", host)];
        let mut wire = Wire::connect(self.address()).await;
        wire.send(request("POST", path, &fields, body.to_string()))
            .await;
        wire.reply().await
    }

    /// Ends it as Ctrl-C does.
    async fn end(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
        let status = eventually("its end", async || self.child.try_wait().unwrap()).await;
        assert_eq!(status.code(), Some(0));
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Takes a port, unless somebody has it already.
fn taken(port: u16) -> Option<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()
}

/// The program in this directory, with this one for temporary files, as a user who may write nowhere else.
fn confined(folder: &Folder, here: &Path, temporary: &Path) -> Command {
    let mut command = program();
    if getuid().is_root() {
        // Where it was built, a user without rights may not come.
        let copy = folder.path("portcullis");
        if !copy.exists() {
            fs::copy(env!("CARGO_BIN_EXE_portcullis"), &copy).unwrap();
            fs::set_permissions(&copy, PermissionsExt::from_mode(0o755)).unwrap();
            fs::set_permissions(folder.path(""), PermissionsExt::from_mode(0o755)).unwrap();
        }
        chown(temporary, Some(NOBODY), Some(NOBODY)).unwrap();
        command = Command::new(copy);
        command.env("NO_COLOR", "1").uid(NOBODY).gid(NOBODY);
    }
    command
        .current_dir(here)
        .env("TMPDIR", temporary)
        .env("HOME", "/nonexistent");
    command
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

// One after the other: they choose ports.
#[tokio::test]
async fn the_program_alone_is_a_demo() {
    let folder = Folder::new();
    let (here, temporary) = (folder.path("empty"), folder.path("tmp"));
    for made in [&here, &temporary] {
        fs::create_dir(made).unwrap();
    }
    fs::set_permissions(&here, PermissionsExt::from_mode(0o555)).unwrap();
    let held = [8080, 8443, 9000].map(taken);

    let demo = Demo::start(confined(&folder, &here, &temporary), &[]).await;
    let text = demo.text();
    for port in [8080, 8443, 9000] {
        assert!(text.contains(&format!("Port {port} is taken: ")), "{text}");
    }
    let files = entries(&temporary);
    assert!(
        files.len() == 1 && text.contains(&format!("Its files are in {}/", files[0].display())),
        "{text}"
    );
    assert_ne!(demo.address().port(), 8080);

    // The page, and all that it names.
    let get = async |path: &str, fields: &[(&str, &str)]| {
        Wire::connect(demo.address()).await.get(path, fields).await
    };
    let page = get("/", &[]).await;
    assert!(page.status == 200 && page.text().contains("<title>Portcullis</title>"));
    for path in ["/app.js", "/style.css", "/favicon.svg"] {
        assert_eq!(get(path, &[]).await.status, 200, "{path}");
    }

    // What `explain` says to the page, with the lines that decided; to this machine alone.
    let question = json!({"method": "GET", "url": "http://127.0.0.1/api/orders/", "headers": {}});
    let said = demo
        .post("/demo/explain", "127.0.0.1", question.clone())
        .await;
    assert_eq!(said.status, 200, "{}", said.text());
    let said: Value = serde_json::from_str(&said.text()).unwrap();
    assert_eq!(said["reason"], "token_missing");
    assert_eq!(said["excerpts"][0]["file"], "gateway.yaml");
    assert!(
        said["excerpts"][0]["lines"][0]
            .as_str()
            .unwrap()
            .contains("path: /api/*"),
        "{said}"
    );
    let elsewhere = demo.post("/demo/explain", "evil.example", question).await;
    assert_eq!(elsewhere.status, 403);

    // The link signs in once.
    let link = demo.word("Open ");
    let (page, code) = link.split_once("/#sign-in=").unwrap();
    assert_eq!(page, format!("http://{}", demo.address()));
    let wrong = demo
        .post("/demo/sign-in", "localhost", json!({"code": "wrong"}))
        .await;
    assert_eq!(wrong.status, 403);
    let from_elsewhere = demo
        .post("/demo/sign-in", "evil.example", json!({"code": code}))
        .await;
    assert_eq!(from_elsewhere.status, 403);
    let signed_in = demo
        .post("/demo/sign-in", "localhost", json!({"code": code}))
        .await;
    assert_eq!(signed_in.status, 200, "{}", signed_in.text());
    let tokens: Value = serde_json::from_str(&signed_in.text()).unwrap();
    let bearer = format!("Bearer {}", tokens["access"].as_str().unwrap());
    let seen = get("/api/orders/", &[("Authorization", &bearer)]).await;
    let seen: Value = serde_json::from_str(&seen.text()).unwrap();
    assert_eq!(seen["headers"]["x-user-id"], "alice");
    let again = demo
        .post("/demo/sign-in", "localhost", json!({"code": code}))
        .await;
    assert_eq!(again.status, 410);
    assert!(
        !demo.text().contains("/demo/sign-in?"),
        "no code is in the log"
    );

    // A second demo beside it does not disturb the first.
    let second = Demo::start(confined(&folder, &here, &temporary), &["--port", "0"]).await;
    assert_ne!(second.address(), demo.address());
    second.end().await;
    let seen = get("/api/orders/", &[("Authorization", &bearer)]).await;
    assert_eq!(seen.status, 200);

    demo.end().await;
    assert!(entries(&temporary).is_empty() && entries(&here).is_empty());
    drop(held);

    files_stay_where_dir_says(&folder, &here, &temporary).await;
}

async fn files_stay_where_dir_says(folder: &Folder, here: &Path, temporary: &Path) {
    let kept = temporary.join("kept");
    let arguments = ["--dir", kept.to_str().unwrap()];
    // Not one that the system may give to a client between the two starts.
    let port = free_port().to_string();
    let demo = Demo::start(
        confined(folder, here, temporary),
        &[&arguments[..], &["--port", &port]].concat(),
    )
    .await;
    assert!(demo.text().contains(&format!(
        "Its files are in {}/ and stay there.",
        kept.display()
    )));
    let address = demo.address();
    demo.end().await;
    let config = kept.join("gateway.yaml");
    let text = fs::read_to_string(&config).unwrap();
    assert!(text.contains(&format!("address: {address}")), "{text}");

    // The next start finds them, edited as they may be, on the ports that they say.
    fs::write(&config, text.replace("body: pong", "body: mine")).unwrap();
    let demo = Demo::start(confined(folder, here, temporary), &arguments).await;
    assert_eq!(demo.address(), address);
    let reply = Wire::connect(address).await.get("/ping", &[]).await;
    assert_eq!(reply.text(), "mine");
    // A clone's demo whose ports are taken says so, and what else can be done.
    let output = run_to_end(folder, &["demo", "-c", config.to_str().unwrap()], &[]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said.contains("another program listens on") && said.contains("--port 8081"),
        "{said}"
    );
    demo.end().await;

    let port = taken(0).unwrap();
    let number = port.local_addr().unwrap().port().to_string();
    for (arguments, code, said) in [
        (&["demo", "--port", &number][..], 1, "cannot listen on"),
        (
            &["demo", "--dir", kept.to_str().unwrap(), "--port", "8081"],
            1,
            "says the ports itself",
        ),
        (&["demo", "-c", "a.yaml", "--port", "8081"], 2, "-c FILE"),
        (&["demo", "-c", "none.yaml"], 1, "there is no none.yaml"),
        (&["demo", "--dir", "/proc/none"], 1, "/proc/none"),
    ] {
        let output = run_to_end(folder, arguments, &[]);
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {err}");
        assert!(err.contains(said), "{arguments:?}: {err}");
    }
}
