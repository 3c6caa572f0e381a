//! The user that serves: root binds and reads, and is given up for good, by every thread. They need root to start as.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use rustix::process::Signal;
use tokio::net::{TcpStream, UnixStream};

use super::support::{Folder, Gateway, Wire, config, eventually, free_port, program, run_to_end};

/// The bit of CAP_NET_BIND_SERVICE.
const NET_BIND_SERVICE: u64 = 1 << 10;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A user of this system without privileges: its name, id and group.
fn somebody() -> (String, u32, u32) {
    let text = fs::read_to_string("/etc/passwd").unwrap();
    let mut people = text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let (uid, gid) = (fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?);
        Some((fields[0].to_owned(), uid, gid))
    });
    people
        .find(|(name, uid, _)| *uid != 0 && name == "nobody")
        .expect("nobody")
}

/// A directory that others may enter.
fn folder() -> Folder {
    let folder = Folder::new();
    chmod(&folder.path(""), 0o755);
    folder
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A file's owner, group and permission bits.
fn owner(path: &Path) -> (u32, u32, u32) {
    let there = fs::symlink_metadata(path).unwrap();
    (there.uid(), there.gid(), there.mode() & 0o777)
}

/// The status of every thread (proc(5)): its name and its lines.
fn threads(gateway: &Gateway) -> Vec<(String, String)> {
    let tasks = format!("/proc/{}/task", gateway.id());
    let status = |task: fs::DirEntry| {
        // A thread may end meanwhile.
        let text = fs::read_to_string(task.path().join("status")).ok()?;
        Some((value(&text, "Name").to_owned(), text))
    };
    let tasks = fs::read_dir(tasks).unwrap();
    tasks.filter_map(|task| status(task.unwrap())).collect()
}

fn value<'s>(status: &'s str, name: &str) -> &'s str {
    let mut lines = status.lines();
    let found = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    found
        .unwrap_or_else(|| panic!("no {name}: {status}"))
        .trim()
}

/// Asserts that no thread has anything left of root.
fn assert_not_root(gateway: &Gateway, uid: u32, gid: u32) {
    let threads = threads(gateway);
    let workers = threads
        .iter()
        .filter(|(name, _)| name.starts_with("worker-"));
    assert_eq!(workers.count(), 2);
    assert!(threads.len() > 3, "{}", threads.len());
    for (name, status) in &threads {
        let ids = |id: u32| vec![id.to_string(); 4].join("\t");
        assert_eq!(value(status, "Uid"), ids(uid), "{name}");
        assert_eq!(value(status, "Gid"), ids(gid), "{name}");
        let groups: Vec<&str> = value(status, "Groups").split_whitespace().collect();
        assert_eq!(groups, [gid.to_string()], "{name}");
        assert_eq!(value(status, "NoNewPrivs"), "1", "{name}");
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            let rights = u64::from_str_radix(value(status, set), 16).unwrap();
            let left = match name.starts_with("worker-") {
                true => 0,
                false => NET_BIND_SERVICE,
            };
            assert_eq!(rights & !left, 0, "{name} {set}");
        }
    }
}

