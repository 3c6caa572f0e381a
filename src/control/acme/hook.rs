//! The program that changes the DNS for dns-01, called as lego calls its `exec` programs: `present` and `cleanup`, a name
//! and a value. No shell, an environment of two variables, a bound in time; it ends with the gateway.

use std::path::Path;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;
use tokio::time::timeout;

use super::client::Failure;

/// How long it may take.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long its last words are waited for, once it has ended: what it started may hold the pipe.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// How much of its error output is kept, in bytes.
const KEPT: usize = 400;
/// The variables that it gets.
const VARIABLES: [&str; 2] = ["PATH", "HOME"];

/// Calls the hook.
///
/// # Errors
/// It cannot be started, takes too long, or fails; with its last words.
pub(super) async fn call(
    hook: &Path,
    action: &str,
    name: &str,
    value: &str,
) -> Result<(), Failure> {
    let failed = |why: String| Failure::own(format!("`{}` {action}: {why}", hook.display()));
    let mut command = Command::new(hook);
    command
        .args([action, name, value])
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // What it starts ends with it.
        .process_group(0)
        .kill_on_drop(true);
    for variable in VARIABLES {
        if let Some(set) = std::env::var_os(variable) {
            command.env(variable, set);
        }
    }
    let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
    let group = child.id().and_then(|id| i32::try_from(id).ok());
    let group = Group(group.and_then(Pid::from_raw));
    let mut said = Vec::new();
    let stderr = child.stderr.take();
    let ended = {
        let mut listening = pin!(listen(stderr, &mut said));
        let running = async {
            let (ended, silent) = tokio::select! {
                ended = child.wait() => (ended, false),
                () = &mut listening => (child.wait().await, true),
            };
            if !silent {
                drop(timeout(LAST_WORDS, listening).await);
            }
            ended
        };
        timeout(PATIENCE, running).await
    };
    drop(group);
    let words = words(&said);
    match ended {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(failed(format!("{}{words}", how(status)))),
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed(format!(
            "it did not end within {PATIENCE:.0?}{words}"
        ))),
    }
}

/// Kills a hook, and all that it started, when it is dropped.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0
            && let Err(error) = kill_process_group(group, Signal::KILL)
        {
            // Usually nobody is left.
            tracing::trace!(%error, "nothing of the hook is left");
        }
    }
}

/// Reads to the end, and keeps the last bytes.
async fn listen(stderr: Option<impl AsyncRead + Unpin>, said: &mut Vec<u8>) {
    let Some(mut stderr) = stderr else { return };
    let mut piece = [0; 1024];
    while let Ok(length @ 1..) = stderr.read(&mut piece).await {
        said.extend_from_slice(piece.get(..length).unwrap_or_default());
        let beyond = said.len().saturating_sub(KEPT);
        said.drain(..beyond);
    }
}

fn how(status: ExitStatus) -> String {
    match status.code() {
        Some(code) => format!("it ended with {code}"),
        None => "it was killed".to_owned(),
    }
}

/// Its last words on one line.
fn words(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let text = text.split(|letter: char| letter.is_control());
    let words: Vec<&str> = text.map(str::trim).filter(|it| !it.is_empty()).collect();
    if words.is_empty() {
        return String::new();
    }
    format!(": {}", words.join(" "))
}

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "what the hook started ends in real time"
)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn hook(folder: &Path, script: &str) -> std::path::PathBuf {
        let path = folder.join("hook");
        let beside = folder.join("hook.new");
        std::fs::write(
            &beside,
            format!("#!/bin/sh\ncd '{}'\n{script}\n", folder.display()),
        )
        .unwrap();
        std::fs::set_permissions(&beside, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(&beside, &path).unwrap();
        path
    }

    #[tokio::test]
    async fn it_gets_its_words_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let script = "printf '<%s>' \"$@\" > words; env > variables; cat > input";
        let path = hook(folder.path(), script);
        let value = "$(touch shell); `touch shell` & | > \"x\" '";
        call(&path, "present", "_acme-challenge.a.test.", value)
            .await
            .unwrap();
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(
            read("words"),
            format!("<present><_acme-challenge.a.test.><{value}>")
        );
        assert!(!folder.path().join("shell").exists());
        let variables = read("variables");
        let names: Vec<&str> = (variables.lines())
            .filter_map(|line| Some(line.split_once('=')?.0))
            // What the shell itself sets.
            .filter(|name| !["PWD", "OLDPWD", "SHLVL", "_"].contains(name))
            .collect();
        assert!(
            names.iter().all(|name| VARIABLES.contains(name)),
            "{names:?}"
        );
        assert_eq!(read("input"), "");
    }

    #[tokio::test]
    async fn a_failure_says_how_and_why() {
        let folder = tempfile::tempdir().unwrap();
        let why = |script: &'static str| {
            let path = hook(folder.path(), script);
            async move { call(&path, "present", "n.", "v").await.unwrap_err().text }
        };
        let said = why("echo no such zone >&2; exit 3").await;
        assert!(
            said.ends_with("present: it ended with 3: no such zone"),
            "{said}"
        );
        let said = why("kill -9 $$").await;
        assert!(said.ends_with("it was killed"), "{said}");
        let said = why("head -c 100000 /dev/zero | tr '\\0' x >&2; exit 1").await;
        assert!(said.len() < 600, "{said}");
        let none = folder.path().join("none");
        let said = call(&none, "present", "n.", "v").await.unwrap_err().text;
        assert!(said.contains("No such file"), "{said}");
    }

    #[tokio::test]
    async fn what_it_leaves_behind_holds_nothing_up_and_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = hook(folder.path(), "sleep 1000 & echo $! > pid; exit 0");
        let began = std::time::Instant::now();
        call(&path, "present", "n.", "v").await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(30));
        let pid = std::fs::read_to_string(folder.path().join("pid")).unwrap();
        let alive = format!("/proc/{}/stat", pid.trim());
        for _ in 0..500 {
            let stat = std::fs::read_to_string(&alive).unwrap_or_default();
            if stat.is_empty() || stat.contains(") Z ") {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it goes on");
    }
}
