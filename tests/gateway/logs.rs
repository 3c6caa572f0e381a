//! Logs that cannot be written: requests, reloads and the end go on, and the operator is told what was lost.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};

use super::support::{
    Folder, Gateway, config, eventually, free_port, get, local, program, run_to_end,
};

/// Many routes, so that a reload that adds them says more than a pipe holds.
fn many(word: &str, count: usize) -> String {
    let route = |n| format!("  - {{path: /{word}/{n}, respond: {{body: x}}}}\n");
    (0..count).map(route).collect()
}

#[tokio::test]
async fn a_reader_of_the_log_that_hangs_stops_neither_requests_nor_reloads_nor_the_end() {
    let dead = free_port().to_string();
    let text = |body: &str, more: &str| {
        let values = [("body", body), ("more", more), ("dead", &dead)];
        let text = "workers: 1
log: {access: off}
routes:
  - {path: /ping, respond: {body: '@body'}}
  - {path: /app, proxy: 'http://127.0.0.1:@dead', auth: none}
@more";
        config(text, &values)
    };
    let folder = Folder::new();
    folder.write("gateway.yaml", text("first", ""));
    let mut child = program()
        .args(["run", "-c"])
        .arg(folder.path("gateway.yaml"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut address = None;
    while address.is_none() {
        let mut line = String::new();
        log.read_line(&mut line).unwrap();
        address = line.split_once("listening address=").and_then(|(_, rest)| {
            rest.split_whitespace()
                .next()?
                .trim_matches('"')
                .parse()
                .ok()
        });
    }
    let address = address.unwrap();

    // From here on nobody reads. The report of this reload is larger than the pipe.
    folder.write("gateway.yaml", text("second", &many("a", 3_000)));
    eventually("the second configuration", async || {
        let reply = get(address, "/ping", &[]).await;
        (reply.text() == "second").then_some(())
    })
    .await;
    folder.write("gateway.yaml", text("third", &many("b", 3_000)));
    eventually("the third configuration", async || {
        let reply = get(address, "/ping", &[]).await;
        (reply.text() == "third").then_some(())
    })
    .await;
    // The worker has something to say, too.
    for _ in 0..3 {
        assert_eq!(get(address, "/app", &[]).await.status, 502);
        assert_eq!(get(address, "/ping", &[]).await.text(), "third");
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let end = eventually("the end of the program", async || child.try_wait().unwrap()).await;
    assert_eq!(end.code(), Some(0));
    let mut rest = String::new();
    log.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("/a/1"), "{}", rest.len());
}

#[tokio::test]
async fn an_access_log_that_nobody_reads_does_not_hold_up_the_end() {
    let folder = Folder::new();
    let port = free_port();
    let text = "workers: 1
listeners: [{address: '127.0.0.1:@port'}]
routes: [{path: /*, respond: {body: pong}}]
";
    let config = config(text, &[("port", &port.to_string())]);
    folder.write("gateway.yaml", config);
    let mut child = program()
        .args(["run", "-c"])
        .arg(folder.path("gateway.yaml"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _unread = child.stdout.take();
    eventually("the listener", async || {
        std::net::TcpStream::connect(local(port)).ok()
    })
    .await;
    let long = format!("/{}", "x".repeat(6_000));
    for _ in 0..30 {
        assert_eq!(get(local(port), &long, &[]).await.status, 200);
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let end = eventually("the end of the program", async || child.try_wait().unwrap()).await;
    assert_eq!(end.code(), Some(0));
}

fn lines_of(gateway: &Gateway, word: &str) -> usize {
    let log = gateway.stderr();
    log.lines().filter(|line| line.contains(word)).count()
}

#[tokio::test]
async fn an_access_log_that_cannot_be_written_is_told_once_with_the_count() {
    let text = "log: {access: {to: '@to', format: json}}
routes: [{path: /*, respond: {body: pong}}]
";
    let gateway = Gateway::start(&config(text, &[("to", "/dev/full")])).await;
    for _ in 0..3 {
        gateway.get("/", &[]).await;
    }
    let told = "the access log cannot be written";
    eventually("the complaint", async || {
        let log = gateway.stderr();
        let line = log.lines().find(|line| line.contains(told))?;
        assert!(line.contains("No space left on device"), "{line}");
        assert!(line.contains("lost="), "{line}");
        assert!(line.contains("to=/dev/full"), "{line}");
        Some(())
    })
    .await;
    for _ in 0..5 {
        gateway.get("/", &[]).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert_eq!(lines_of(&gateway, told), 1);

    // A directory that took the file's place: what was open goes on.
    let folder = Folder::new();
    fs::create_dir(folder.path("logs")).unwrap();
    let to = folder.path("logs/a.log");
    let gateway = Gateway::start_in(folder, &config(text, &[("to", to.to_str().unwrap())])).await;
    gateway.get("/first", &[]).await;
    eventually("the first record", async || {
        fs::read_to_string(&to)
            .ok()
            .filter(|text| text.contains("/first"))
    })
    .await;
    fs::rename(&to, to.with_extension("1")).unwrap();
    fs::create_dir(&to).unwrap();
    gateway.get("/second", &[]).await;
    eventually("the complaint", async || {
        let log = gateway.stderr();
        let line = log.lines().find(|line| line.contains(told))?;
        assert!(line.contains("Is a directory"), "{line}");
        Some(())
    })
    .await;
    let moved = fs::read_to_string(to.with_extension("1")).unwrap();
    assert!(moved.contains("/second"), "{moved}");
    fs::remove_dir(&to).unwrap();
    gateway.get("/third", &[]).await;
    eventually("the third record", async || {
        fs::read_to_string(&to)
            .ok()
            .filter(|text| text.contains("/third"))
    })
    .await;
    eventually("the good word", async || {
        (lines_of(&gateway, "the access log is written again") == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_access_log_in_a_fifo_waits_for_its_reader_without_holding_anything_up() {
    let folder = Folder::new();
    let fifo = folder.path("access");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let text = "log: {access: {to: '@to', format: json}}
routes: [{path: /*, respond: {body: pong}}]
";
    let start = Instant::now();
    let mut gateway =
        Gateway::start_in(folder, &config(text, &[("to", fifo.to_str().unwrap())])).await;
    gateway.get("/lost", &[]).await;
    eventually("the complaint", async || {
        (lines_of(&gateway, "nobody reads this FIFO") == 1).then_some(())
    })
    .await;
    let reader = std::thread::spawn({
        let fifo = fifo.clone();
        move || {
            let mut line = String::new();
            let mut pipe = BufReader::new(fs::File::open(fifo).unwrap());
            pipe.read_line(&mut line).unwrap();
            (line, pipe)
        }
    });
    eventually("a record that is read", async || {
        gateway.get("/read", &[]).await;
        reader.is_finished().then_some(())
    })
    .await;
    let (line, _unread) = reader.join().unwrap();
    assert!(line.contains("/read"), "{line}");
    // The reader stands still now: the pipe fills, and the writer waits.
    let long = format!("/{}", "x".repeat(6_000));
    for _ in 0..30 {
        assert_eq!(gateway.get(&long, &[]).await.status, 200);
    }
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.exit().await.code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(30));
}

#[test]
fn who_only_looks_at_a_configuration_leaves_its_log_alone() {
    let folder = Folder::new();
    let text = "log: {access: {to: access.log}}
routes: [{path: /*, respond: {body: x}}]
tests: [{request: GET /, expect: {status: 200}}]
";
    folder.write("gateway.yaml", config(text, &[]));
    for arguments in [
        &["check"][..],
        &["check", "--print"],
        &["explain", "/"],
        &["test"],
    ] {
        let output = run_to_end(&folder, arguments, &[]);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        assert!(!folder.path("access.log").exists(), "{arguments:?}");
    }
}
