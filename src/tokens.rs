//! `TokenService`: username and password buy an access token and a refresh token, in simplejwt's wire
//! format; refreshing, checking and taking back. How requests get here and who may see which route
//! is not decided here.

mod hashing;
mod keys;
mod password;
mod store;
mod throttle;
mod users;
mod wire;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, header};
use serde_json::{Map, Value, json};

use self::hashing::{Checked, Hashing, Unchecked};
pub(crate) use self::keys::{KeyRing, NewKey, RingKey, write_private};
use self::password::Verdict;
pub(crate) use self::password::hash as hash_password;
use self::store::{Ended, Family, Refresh, Refreshed, Store, StoreDown};
pub(crate) use self::throttle::Rate;
use self::throttle::Throttle;
pub(crate) use self::users::{User, Users, alone};
use self::wire::Answer;
use crate::auth::{Algorithm, Claims, LiveRevoked, Verifier};
use crate::body::Body;
use crate::reject::TokenFault;

/// How many bytes a request to an endpoint may have.
pub(crate) const BODY_BYTES: usize = 64 * 1024;

/// One of the endpoints.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Endpoint {
    /// Username and password for tokens.
    Obtain,
    /// A refresh token for an access token.
    Refresh,
    /// Whether a token is good.
    Verify,
    /// Ends a family.
    Blacklist,
    /// The same as RFC 7009 has it.
    Revoke,
    /// The published keys.
    Keys,
}

impl Endpoint {
    /// All of them with what follows the path of the service; the keys have a path of their own.
    pub(crate) const ALL: [(Self, &'static str); 5] = [
        (Self::Obtain, "/"),
        (Self::Refresh, "/refresh/"),
        (Self::Verify, "/verify/"),
        (Self::Blacklist, "/blacklist/"),
        (Self::Revoke, "/revoke/"),
    ];

    /// The name in logs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Obtain => "tokens obtain",
            Self::Refresh => "tokens refresh",
            Self::Verify => "tokens verify",
            Self::Blacklist => "tokens blacklist",
            Self::Revoke => "tokens revoke",
            Self::Keys => "tokens keys",
        }
    }
}

/// A claim of the tokens that are issued.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Issued {
    /// This value.
    Fixed(Value),
    /// The user's name.
    Name,
    /// What `users.yaml` says of the user under this name.
    OfUser(String),
}

/// What the service is made of; an equal one goes on over a reload.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TokenSettings {
    /// `iss` of its tokens.
    pub(crate) issuer: Option<String>,
    /// What it signs with.
    pub(crate) algorithm: Algorithm,
    /// The folder of its keys.
    pub(crate) keys: PathBuf,
    /// The file of its users.
    pub(crate) users: PathBuf,
    /// How long an access token lives.
    pub(crate) access_lifetime: Duration,
    /// How long a refresh token lives.
    pub(crate) refresh_lifetime: Duration,
    /// Whether a refresh token is good once.
    pub(crate) rotate_refresh: bool,
    /// How long a spent one gets its successor once more.
    pub(crate) refresh_grace: Duration,
    /// How long a new key is published before it signs.
    pub(crate) rotate_keys_after: Duration,
    /// Claims beside the service's own.
    pub(crate) claims: Vec<(String, Issued)>,
    /// Tries of one address.
    pub(crate) per_ip: Option<Rate>,
    /// Tries of one user.
    pub(crate) per_user: Option<Rate>,
}

/// What goes on over reloads, whatever else changes.
#[derive(Debug)]
pub(crate) struct TokenState {
    store: Store,
    hashing: Hashing,
}

impl TokenState {
    /// Opens the store, and tells the workers what had ended.
    ///
    /// # Errors
    /// Why it cannot be opened.
    pub(crate) fn open(folder: &Path, revoked: &LiveRevoked) -> Result<Self, String> {
        let store = Store::open(folder)?;
        let Ended { families, subjects } = store.ended();
        for (family, at) in families {
            revoked.family(family, *at);
        }
        for (sub, before) in subjects {
            revoked.subject(sub, *before);
        }
        let hashing = Hashing::start().map_err(|error| error.to_string())?;
        Ok(Self { store, hashing })
    }
}

/// Issues, renews and takes back tokens.
#[derive(Debug)]
pub(crate) struct TokenService {
    settings: TokenSettings,
    /// Where the store is, and what of it is revoked.
    folder: PathBuf,
    revoked: Arc<LiveRevoked>,
    /// Where it is open.
    state: OnceLock<Arc<TokenState>>,
    ring: KeyRing,
    users: Users,
    /// The users' file, as it was read.
    users_file: Arc<Vec<u8>>,
    throttle: Throttle,
    /// Tells access tokens of this service from others.
    access: Arc<Verifier>,
    /// The same for refresh tokens.
    refresh: Arc<Verifier>,
}

