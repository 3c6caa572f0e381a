//! Redis or Valkey: where the servers are, and connections to one server or to a cluster. What is kept there is for its
//! users to know.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::cluster::ClusterClientBuilder;
use redis::cluster_async::ClusterConnection;
use redis::io::AsyncDNSResolver;
use redis::{
    AsyncConnectionConfig, Cmd, ConnectionInfo, FromRedisValue, IntoConnectionInfo as _,
    RedisError, RedisFuture, RedisResult, ScriptInvocation, TlsCertificates,
};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::net::resolve::Names;

/// How long establishing a connection may take.
pub(crate) const CONNECTING: Duration = Duration::from_secs(2);
/// How long a client whose connection failed does not try again.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the response to one command may take.
pub(crate) const ANSWER: Duration = Duration::from_secs(1);
/// How long a command may take in total, where it is sent again.
pub(crate) const WHOLE: Duration = Duration::from_secs(3);
/// How often a command is sent again while a cluster has no node for it, and the shortest and the longest wait before
/// that, in milliseconds: together as long as an order may take. The library would wait at least 1.28 s, longer than
/// other gateways may take to hear of an end.
const RETRIES: u32 = 28;
const RETRY: (u64, u64) = (20, 200);

/// The addresses of the servers, and the credentials.
#[derive(Clone, Eq, PartialEq)]
pub(crate) struct Servers {
    /// `redis://HOST:PORT/DB`, `rediss://` with TLS; of a cluster, any of its nodes.
    pub(crate) urls: Vec<String>,
    /// The user name.
    pub(crate) username: Option<String>,
    /// The password.
    pub(crate) password: Option<String>,
    /// The trusted certificate authorities, in PEM, instead of the system's roots.
    pub(crate) ca: Option<Vec<u8>>,
}

impl fmt::Debug for Servers {
    /// The password is never printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, url) in self.urls.iter().enumerate() {
            let (scheme, rest) = url.split_once("://").unwrap_or(("redis", url));
            let (_, shown) = rest.rsplit_once('@').unwrap_or(("", rest));
            let between = if at == 0 { "" } else { ", " };
            write!(f, "{between}{scheme}://{shown}")?;
        }
        Ok(())
    }
}

impl Servers {
    /// Validates the settings.
    ///
    /// # Errors
    /// Which URL is invalid, and why.
    pub(crate) fn check(&self) -> Result<(), (usize, String)> {
        let secure = |url: &String| url.starts_with("rediss://");
        let first = self.urls.first().is_some_and(secure);
        if let Some(at) = self.urls.iter().position(|url| secure(url) != first) {
            return Err((at, "all of a cluster's nodes speak TLS, or none".to_owned()));
        }
        for (at, url) in self.urls.iter().enumerate() {
            let info = url.as_str().into_connection_info();
            info.map_err(|error| (at, error.to_string()))?;
        }
        Ok(())
    }

    fn infos(&self) -> RedisResult<Vec<ConnectionInfo>> {
        let info = |url: &String| {
            let info = url.as_str().into_connection_info()?;
            let mut settings = info.redis_settings().clone();
            if let Some(username) = &self.username {
                settings = settings.set_username(username);
            }
            if let Some(password) = &self.password {
                settings = settings.set_password(password);
            }
            Ok(info.set_redis_settings(settings))
        };
        self.urls.iter().map(info).collect()
    }

    /// The trusted roots for TLS; `None` without TLS.
    fn certificates(&self) -> Option<TlsCertificates> {
        let secure = self.urls.iter().any(|url| url.starts_with("rediss://"));
        secure.then(|| TlsCertificates {
            client_tls: None,
            root_cert: self.ca.clone(),
        })
    }
}

/// Resolves the servers' addresses for the library, including nodes that only the cluster announces.
#[derive(Clone, Debug)]
pub(crate) struct Addresses(Names);

impl Addresses {
    /// Through this resolver.
    pub(crate) fn new(names: Names) -> Self {
        Self(names)
    }
}

impl AsyncDNSResolver for Addresses {
    fn resolve<'a, 'b: 'a>(
        &'a self,
        host: &'b str,
        port: u16,
    ) -> RedisFuture<'a, Box<dyn Iterator<Item = SocketAddr> + Send + 'a>> {
        Box::pin(async move {
            let found = self.0.find(host).await.map_err(io::Error::other)?;
            let mut addresses = found.to_vec();
            for address in &mut addresses {
                address.set_port(port);
            }
            Ok(Box::new(addresses.into_iter()) as Box<dyn Iterator<Item = SocketAddr> + Send>)
        })
    }
}

