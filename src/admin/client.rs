//! The prompt's side of the control socket: finds the gateway that runs with a configuration, and asks it.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::listen::{absolute, default_socket};
use crate::config;

/// Where the packaged unit has its socket.
const PACKAGED: &str = "/run/portcullis/control.sock";
/// How long an answer may take; a reload has a minute.
const PATIENCE: Duration = Duration::from_secs(90);
/// The longest answer.
const LONGEST: u64 = 64 << 20;

/// A gateway that runs.
#[derive(Debug)]
pub(crate) struct Client {
    socket: PathBuf,
    status: Value,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
    /// No gateway runs with this configuration.
    #[error("no gateway runs for `{0}`{1}")]
    NotRunning(PathBuf, String),
    /// The gateway has gone meanwhile, or something else listens there.
    #[error("the gateway at `{0}` does not answer: {1}")]
    Broken(PathBuf, io::Error),
}

/// An answer: its status and its body.
#[derive(Debug)]
pub(crate) struct Answered {
    /// The status.
    pub(crate) status: u16,
    /// The body.
    pub(crate) body: Vec<u8>,
}

impl Answered {
    /// The body as JSON; null where it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// What an error says.
    pub(crate) fn error(&self) -> String {
        let said = self.json();
        let said = said.get("error").and_then(Value::as_str);
        said.map_or_else(|| format!("status {}", self.status), str::to_owned)
    }
}

impl Client {
    /// The gateway that runs with this configuration. Another gateway's socket is passed over.
    ///
    /// # Errors
    /// There is none, or none that this user may ask.
    pub(crate) fn find(config: &Path) -> Result<Self, NoAnswer> {
        let wanted = absolute(config);
        let places = [
            config::control_socket_of(config),
            default_socket(config),
            Some(PathBuf::from(PACKAGED)),
        ];
        let mut hint = String::new();
        for socket in places.into_iter().flatten() {
            let mut client = Self {
                socket,
                status: Value::Null,
            };
            match client.ask("GET", "/status", b"") {
                Ok(answered) => client.status = answered.json(),
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(error) => {
                    hint = format!("; `{}`: {error}", client.socket.display());
                    continue;
                }
            }
            let theirs = client.status.get("config").and_then(Value::as_str);
            if theirs.is_some_and(|theirs| Path::new(theirs) == wanted) {
                return Ok(client);
            }
            let theirs = theirs.unwrap_or("something else");
            hint = format!(
                "; the one at `{}` runs with `{theirs}`",
                client.socket.display()
            );
        }
        Err(NoAnswer::NotRunning(config.to_owned(), hint))
    }

    /// What it has said of itself.
    pub(crate) fn status(&self) -> &Value {
        &self.status
    }

    /// Asks it for something.
    ///
    /// # Errors
    /// It does not answer.
    pub(crate) fn request(
        &self,
        method: &str,
        path: &str,
        body: &[u8],
    ) -> Result<Answered, NoAnswer> {
        let asked = self.ask(method, path, body);
        asked.map_err(|error| NoAnswer::Broken(self.socket.clone(), error))
    }

    fn ask(&self, method: &str, path: &str, body: &[u8]) -> io::Result<Answered> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        stream.write_all(&[head.as_bytes(), body].concat())?;
        let mut answer = Vec::new();
        stream.take(LONGEST).read_to_end(&mut answer)?;
        parse(&answer).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// Takes an answer apart whose length is announced, and whose connection is closed after it.
fn parse(answer: &[u8]) -> Option<Answered> {
    let end = memchr::memmem::find(answer, b"\r\n\r\n")?;
    let (head, body) = answer.split_at_checked(end)?;
    let body = body.get(4..)?;
    let head = str::from_utf8(head).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.1 ")?;
    let status = status.split(' ').next()?.parse().ok()?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse::<usize>().ok())?
    })?;
    // One that broke off is none.
    (body.len() == length).then(|| Answered {
        status,
        body: body.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_or_none() {
        let whole = b"HTTP/1.1 422 Unprocessable Entity\r\nContent-Type: application/json\r\ncontent-length: 16\r\n\r\n{\"error\": \"no\"}\n";
        let answered = parse(whole).unwrap();
        assert_eq!((answered.status, answered.error()), (422, "no".to_owned()));
        for cut in 0..whole.len() {
            assert!(parse(&whole[..cut]).is_none(), "{cut}");
        }
        assert!(parse(b"HTTP/1.1 200 OK\r\n\r\n").is_none());
    }
}