/// One request to an endpoint.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    /// Which one.
    pub(crate) endpoint: Endpoint,
    /// Its method.
    pub(crate) method: &'a Method,
    /// Its headers.
    pub(crate) headers: &'a HeaderMap,
    /// All of its body.
    pub(crate) body: Bytes,
    /// Whose address it comes from.
    pub(crate) client: Option<IpAddr>,
    /// The time.
    pub(crate) now: SystemTime,
}

impl TokenService {
    /// A service; what it remembers of tries goes over from the one before.
    pub(crate) fn new(
        settings: TokenSettings,
        (folder, revoked): (PathBuf, Arc<LiveRevoked>),
        ring: KeyRing,
        (users, users_file): (Users, Vec<u8>),
        (access, refresh): (Arc<Verifier>, Arc<Verifier>),
        before: Option<&Self>,
    ) -> Self {
        let same = before.filter(|before| {
            before.settings.per_ip == settings.per_ip
                && before.settings.per_user == settings.per_user
        });
        let throttle = same.map_or_else(
            || Throttle::new(settings.per_ip, settings.per_user),
            |before| before.throttle.clone(),
        );
        let state = OnceLock::new();
        if let Some(open) = before
            .filter(|before| before.folder == folder)
            .and_then(Self::state)
        {
            // It was empty a line ago.
            drop(state.set(Arc::clone(open)));
        }
        Self {
            settings,
            folder,
            revoked,
            state,
            ring,
            users,
            users_file: Arc::new(users_file),
            throttle,
            access,
            refresh,
        }
    }

    /// What goes on over reloads; `None` until the service was started.
    pub(crate) fn state(&self) -> Option<&Arc<TokenState>> {
        self.state.get()
    }

    /// What is revoked, and in which folder that is written down.
    pub(crate) fn revoked(&self) -> (&Path, &Arc<LiveRevoked>) {
        (&self.folder, &self.revoked)
    }

    /// Opens the store, where it is not open yet.
    ///
    /// # Errors
    /// Why it cannot be opened.
    pub(crate) fn start(&self) -> Result<(), String> {
        if self.state.get().is_none() {
            let state = TokenState::open(&self.folder, &self.revoked)?;
            // Nobody else starts it.
            drop(self.state.set(Arc::new(state)));
        }
        Ok(())
    }

    /// The key that has to be made before this service can issue tokens, if any: its first, or the
    /// first of its algorithm, which signs once it has been published long enough.
    ///
    /// # Errors
    /// Where the system has no random numbers.
    pub(crate) fn missing_key(&self, now: SystemTime) -> Result<Option<NewKey>, String> {
        if self.ring.has(self.settings.algorithm) {
            return Ok(None);
        }
        let now = millis(now) / 1000;
        let lead = match self.ring.keys() {
            [] => 0,
            _ => self.settings.rotate_keys_after.as_secs(),
        };
        NewKey::make(self.settings.algorithm, now, now + lead).map(Some)
    }

    /// Deletes the files of keys that signed nothing that can still be good, and forgets what has
    /// expired.
    pub(crate) async fn clean(&self, now: SystemTime) {
        let Some(state) = self.state() else { return };
        let longest = self
            .settings
            .refresh_lifetime
            .max(self.settings.access_lifetime);
        for key in self.ring.retired(millis(now) / 1000, longest.as_secs()) {
            let path = self.settings.keys.join(format!("{}.json", key.key.kid()));
            match std::fs::remove_file(&path) {
                Ok(()) => tracing::info!(kid = key.key.kid(), "signing key retired"),
                Err(error) => tracing::warn!(path = %path.display(), %error, "a retired key stays"),
            }
        }
        let access = as_millis(self.settings.access_lifetime);
        self.revoked
            .forget(millis(now).saturating_sub(access + 60_000));
        match state.store.purge(millis(now)).await {
            Ok(0) => {}
            Ok(rows) => tracing::debug!(rows, "expired refresh families forgotten"),
            Err(StoreDown) => tracing::warn!("expired refresh families could not be forgotten"),
        }
    }

