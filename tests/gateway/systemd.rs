//! What systemd is told by the real program, on sockets with a name and without one (sd_notify(3)).

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use super::support::{DEADLINE, Folder, Gateway, eventually};

const CONFIG: &str = "listeners: [{address: '127.0.0.1:0'}]
workers: 2
routes: [{path: /, respond: {body: hello}, auth: none}]
";

/// The next notification that is not the watchdog's.
fn heard(systemd: &UnixDatagram) -> String {
    loop {
        let mut room = [0; 1024];
        let count = systemd.recv(&mut room).expect("a notification");
        let text = String::from_utf8(room[..count].to_vec()).unwrap();
        if text != "WATCHDOG=1\n" {
            return text;
        }
    }
}

async fn start(socket: &str, watchdog: &str) -> Gateway {
    let folder = Folder::new();
    folder.write("gateway.yaml", CONFIG);
    let env = [("NOTIFY_SOCKET", socket), ("WATCHDOG_USEC", watchdog)];
    Gateway::start_as_it_is(folder, 1, &env).await
}

fn listening(address: &SocketAddr) -> UnixDatagram {
    let systemd = UnixDatagram::bind_addr(address).unwrap();
    systemd.set_read_timeout(Some(DEADLINE)).unwrap();
    systemd
}

#[tokio::test]
async fn each_state_is_told_and_each_reload_that_was_asked_for_ends() {
    let outside = Folder::new();
    let path = outside.path("notify");
    let name = format!("portcullis-test-{}", std::process::id());
    let addresses = [
        (
            path.to_str().unwrap().to_owned(),
            SocketAddr::from_pathname(&path).unwrap(),
        ),
        (
            format!("@{name}"),
            SocketAddr::from_abstract_name(&name).unwrap(),
        ),
    ];
    for (socket, address) in addresses {
        let systemd = listening(&address);
        let mut gateway = start(&socket, "").await;
        let ready = "READY=1\nSTATUS=Serving 1 route on 1 listener\n";
        assert_eq!(heard(&systemd), ready);

        gateway.signal(rustix::process::Signal::HUP);
        let began = heard(&systemd);
        assert!(began.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{began}");
        assert_eq!(heard(&systemd), ready);

        gateway
            .folder
            .write("gateway.yaml", "routes: [{path: /, answer: hello}]");
        eventually("the refusal", async || {
            gateway
                .stderr()
                .contains("configuration refused")
                .then_some(())
        })
        .await;
        gateway.signal(rustix::process::Signal::HUP);
        let mut after = vec![heard(&systemd)];
        while !after.iter().any(|it| it.starts_with("RELOADING=1")) {
            after.push(heard(&systemd));
        }
        assert_eq!(heard(&systemd), ready, "a refused reload ends, too");

        let more = CONFIG.replace(
            "routes: [",
            "routes: [{path: /b, respond: {body: b}, auth: none}, ",
        );
        gateway.folder.write("gateway.yaml", more);
        let saved = heard(&systemd);
        assert_eq!(
            saved,
            ready.replace("1 route ", "2 routes "),
            "nobody asked for that one"
        );

        gateway.signal(rustix::process::Signal::TERM);
        assert_eq!(heard(&systemd), "STOPPING=1\nSTATUS=Draining\n");
        assert!(gateway.exit().await.success());
    }
}

#[tokio::test]
async fn the_watchdog_hears_that_all_turn_and_a_full_queue_holds_nothing_up() {
    let outside = Folder::new();
    let path = outside.path("notify");
    let systemd = listening(&SocketAddr::from_pathname(&path).unwrap());
    let mut gateway = start(path.to_str().unwrap(), "200000").await;
    let mut room = [0; 1024];
    let mut beats = 0;
    while beats < 5 {
        let count = systemd.recv(&mut room).expect("a notification");
        beats += usize::from(&room[..count] == b"WATCHDOG=1\n");
    }
    // From here on systemd takes nothing: its queue is full after some more.
    tokio::time::sleep(Duration::from_secs(2)).await;
    for _ in 0..50 {
        gateway.signal(rustix::process::Signal::HUP);
        gateway.answers("/", 200, "hello").await;
    }
    gateway.signal(rustix::process::Signal::TERM);
    assert!(gateway.exit().await.success());
}