/// A connection to one server, or to a cluster.
#[derive(Clone)]
pub(crate) enum Link {
    /// One server.
    One(MultiplexedConnection),
    /// A cluster.
    Cluster(ClusterConnection),
}

impl Link {
    /// Sends a command.
    ///
    /// # Errors
    /// It failed, or there is no response in time.
    pub(crate) async fn query<T: FromRedisValue>(&mut self, command: &Cmd) -> RedisResult<T> {
        match self {
            Self::One(link) => command.query_async(link).await,
            Self::Cluster(link) => command.query_async(link).await,
        }
    }

    /// Runs a script.
    ///
    /// # Errors
    /// It failed, or there is no response in time.
    pub(crate) async fn invoke<T: FromRedisValue>(
        &mut self,
        call: &ScriptInvocation<'_>,
    ) -> RedisResult<T> {
        match self {
            Self::One(link) => call.invoke_async(link).await,
            Self::Cluster(link) => call.invoke_async(link).await,
        }
    }

    /// Whether a failed order shows that the whole connection is unusable. The connection to a cluster repairs itself,
    /// and one lost node does not affect all of them.
    pub(crate) fn is_lost(&self, error: &RedisError) -> bool {
        matches!(self, Self::One(_)) && (error.is_io_error() || error.is_unrecoverable_error())
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Link")
    }
}

/// A working connection, and what the server says about itself.
///
/// # Errors
/// No server can be reached, or several are no cluster.
pub(crate) async fn connect(
    servers: &Servers,
    addresses: &Addresses,
) -> RedisResult<(Link, String)> {
    let infos = servers.infos()?;
    let settings = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECTING))
        .set_response_timeout(Some(ANSWER))
        .set_dns_resolver(addresses.clone());
    let mut failure = io("there is no server");
    let mut found = None;
    for info in &infos {
        let client = match servers.certificates() {
            Some(certificates) => redis::Client::build_with_tls(info.clone(), certificates)?,
            None => redis::Client::open(info.clone())?,
        };
        match client
            .get_multiplexed_async_connection_with_config(&settings)
            .await
        {
            Ok(link) => {
                found = Some(Link::One(link));
                break;
            }
            Err(error) => failure = error,
        }
    }
    let mut link = found.ok_or(failure)?;
    let about: String = link.query(&redis::cmd("INFO")).await?;
    if setting(&about, "cluster_enabled") == Some("1") {
        let mut cluster = ClusterClientBuilder::new(infos)
            .connection_timeout(CONNECTING)
            .response_timeout(ANSWER)
            .async_dns_resolver(addresses.clone())
            .retries(RETRIES)
            .min_retry_wait(RETRY.0)
            .max_retry_wait(RETRY.1);
        if let Some(certificates) = servers.certificates() {
            cluster = cluster.certs(certificates);
        }
        link = Link::Cluster(cluster.build()?.get_async_connection().await?);
    } else if infos.len() > 1 {
        // Each gateway would use whichever it reaches.
        return Err(io("several servers that are not a cluster"));
    }
    Ok((link, about))
}

/// A connection that is made when it is needed, and again after it was lost. Who uses it waits seconds at most.
pub(crate) struct Client {
    servers: Servers,
    addresses: Addresses,
    /// Held while connecting, so that all who need the connection wait for one attempt.
    linked: Mutex<Linked>,
    /// What the server said about itself at the first connection.
    about: OnceLock<String>,
}

/// The connection, or why there is none.
enum Linked {
    Not,
    Yes(Link),
    Failed(String, Instant),
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({})", self.servers)
    }
}

impl Client {
    /// A client of these servers, which does not connect yet.
    pub(crate) fn new(servers: &Servers, names: &Names) -> Self {
        Self {
            servers: servers.clone(),
            addresses: Addresses::new(names.clone()),
            linked: Mutex::new(Linked::Not),
            about: OnceLock::new(),
        }
    }

    /// Settings of the server with which it may lose `what` is kept there; none while it was never reached.
    pub(crate) fn dangers(&self, what: &str) -> Vec<String> {
        let about = self.about.get();
        about.map_or_else(Vec::new, |about| dangers(about, what))
    }

    /// Sends a command.
    ///
    /// # Errors
    /// Why there is no response, with the servers.
    pub(crate) async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, String> {
        let mut link = self.link().await?;
        let outcome = timeout(WHOLE, link.query(command)).await;
        self.heard(&link, outcome.unwrap_or_else(|_| Err(late())))
            .await
    }