    /// Ends the sessions of those who may no longer log in.
    pub(crate) async fn end_those_who_left(&self, before: &Self, now: SystemTime) {
        for (name, user) in before.users.iter() {
            if user.active && self.users.active(name).is_none() {
                match self.end_all(name, now).await {
                    Ok(()) => tracing::info!(sub = name, "user gone or disabled: sessions ended"),
                    Err(_) => tracing::error!(sub = name, "sessions could not be ended"),
                }
            }
        }
    }

    fn open_state(&self) -> Result<&TokenState, Answer> {
        self.state().map(|state| &**state).ok_or_else(Answer::down)
    }

    /// What it is made of.
    pub(crate) fn settings(&self) -> &TokenSettings {
        &self.settings
    }

    /// Its users.
    pub(crate) fn users(&self) -> &Users {
        &self.users
    }

    /// Its keys.
    pub(crate) fn ring(&self) -> &KeyRing {
        &self.ring
    }

    /// Answers a request; gives the word for the access log, where it is refused.
    pub(crate) async fn answer(&self, asked: Asked<'_>) -> (Response<Body>, Option<&'static str>) {
        if asked.endpoint == Endpoint::Keys {
            return (self.published(), None);
        }
        let answer = if *asked.method == Method::POST {
            let served = Box::pin(self.serve(&asked)).await;
            served.unwrap_or_else(|refusal| refusal)
        } else {
            Answer::method(asked.method)
        };
        let reason = answer.reason;
        (answer.response(), reason)
    }

    async fn serve(&self, asked: &Asked<'_>) -> Result<Answer, Answer> {
        let fields = wire::fields(asked.headers, &asked.body)?;
        match asked.endpoint {
            Endpoint::Obtain => {
                let [name, password] = wire::texts(&fields, ["username", "password"])?;
                self.obtain(name, password, asked).await
            }
            Endpoint::Refresh => {
                let [token] = wire::texts(&fields, ["refresh"])?;
                self.renew(&token, asked.now).await
            }
            Endpoint::Verify => {
                let [token] = wire::texts(&fields, ["token"])?;
                self.verify(&token, asked.now).await
            }
            Endpoint::Blacklist => {
                let [token] = wire::texts(&fields, ["refresh"])?;
                let everywhere = matches!(fields.get("everywhere"), Some(Value::Bool(true)))
                    || fields.get("everywhere").and_then(Value::as_str) == Some("true");
                self.blacklist(&token, everywhere, asked.now).await
            }
            Endpoint::Revoke => {
                let [token] = wire::texts(&fields, ["token"])?;
                self.revoke(&token, asked.now).await
            }
            Endpoint::Keys => Err(Answer::method(asked.method)),
        }
    }