const SERVICE: &str = "
tokens: {keys: keys/, users: users.yaml, issuer: https://a.test}
state: data/new
upstreams: {app: {servers: [http://127.0.0.1:9], buffer: {request: 1MiB, spool: spool/new, spool_bytes: 8MiB}}}
routes:
  - {path: /app/*, proxy: app, auth: none}
  - {path: /files/*, static: ./site, auth: none}
  - {path: /, respond: {body: in}}
";

#[tokio::test]
async fn root_starts_and_a_user_serves() {
    if !is_root() {
        return;
    }
    let (name, uid, gid) = somebody();
    let folder = folder();
    let port = free_port();
    folder.write("site/a.txt", "a file");
    folder.write("users.yaml", "{}\n");
    folder.write("secret", "0123456789abcdef0123456789abcdef");
    chmod(&folder.path("secret"), 0o600);
    let text = format!(
        "user: {name}
listeners: [{{address: 127.0.0.1:0}}, {{address: 'unix:a.sock'}}]
log: {{access: {{to: logs.txt}}}}
jwt: {{a: {{algorithms: [HS256], secret: '${{file:secret}}'}}}}
{SERVICE}"
    );
    let text = config(&text, &[]);
    folder.write("gateway.yaml", &text);
    let gateway = Gateway::start_as_it_is(folder, 1, &[]).await;
    gateway.answers("/", 200, "in").await;
    gateway.answers("/files/a.txt", 200, "a file").await;
    assert_not_root(&gateway, uid, gid);
    let log = gateway.stderr();
    assert!(log.contains("root is given up"), "{log}");
    assert!(!log.contains("this is root"), "{log}");

    // What it made is the user's.
    let path = |name: &str| gateway.folder.path(name);
    for (made, mode) in [
        ("data/new", 0o700),
        ("data/new/tokens.redb", 0o600),
        ("spool/new", 0o700),
        ("keys", 0o700),
        ("a.sock", 0o600),
    ] {
        assert_eq!(owner(&path(made)), (uid, gid, mode), "{made}");
    }
    assert_eq!(owner(&path("logs.txt")).0, uid);
    let keys = fs::read_dir(path("keys")).unwrap();
    let keys: Vec<_> = keys.map(|key| owner(&key.unwrap().path())).collect();
    assert_eq!(keys, [(uid, gid, 0o600)]);
    let stream = UnixStream::connect(path("a.sock")).await.unwrap();
    assert_eq!(Wire::over(stream).get("/", &[]).await.text(), "in");

    // It has said what a reload could not read, and how to mend that; and so it is.
    let closed = format!("`{name}`, who serves, cannot read `");
    assert!(log.contains(&closed), "{log}");
    assert!(log.contains("secret && chmod g+r "), "{log}");
    let log = gateway
        .reconfigure_in_vain(&text.replace("body: in", "body: on"))
        .await;
    assert!(log.contains("permission denied"), "{log}");
    chown(path("secret"), None, Some(gid)).unwrap();
    chmod(&path("secret"), 0o640);
    gateway.answers("/", 200, "on").await;

    // A reload binds, and the log goes on.
    let more = text.replace(
        "{address: 127.0.0.1:0}",
        &format!("{{address: 127.0.0.1:0}}, {{address: 127.0.0.1:{port}}}"),
    );
    gateway.reconfigure(&more).await;
    assert!(TcpStream::connect(("127.0.0.1", port)).await.is_ok());
    chown(path(""), Some(uid), None).unwrap();
    fs::rename(path("logs.txt"), path("logs.1")).unwrap();
    gateway.signal(Signal::USR1);
    gateway.get("/after", &[]).await;
    eventually("a new log", async || {
        let text = fs::read_to_string(path("logs.txt")).ok()?;
        text.contains("/after").then_some(())
    })
    .await;
    assert_eq!(owner(&path("logs.txt")).0, uid);

    // Another user is refused, and none as well.
    for (other, said) in [
        (
            "user: {name: daemon}\n",
            "to `daemon:daemon`: that needs a restart",
        ),
        ("", "to none: that needs a restart"),
    ] {
        let text = text.replace(&format!("user: {name}\n"), other);
        let log = gateway.reconfigure_in_vain(&text).await;
        assert!(
            log.contains("`user` changed from `nobody:") && log.contains(said),
            "{log}"
        );
    }
    assert_not_root(&gateway, uid, gid);
    // The start itself was not followed by a reload that the user cannot do.
    let refused = gateway.stderr().matches("configuration refused").count();
    assert_eq!(refused, 3, "{}", gateway.stderr());
}

#[tokio::test]
async fn a_reload_binds_a_low_port_if_root_could() {
    if !is_root() {
        return;
    }
    let lowest = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    let lowest: u16 = lowest.trim().parse().unwrap();
    let mut low =
        (700..lowest).filter(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok());
    let Some(port) = low.next() else { return };
    let (name, uid, gid) = somebody();
    let text = |port: u16| {
        let text = format!(
            "user: {{name: {name}}}\nlisteners: [{{address: 127.0.0.1:0}}, {{address: 127.0.0.1:{port}}}]\nroutes: [{{path: /*, respond: {{body: in}}}}]\n"
        );
        config(&text, &[])
    };
    let first = free_port();
    for keeps in [true, false] {
        let folder = folder();
        folder.write("gateway.yaml", text(first));
        let mut command = program();
        if !keeps {
            let portcullis = command.get_program().to_owned();
            command = std::process::Command::new("setpriv");
            command
                .env("NO_COLOR", "1")
                .arg("--bounding-set=-net_bind_service")
                .arg(portcullis);
        }
        let gateway = Gateway::start_program(folder, 2, command).await;
        assert_not_root(&gateway, uid, gid);
        if keeps {
            gateway.reconfigure(&text(port)).await;
            assert!(TcpStream::connect(("127.0.0.1", port)).await.is_ok());
            continue;
        }
        let log = gateway.reconfigure_in_vain(&text(port)).await;
        let why = format!("cannot listen on 127.0.0.1:{port}: Permission denied");
        assert!(
            log.contains(&why) && log.contains("CAP_NET_BIND_SERVICE was not there to be kept"),
            "{log}"
        );
        gateway.answers("/", 200, "in").await;
    }
}

#[test]
fn users_that_cannot_serve_are_refused_in_their_place() {
    for (user, problem) in [
        (
            "www-dat-portcullis",
            "there is no user `www-dat-portcullis`",
        ),
        ("nobdy", "did you mean `nobody`?"),
        ("root", "this user is root"),
        ("'nobody:nogroup'", "write {name: nobody, group: nogroup}"),
        (
            "{name: nobody, group: portcullis-none}",
            "there is no group `portcullis-none`",
        ),
        ("{group: nogroup}", "`name` is missing"),
        ("{nam: nobody}", "did you mean `name`?"),
        ("[nobody]", "expected a user's name, or a map"),
        ("''", "it may not be empty"),
    ] {
        let folder = folder();
        let text = format!(
            "user: {user}\nlisteners: [{{address: 127.0.0.1:0}}]\nroutes: [{{path: /*, respond: {{body: in}}}}]\n"
        );
        folder.write("gateway.yaml", &text);
        let output = run_to_end(&folder, &["check"], &[]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{user}: {said}");
        assert!(
            said.contains(problem) && said.contains("gateway.yaml:1:"),
            "{user}: {said}"
        );
    }
}

#[test]
fn who_is_not_root_becomes_nobody_else() {
    if !is_root() {
        return;
    }
    let folder = folder();
    let text = config(
        "user: daemon\nroutes: [{path: /*, respond: {body: in}}]\n",
        &[],
    );
    folder.write("gateway.yaml", text);
    let portcullis = program().get_program().to_owned();
    let as_nobody = |arguments: &[&str]| {
        let mut command = std::process::Command::new("setpriv");
        command.env("NO_COLOR", "1").current_dir(folder.path(""));
        command.args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"]);
        command.arg(&portcullis).args(arguments).output().unwrap()
    };
    let output = as_nobody(&["run"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let why = "only root can become `daemon:daemon`, and this process is not root";
    assert!(
        said.contains(why) && said.contains("gateway.yaml:"),
        "{said}"
    );
    // Whoever checks it need not be root.
    assert!(as_nobody(&["check"]).status.success());
}

#[tokio::test]
async fn who_is_that_user_already_serves() {
    if !is_root() {
        return;
    }
    let (name, uid, gid) = somebody();
    let folder = folder();
    let text = format!("user: {name}\nroutes: [{{path: /*, respond: {{body: in}}}}]\n");
    folder.write("gateway.yaml", config(&text, &[]));
    let portcullis = program().get_program().to_owned();
    let mut command = std::process::Command::new("setpriv");
    command.env("NO_COLOR", "1");
    command.args([
        &format!("--reuid={uid}"),
        &format!("--regid={gid}"),
        "--clear-groups",
    ]);
    command.arg("--no-new-privs").arg(&portcullis);
    let gateway = Gateway::start_program(folder, 1, command).await;
    gateway.answers("/", 200, "in").await;
    assert!(!gateway.stderr().contains("root is given up"));
    gateway
        .reconfigure(&config(&text.replace("in}", "on}"), &[]))
        .await;
    gateway.answers("/", 200, "on").await;
}

#[test]
fn what_requests_would_need_is_an_error_at_once() {
    if !is_root() {
        return;
    }
    let folder = folder();
    for name in ["site", "data", "spool"] {
        fs::create_dir(folder.path(name)).unwrap();
        chmod(&folder.path(name), 0o700);
    }
    folder.write("users.yaml", "{}\n");
    let text = format!("user: nobody\nlisteners: [{{address: 127.0.0.1:0}}]\n{SERVICE}");
    let text = text
        .replace("data/new", "data")
        .replace("spool/new", "spool");
    folder.write("gateway.yaml", text);
    for command in ["check", "run"] {
        let output = run_to_end(&folder, &[command], &[]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{said}");
        for problem in [
            "`nobody`, who serves, cannot enter `./site`",
            "chmod g+x ./site",
            "`nobody`, who serves, cannot write in `data`",
            "chown nobody:nogroup data && chmod u+rwx data",
            "`nobody`, who serves, cannot write in `spool`",
            "3 errors in gateway.yaml",
        ] {
            assert!(said.contains(problem), "{command}: {problem}: {said}");
        }
    }
}