    /// Runs a script.
    ///
    /// # Errors
    /// Why there is no response, with the servers.
    pub(crate) async fn invoke<T: FromRedisValue>(
        &self,
        call: &ScriptInvocation<'_>,
    ) -> Result<T, String> {
        let mut link = self.link().await?;
        let outcome = timeout(WHOLE, link.invoke(call)).await;
        self.heard(&link, outcome.unwrap_or_else(|_| Err(late())))
            .await
    }

    async fn link(&self) -> Result<Link, String> {
        let mut linked = self.linked.lock().await;
        match &*linked {
            Linked::Yes(link) => return Ok(link.clone()),
            Linked::Failed(why, at) if at.elapsed() < PAUSE => return Err(why.clone()),
            Linked::Failed(..) | Linked::Not => {}
        }
        let connecting = connect(&self.servers, &self.addresses);
        let why = match timeout(CONNECTING * 2, connecting).await {
            Ok(Ok((link, about))) => {
                self.about.get_or_init(|| about);
                *linked = Linked::Yes(link.clone());
                return Ok(link);
            }
            Ok(Err(error)) => self.down(&error.to_string()),
            Err(_) => self.down("no connection in time"),
        };
        *linked = Linked::Failed(why.clone(), Instant::now());
        Err(why)
    }

    async fn heard<T>(&self, link: &Link, outcome: RedisResult<T>) -> Result<T, String> {
        match outcome {
            Ok(answer) => Ok(answer),
            Err(error) => {
                if link.is_lost(&error) {
                    *self.linked.lock().await = Linked::Not;
                }
                Err(self.down(&error.to_string()))
            }
        }
    }

    fn down(&self, why: &str) -> String {
        format!("{}: {why}", self.servers)
    }
}

/// An error of the connection.
pub(crate) fn io(what: &'static str) -> RedisError {
    RedisError::from((redis::ErrorKind::Io, what))
}

fn late() -> RedisError {
    io("no response in time")
}

/// Settings of a server, as it tells them in `INFO`, with which it may lose `what` is kept there.
pub(crate) fn dangers(about: &str, what: &str) -> Vec<String> {
    let mut found = Vec::new();
    if setting(about, "aof_enabled") == Some("0") {
        found.push(format!(
            "the server keeps no append-only file: a restart of it forgets {what}; \
             set `appendonly yes`, and `appendfsync always`"
        ));
    }
    let policy = setting(about, "maxmemory_policy").unwrap_or("noeviction");
    if setting(about, "maxmemory") != Some("0") && policy != "noeviction" {
        found.push(format!(
            "the server throws away keys when its memory is full (maxmemory-policy {policy}), {what} among them; \
             set `maxmemory-policy noeviction`"
        ));
    }
    found
}

/// A line of `INFO`.
fn setting<'a>(about: &'a str, name: &str) -> Option<&'a str> {
    about.lines().find_map(|line| {
        let (known, value) = line.trim_end().split_once(':')?;
        (known == name).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown_and_urls_are_looked_at() {
        let servers = |url: &str| Servers {
            urls: vec![url.to_owned()],
            username: None,
            password: Some("hunter2".to_owned()),
            ca: None,
        };
        let good = servers("redis://127.0.0.1:6379/2");
        assert!(good.check().is_ok());
        assert!(!format!("{good:?} {good}").contains("hunter2"));
        let infos = good.infos().unwrap();
        assert_eq!(infos[0].redis_settings().password(), Some("hunter2"));
        assert!(servers("rediss://h").check().is_ok());
        let with_password = servers("redis://me:s3cret@h:1/2");
        assert!(with_password.check().is_ok());
        assert_eq!(with_password.to_string(), "redis://h:1/2");
        for bad in ["redis://", "http://h", "redis://h:x", "redis://h/x"] {
            assert!(servers(bad).check().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_server_that_forgets_is_told_of() {
        let safe =
            "# Persistence\r\naof_enabled:1\r\nmaxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\n";
        assert!(dangers(safe, "sessions").is_empty());
        let forgets = "aof_enabled:0\r\nmaxmemory:1000\r\nmaxmemory_policy:allkeys-lru\r\n";
        let [restart, full] = dangers(forgets, "sessions").try_into().unwrap();
        assert!(restart.contains("forgets sessions; set `appendonly yes`"));
        assert!(full.contains("allkeys-lru), sessions among them"));
    }
}
