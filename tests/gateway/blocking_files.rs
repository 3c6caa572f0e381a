//! Files that block whoever opens or reads them: `check` ends with a reason, requests are served on, later reloads
//! come, and signals are heard.

use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, mkfifoat};
use rustix::process::Signal;

use super::support::{DEADLINE, Folder, Gateway, config, run_to_end, within};

const ROUTE: &str = "routes: [{path: /*, respond: {status: 200, body: one}}]\n";

/// A pipe that nobody writes or reads.
fn pipe(folder: &Folder, name: &str) {
    std::fs::create_dir_all(folder.path(name).parent().unwrap()).unwrap();
    mkfifoat(CWD, folder.path(name), Mode::RUSR | Mode::WUSR).unwrap();
}

/// Runs `check` in the folder: exit code and standard error.
async fn check(folder: Folder) -> (Option<i32>, String) {
    let run = move || run_to_end(&folder, &["check"], &[]);
    let output = within(DEADLINE, tokio::task::spawn_blocking(run)).await;
    let output = output.expect("`check` ends").unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), said)
}

#[tokio::test]
async fn check_names_a_pipe_wherever_a_file_is_named() {
    let secret = "s".repeat(64);
    let jwt = |keys: &str| format!("jwt: {{a: {{{keys}}}}}\n");
    for text in [
        jwt("algorithms: [HS256], secret: '${file:pipe}'"),
        jwt("algorithms: [RS256], keys: [pipe]"),
        jwt("jwks: pipe"),
        jwt("jwks: 'https://sso.example.com/jwks', ca: pipe"),
        jwt(&format!("algorithms: [HS256], secret: {secret}, revoked: pipe")),
        "listeners: [{address: 127.0.0.1:0, tls: {certificates: [{cert: pipe, key: pipe}]}}]\n".to_owned(),
        "include: [pipe]\n".to_owned(),
        "include: ['conf.d/*.yaml']\n".to_owned(),
        "tokens: {keys: keys/, users: pipe}\nstate: data/\n".to_owned(),
        "tokens: {keys: signing/, users: users.yaml}\nstate: data/\n".to_owned(),
        "tokens: {keys: keys/, users: users.yaml}\nstate: {redis: 'rediss://127.0.0.1:1', ca: pipe}\n".to_owned(),
    ] {
        let folder = Folder::new();
        pipe(&folder, "pipe");
        pipe(&folder, "conf.d/a.yaml");
        pipe(&folder, "signing/a.json");
        folder.write("gateway.yaml", config(&format!("{text}{ROUTE}"), &[]));
        let (code, said) = check(folder).await;
        assert_eq!(code, Some(2), "{text}{said}");
        assert!(said.contains("gateway.yaml:"), "{text}{said}");
        assert!(said.contains("a pipe (FIFO), not a regular file"), "{text}{said}");
    }
    let folder = Folder::new();
    pipe(&folder, "gateway.yaml");
    let (code, said) = check(folder).await;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("a pipe (FIFO), not a regular file"), "{said}");
}

#[tokio::test]
async fn a_reload_to_a_pipe_is_refused_and_the_next_one_comes() {
    let folder = Folder::new();
    pipe(&folder, "pipe");
    pipe(&folder, "conf.d/a.yaml");
    let mut gateway = Gateway::start_in(folder, &config(ROUTE, &[])).await;
    for (number, text) in [
        "jwt: {a: {algorithms: [HS256], secret: '${file:pipe}'}}\n",
        "include: ['conf.d/*.yaml']\n",
    ]
    .into_iter()
    .enumerate()
    {
        let log = gateway
            .reconfigure_in_vain(&config(&format!("{text}{ROUTE}"), &[]))
            .await;
        assert!(log.contains("a pipe (FIFO)"), "{log}");
        let other = format!("number {number}");
        let next = ROUTE.replace("one", &other);
        gateway.reconfigure(&config(&next, &[])).await;
        gateway.answers("/", 200, &other).await;
    }
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.exit().await.code(), Some(0));
}

/// The access log waits for somebody who reads the pipe, as any file waits for a drive that is gone.
#[tokio::test]
async fn a_signal_ends_the_program_while_a_reload_waits() {
    let folder = Folder::new();
    pipe(&folder, "pipe");
    let mut gateway = Gateway::start_in(folder, &config(ROUTE, &[])).await;
    let next = format!("log: {{level: debug, access: {{to: pipe}}}}\n{ROUTE}");
    gateway.folder.write("gateway.yaml", next);
    gateway.signal(Signal::HUP);
    gateway.answers("/", 200, "one").await;
    let start = Instant::now();
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.exit().await.code(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(5));
    let seen = gateway.records().iter().any(|record| record["path"] == "/");
    assert!(seen, "no record is lost");
}

#[tokio::test]
async fn a_log_that_nobody_reads_holds_up_no_reload() {
    let folder = Folder::new();
    pipe(&folder, "pipe");
    let gateway = Gateway::start_in(folder, &config(ROUTE, &[])).await;
    let listeners = "workers: 2\nlisteners: [{address: 127.0.0.1:0}]\n";
    gateway
        .reconfigure(&format!(
            "{listeners}log: {{access: {{to: pipe}}}}\n{ROUTE}"
        ))
        .await;
    gateway.answers("/", 200, "one").await;
    gateway
        .reconfigure(&config(&ROUTE.replace("one", "two"), &[]))
        .await;
    gateway.answers("/", 200, "two").await;
}

#[tokio::test]
async fn what_the_shell_hands_over_is_read() {
    let folder = Folder::new();
    folder.write("good.yaml", config(ROUTE, &[]));
    let run = move |command: &'static str| {
        let program = env!("CARGO_BIN_EXE_portcullis");
        let output = std::process::Command::new("sh")
            .args(["-c", &command.replace("portcullis", program)])
            .current_dir(folder.path(""))
            .output()
            .unwrap();
        output.status.code()
    };
    for (command, code) in [
        ("cat good.yaml | portcullis check -c /dev/stdin", 0),
        ("portcullis check -c /dev/stdin < good.yaml", 0),
        (
            "sh -c 'sleep 0.2; cat good.yaml' | portcullis check -c /dev/fd/0",
            0,
        ),
        ("portcullis check -c /dev/zero", 2),
    ] {
        assert_eq!(run(command), Some(code), "{command}");
    }
}
