//! The sockets that clients come to: the mode and group of Unix sockets, those that systemd passes, the port of redirects.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use tokio::net::UnixStream;

use super::support::{Folder, Gateway, Wire, config, eventually, run_to_end};

/// A group of this system that this process may give files to: its name and id.
fn group() -> (String, u32) {
    let own = rustix::process::getegid().as_raw();
    let is_root = rustix::process::geteuid().is_root();
    let text = fs::read_to_string("/etc/group").unwrap();
    let groups = text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        Some((name, fields.nth(1)?.parse::<u32>().ok()?))
    });
    let mut usable = groups.filter(|(_, id)| if is_root { *id != own } else { *id == own });
    usable.next().expect("a group")
}

/// The mode and the group of a file.
fn permissions(path: &Path) -> (u32, u32) {
    let file = fs::symlink_metadata(path).unwrap();
    (file.mode() & 0o7777, file.gid())
}

/// A gateway with a TCP listener, and Unix sockets of these settings.
async fn start(sockets: &[(&str, &str)]) -> Gateway {
    let folder = Folder::new();
    folder.write("gateway.yaml", text(sockets));
    Gateway::start_as_it_is(folder, 1, &[]).await
}

fn text(sockets: &[(&str, &str)]) -> String {
    let mut listeners = "listeners:\n  - {address: 127.0.0.1:0}\n".to_owned();
    for (name, settings) in sockets {
        listeners += &format!("  - {{address: 'unix:{name}.sock'{settings}}}\n");
    }
    config(
        &format!("{listeners}routes: [{{path: /*, respond: {{body: in}}}}]\n"),
        &[],
    )
}

#[tokio::test]
async fn a_unix_socket_is_its_owners_alone_unless_it_says_otherwise() {
    let own = rustix::process::getegid().as_raw();
    let (name, id) = group();
    let with_group = format!(", mode: '0660', group: {name}");
    let gateway = start(&[
        ("default", ""),
        ("mode", ", mode: '0666'"),
        ("group", &with_group),
    ])
    .await;
    let path = |name: &str| gateway.folder.path(&format!("{name}.sock"));
    for (name, expected) in [
        ("default", (0o600, own)),
        ("mode", (0o666, own)),
        ("group", (0o660, id)),
    ] {
        let stream = eventually("the socket", async || {
            UnixStream::connect(path(name)).await.ok()
        });
        assert_eq!(Wire::over(stream.await).get("/", &[]).await.text(), "in");
        assert_eq!(permissions(&path(name)), expected, "{name}");
    }
}

#[tokio::test]
async fn a_reload_changes_who_may_connect_and_keeps_the_socket() {
    let own = rustix::process::getegid().as_raw();
    let (name, id) = group();
    let gateway = start(&[("a", "")]).await;
    let path = gateway.folder.path("a.sock");
    let before = fs::symlink_metadata(&path).unwrap().ino();
    let stream = UnixStream::connect(&path).await.unwrap();
    let mut held = Wire::over(stream);
    for (settings, expected) in [
        (format!(", mode: '0660', group: {name}"), (0o660, id)),
        (", mode: '0606'".to_owned(), (0o606, own)),
        (String::new(), (0o600, own)),
    ] {
        gateway.reconfigure(&text(&[("a", &settings)])).await;
        assert_eq!(permissions(&path), expected, "{settings}");
        assert_eq!(fs::symlink_metadata(&path).unwrap().ino(), before);
        assert_eq!(held.get("/", &[]).await.text(), "in");
    }
    let log = gateway.stderr();
    assert!(
        log.contains(&format!(
            "plain, mode 0600 -> plain, mode 0660, group {name}"
        )),
        "{log}"
    );

    // A file in its place is not touched, and the reload that would is refused as a whole.
    fs::remove_file(&path).unwrap();
    fs::write(&path, "text").unwrap();
    let log = gateway
        .reconfigure_in_vain(&text(&[("a", ", mode: '0666'"), ("b", "")]))
        .await;
    assert!(log.contains("another file has taken its place"), "{log}");
    assert_eq!(permissions(&path).0 & 0o022, 0);
    assert!(!gateway.folder.path("b.sock").exists());
}