    /// The key set, for whoever checks the tokens himself. It may be kept as long as a new key is
    /// published before it signs.
    fn published(&self) -> Response<Body> {
        let mut response = Response::new(Body::full(self.ring.published()));
        let headers = response.headers_mut();
        let kind = HeaderValue::from_static("application/jwk-set+json");
        headers.insert(header::CONTENT_TYPE, kind);
        let age = self.settings.rotate_keys_after.as_secs();
        if let Ok(kept) = HeaderValue::try_from(format!("public, max-age={age}")) {
            headers.insert(header::CACHE_CONTROL, kept);
        }
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_ORIGIN,
            HeaderValue::from_static("*"),
        );
        response
    }

    async fn obtain(
        &self,
        name: String,
        password: String,
        asked: &Asked<'_>,
    ) -> Result<Answer, Answer> {
        self.throttle
            .try_once(asked.client, &name)
            .map_err(|wait| Answer::throttled(wait.as_secs().max(1)))?;
        let verdict = self.check(&name, password).await?;
        let user = self.users.active(&name);
        let (Some(user), true) = (user, verdict != Verdict::Wrong) else {
            return Err(Answer::no_account());
        };
        let now = millis(asked.now);
        let id = random_name()?;
        let family = Family {
            sub: name.clone(),
            created: now,
            generation: 0,
            rotated: now,
            expires: now / 1000 + self.settings.refresh_lifetime.as_secs(),
            ended: None,
        };
        let (access, refresh) = self.sign_both(&id, &family, user, now)?;
        let begun = self.open_state()?.store.begin(id, family).await;
        begun.map_err(|StoreDown| Answer::down())?;
        Ok(Answer::ok(json!({"refresh": refresh, "access": access})))
    }

    /// Checks a password off the event loops. A user who is not there, or may not log in, costs the
    /// same time.
    async fn check(&self, name: &str, password: String) -> Result<Verdict, Answer> {
        let hash = self.users.get(name).and_then(|user| user.password.clone());
        let checked = self.open_state()?.hashing.check(hash, password).await;
        let Checked { verdict, renewed } = checked.map_err(|unchecked| match unchecked {
            Unchecked::Busy => Answer::throttled(1),
            Unchecked::Gone => Answer::down(),
        })?;
        if let Some(hash) = renewed {
            self.renew_hash(name, hash);
        }
        Ok(verdict)
    }

    /// Writes a hash of today's kind into the users' file, unless that was changed since it was read;
    /// the next login does it then.
    fn renew_hash(&self, name: &str, hash: String) {
        let (mut users, file) = (self.users.clone(), self.settings.users.clone());
        let Some(mut user) = users.get(name).cloned() else {
            return;
        };
        user.password = Some(hash);
        users.put(name, user);
        let (as_read, name) = (Arc::clone(&self.users_file), name.to_owned());
        tokio::task::spawn_blocking(move || {
            let written = alone(&file, || {
                if std::fs::read(&file)? == *as_read {
                    write_private(&file, users.write().as_bytes())?;
                    tracing::info!(sub = name, "a password's hash is of today's kind now");
                }
                Ok(())
            });
            if let Err(error) = written {
                tracing::warn!(%error, "a password's hash stays of an older kind");
            }
        });
    }

    async fn renew(&self, token: &str, now: SystemTime) -> Result<Answer, Answer> {
        let claims = self.refresh_claims(token, now)?;
        let (Some(id), Some(sub), Some(generation)) = (
            claims.get("sid").and_then(Value::as_str),
            claims.get("sub").and_then(Value::as_str),
            claims.get("gen").and_then(Value::as_u64),
        ) else {
            return Err(Answer::invalid("Token is invalid", "token_malformed"));
        };
        let Some(user) = self.users.active(sub) else {
            return Err(Answer::account_gone());
        };
        let now = millis(now);
        let rotate = self.settings.rotate_refresh;
        let until = now / 1000 + self.settings.refresh_lifetime.as_secs();
        let asked = Refresh {
            id: id.to_owned(),
            generation,
            now,
            rotate_until: rotate.then_some(until),
            grace: as_millis(self.settings.refresh_grace),
        };
        let refreshed = self.open_state()?.store.refresh(asked).await;
        let family = match refreshed.map_err(|StoreDown| Answer::down())? {
            Refreshed::Family(family) if family.sub == sub => family,
            Refreshed::Family(_) | Refreshed::Ended => {
                return Err(Answer::invalid("Token is blacklisted", "token_revoked"));
            }
            Refreshed::Reused => {
                tracing::warn!(
                    sub,
                    family = id,
                    "a refresh token was used again: its family has ended"
                );
                self.revoked.family(id, now);
                return Err(Answer::invalid("Token is blacklisted", "token_reused"));
            }
        };
        let (access, refresh) = self.sign_both(id, &family, user, now)?;
        Ok(Answer::ok(if rotate {
            json!({"access": access, "refresh": refresh})
        } else {
            json!({ "access": access })
        }))
    }

    async fn verify(&self, token: &str, now: SystemTime) -> Result<Answer, Answer> {
        let claims = match self.access.verify(token, now) {
            Ok(claims) => claims,
            Err(TokenFault::Revoked) => {
                return Err(Answer::invalid("Token is blacklisted", "token_revoked"));
            }
            Err(_) => self.refresh_claims(token, now)?,
        };
        let id = claims.get("sid").and_then(Value::as_str);
        let Some(id) = id else {
            return Err(Answer::invalid("Token is invalid", "token_malformed"));
        };
        let family = self.open_state()?.store.look(id.to_owned()).await;
        match family.map_err(|StoreDown| Answer::down())? {
            Some(_) => Ok(Answer::ok(json!({}))),
            None => Err(Answer::invalid("Token is blacklisted", "token_revoked")),
        }
    }

    async fn blacklist(
        &self,
        token: &str,
        everywhere: bool,
        now: SystemTime,
    ) -> Result<Answer, Answer> {
        let claims = self.refresh_claims(token, now)?;
        let (Some(id), Some(sub)) = (
            claims.get("sid").and_then(Value::as_str),
            claims.get("sub").and_then(Value::as_str),
        ) else {
            return Err(Answer::invalid("Token is invalid", "token_malformed"));
        };
        let ended = self.end(id, now).await?;
        if !ended {
            return Err(Answer::invalid("Token is blacklisted", "token_revoked"));
        }
        if everywhere {
            self.end_all(sub, now)
                .await
                .map_err(|StoreDown| Answer::down())?;
        }
        Ok(Answer::ok(json!({})))
    }

    /// RFC 7009: a token that is not good is as gone as one can wish.
    async fn revoke(&self, token: &str, now: SystemTime) -> Result<Answer, Answer> {
        let claims = self
            .access
            .verify(token, now)
            .or_else(|_| self.refresh.verify(token, now));
        if let Ok(claims) = claims
            && let Some(id) = claims.get("sid").and_then(Value::as_str)
        {
            self.end(id, now).await?;
        }
        Ok(Answer::ok(Value::Null))
    }

    /// Ends a family and its access tokens; whether it had not ended before.
    async fn end(&self, id: &str, now: SystemTime) -> Result<bool, Answer> {
        let now = millis(now);
        let ended = self.open_state()?.store.end(id.to_owned(), now).await;
        let ended = ended.map_err(|StoreDown| Answer::down())?.is_some();
        self.revoked.family(id, now);
        Ok(ended)
    }

    /// Ends all families of a subject, and their access tokens.
    ///
    /// # Errors
    /// Where it could not be written down.
    pub(crate) async fn end_all(&self, sub: &str, now: SystemTime) -> Result<(), StoreDown> {
        let now = millis(now);
        let state = self.state().ok_or(StoreDown)?;
        state.store.end_all(sub.to_owned(), now).await?;
        self.revoked.subject(sub, now);
        Ok(())
    }

    fn refresh_claims(&self, token: &str, now: SystemTime) -> Result<Claims, Answer> {
        self.refresh.verify(token, now).map_err(|fault| {
            let detail = if fault == TokenFault::Expired {
                "Token is expired"
            } else if fault == TokenFault::Revoked {
                "Token is blacklisted"
            } else if fault == TokenFault::RequiredClaim {
                "Token has wrong type"
            } else {
                "Token is invalid"
            };
            Answer::invalid(detail, fault.reason())
        })
    }

    /// An access token and the refresh token of a family's state.
    fn sign_both(
        &self,
        id: &str,
        family: &Family,
        user: &User,
        now: u64,
    ) -> Result<(String, String), Answer> {
        let mut common = Map::new();
        if let Some(issuer) = &self.settings.issuer {
            common.insert("iss".to_owned(), issuer.as_str().into());
        }
        common.insert("sub".to_owned(), family.sub.as_str().into());
        common.insert("sid".to_owned(), id.into());
        // When the user logged in, exactly: what ends all sessions ends those that began before.
        common.insert("auth_time".to_owned(), seconds_of(family.created));
        let mut access = common.clone();
        for (name, issued) in &self.settings.claims {
            let value = match issued {
                Issued::Fixed(value) => Some(value.clone()),
                Issued::Name => Some(family.sub.as_str().into()),
                Issued::OfUser(member) => user.more.get(member).cloned(),
            };
            if let Some(value) = value {
                access.entry(name.clone()).or_insert(value);
            }
        }
        let seconds = now / 1000;
        access.extend(object(&json!({
            "token_type": "access",
            "iat": seconds,
            "exp": seconds + self.settings.access_lifetime.as_secs(),
            "jti": random_name()?,
        })));
        let mut refresh = common;
        refresh.extend(object(&json!({
            "token_type": "refresh",
            "iat": family.rotated / 1000,
            "exp": family.expires,
            "gen": family.generation,
            "jti": self.name_of(id, family.generation),
        })));
        let key = self.ring.signing(seconds).ok_or_else(Answer::down)?;
        let sign = |claims| key.sign(claims).map_err(|_| Answer::down());
        Ok((sign(&access)?, sign(&refresh)?))
    }

    /// The id of a family's refresh token: the same each time, and nobody else's to guess.
    fn name_of(&self, id: &str, generation: u64) -> String {
        let seed = self.state().map_or(&[][..], |state| state.store.seed());
        let key = hmac::Key::new(hmac::HMAC_SHA256, seed);
        let tag = hmac::sign(&key, format!("{id}/{generation}").as_bytes());
        let short = tag.as_ref().get(..16).unwrap_or_default();
        URL_SAFE_NO_PAD.encode(short)
    }
}

fn object(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

/// 128 random bits as text.
fn random_name() -> Result<String, Answer> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|_| Answer::down())?;
    Ok(URL_SAFE_NO_PAD.encode(random))
}

/// Milliseconds as the seconds of a NumericDate.
fn seconds_of(millis: u64) -> Value {
    let text = format!("{}.{:03}", millis / 1000, millis % 1000);
    text.parse::<f64>().map_or(Value::Null, Value::from)
}

fn millis(time: SystemTime) -> u64 {
    as_millis(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn as_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