#[test]
fn settings_that_cannot_hold_are_refused_in_their_place() {
    for (listener, problem) in [
        (
            "{address: 127.0.0.1:0, mode: '0660'}",
            "`mode` is for Unix sockets",
        ),
        (
            "{address: 127.0.0.1:0, group: root}",
            "`group` is for Unix sockets",
        ),
        (
            "{address: 'unix:a.sock', mode: 0660}",
            "write \"0660\", in quotes",
        ),
        (
            "{address: 'unix:a.sock', mode: '0680'}",
            "expected an octal mode in quotes",
        ),
        (
            "{address: 'unix:a.sock', mode: '1660'}",
            "expected an octal mode in quotes",
        ),
        (
            "{address: 'unix:a.sock', mode: rw-rw----}",
            "expected an octal mode in quotes",
        ),
        (
            "{address: 'unix:a.sock', mode: '0440'}",
            "nobody could connect",
        ),
        (
            "{address: 'unix:a.sock', group: portcullis-nobody}",
            "there is no group `portcullis-nobody`",
        ),
        (
            "{address: 'unix:a.sock', group: rooot}",
            "did you mean `root`?",
        ),
    ] {
        let folder = Folder::new();
        let text =
            format!("listeners: [{listener}]\nroutes: [{{path: /*, respond: {{body: in}}}}]\n");
        folder.write("gateway.yaml", &text);
        let output = run_to_end(&folder, &["check"], &[]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{listener}");
        assert!(
            said.contains(problem) && said.contains("gateway.yaml:1:"),
            "{listener}: {said}"
        );
    }
    let folder = Folder::new();
    let text = "listeners: [{address: 'unix:a.sock', mode: '0666', proxy_protocol: true}]
routes: [{path: /*, respond: {body: in}}]
";
    folder.write("gateway.yaml", text);
    let output = run_to_end(&folder, &["check"], &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("gateway.yaml:1:44: every user of this machine may connect here"),
        "{said}"
    );
    assert!(output.status.success());
}

#[tokio::test]
async fn a_redirect_may_name_the_port_that_clients_see() {
    let text = "listeners: [{address: 127.0.0.1:0, redirect_to_https: 443}, {address: 127.0.0.1:0, redirect_to_https: 8443}]
routes: [{path: /*, respond: {body: in}}]
";
    let gateway = Gateway::start(&config(text, &[])).await;
    let to = ["https://a.test/x?y", "https://a.test:8443/x?y"];
    for (address, to) in gateway.addresses().into_iter().zip(to) {
        let reply = Wire::connect(address)
            .await
            .get("/x?y", &[("Host", "a.test")])
            .await;
        assert_eq!((reply.status, reply.field("location")), (308, Some(to)));
    }
}

#[tokio::test]
async fn what_systemd_did_not_pass_is_not_served() {
    let text = config(
        "listeners: [{socket_activation: web, redirect_to_https: 443}]\nroutes: [{path: /*, respond: {body: in}}]\n",
        &[],
    );
    let folder = Folder::new();
    folder.write("gateway.yaml", &text);
    // `check` needs no systemd.
    assert!(run_to_end(&folder, &["check"], &[]).status.success());
    // Those of another process are not ours.
    for env in [
        &[][..],
        &[
            ("LISTEN_PID", "1"),
            ("LISTEN_FDS", "1"),
            ("LISTEN_FDNAMES", "web"),
        ],
    ] {
        let output = run_to_end(&folder, &["run"], env);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        let why = "cannot listen on the systemd socket `web`: systemd passed no sockets";
        assert!(said.contains(why), "{said}");
    }
    let gateway = start(&[]).await;
    let log = gateway.reconfigure_in_vain(&text).await;
    assert!(
        log.contains("the systemd socket `web`: systemd passed no sockets"),
        "{log}"
    );
}
