//! `TokenService`: issues an access token and a refresh token for username and password, in simplejwt's wire format;
//! refreshes, verifies and revokes them. How requests get here, and access control of routes, are decided elsewhere.

mod cookies;
mod keys;
mod login;
mod mint;
mod private;
mod spender;
mod state;
mod store;
mod throttle;
mod users;
mod wire;

use std::borrow::Cow;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use serde_json::{Map, Value, json};

use self::cookies::Kind;
pub(crate) use self::cookies::{Cookies, HOST_PREFIX, SameSite, is_prefixed};
pub(crate) use self::keys::{KeyRing, NewKey, RingKey};
pub(crate) use self::login::{Decided, Login};
pub(crate) use self::mint::{Issued, OWN};
pub(crate) use self::private::write_private;
use self::spender::Spender;
use self::state::{Renewal, TokenState};
pub(crate) use self::state::{States, end_from_outside, is_taken};
pub(crate) use self::store::FamilyName;
use self::store::{Everywhere, Family, Lives, Refresh, Refreshed, StoreDown};
pub(crate) use self::store::{SLACK, Whom};
pub(crate) use self::throttle::Rate;
use self::throttle::Throttle;
pub(crate) use self::users::{User, Users, alone, is_name};
use self::wire::Answer;
use crate::auth::{Algorithm, Checked, Claims, Hashing, LiveRevoked, Unchecked, Verdict, Verifier};
use crate::filesystem;
use crate::message::body::Body;
use crate::message::reject::TokenFault;
use crate::net::resolve::Names;
use crate::state::StateAt;

/// The maximum body size of a request to an endpoint, in bytes.
pub(crate) const BODY_BYTES: usize = 64 * 1024;

/// One of the endpoints.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Endpoint {
    /// Exchanges username and password for tokens.
    Obtain,
    /// Exchanges a refresh token for an access token.
    Refresh,
    /// Checks whether a token is valid.
    Verify,
    /// Ends a family.
    Blacklist,
    /// The same according to RFC 7009.
    Revoke,
    /// The published keys.
    Keys,
}

impl Endpoint {
    /// All of them with the rest of their path after the service's path; the keys have a path of their own.
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

/// The settings of the service; one with equal settings is preserved across a reload.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TokenSettings {
    /// `iss` of its tokens.
    pub(crate) issuer: Option<String>,
    /// The algorithm that it signs with.
    pub(crate) algorithm: Algorithm,
    /// The directory of its keys.
    pub(crate) keys: PathBuf,
    /// The file of its users; without it, the app decides who may log in.
    pub(crate) users: Option<PathBuf>,
    /// The lifetime of an access token.
    pub(crate) access_lifetime: Duration,
    /// The lifetime of a refresh token.
    pub(crate) refresh_lifetime: Duration,
    /// Whether a refresh token can be used only once.
    pub(crate) rotate_refresh: bool,
    /// The grace period during which a used refresh token returns the same replacement once more.
    pub(crate) refresh_grace: Duration,
    /// How long a new key is published before it is used for signing.
    pub(crate) rotate_keys_after: Duration,
    /// The cookies in which its tokens are sent, instead of bodies.
    pub(crate) cookies: Option<Cookies>,
    /// The field of a login that contains the user name.
    pub(crate) username_field: String,
    /// Claims in addition to the service's own.
    pub(crate) claims: Vec<(String, Issued)>,
    /// Attempts per address.
    pub(crate) per_ip: Option<Rate>,
    /// Attempts per user.
    pub(crate) per_user: Option<Rate>,
}

/// Issues, renews and revokes tokens.
#[derive(Debug)]
pub(crate) struct TokenService {
    settings: TokenSettings,
    /// The location of the store.
    at: StateAt,
    /// The ended sessions, as the workers see them.
    revoked: Arc<LiveRevoked>,
    /// The store, once it is open.
    state: OnceLock<Arc<TokenState>>,
    ring: KeyRing,
    users: Users,
    /// The content of the users' file.
    users_file: Arc<Vec<u8>>,
    throttle: Throttle,
    /// The threads that check passwords.
    hashing: Arc<Hashing>,
    /// Verifies access tokens of this service.
    access: Arc<Verifier>,
    /// The same for refresh tokens.
    refresh: Arc<Verifier>,
}

/// A response, and the reason code for the access log where it is an error.
pub(crate) type Answered = (Response<Body>, Option<&'static str>);

/// One request to an endpoint.
pub(crate) struct Asked<'a> {
    /// The endpoint.
    pub(crate) endpoint: Endpoint,
    /// Its method.
    pub(crate) method: &'a Method,
    /// Its headers.
    pub(crate) headers: &'a HeaderMap,
    /// The whole body.
    pub(crate) body: Bytes,
    /// The client's address.
    pub(crate) client: Option<IpAddr>,
    /// The origin that was requested, as the client wrote it.
    pub(crate) origin: Option<&'a str>,
    /// The time.
    pub(crate) now: SystemTime,
}

impl std::fmt::Debug for Asked<'_> {
    /// Passwords and tokens are never printed.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Asked {}", self.endpoint.name())
    }
}

impl TokenService {
    /// Creates a service; counted login attempts are carried over from the one before.
    pub(crate) fn new(
        settings: TokenSettings,
        (at, revoked, hashing): (StateAt, Arc<LiveRevoked>, Arc<Hashing>),
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
        Self {
            settings,
            at,
            revoked,
            state: OnceLock::new(),
            ring,
            users,
            users_file: Arc::new(users_file),
            throttle,
            hashing,
            access,
            refresh,
        }
    }

    /// Opens the store, unless it is open.
    ///
    /// # Errors
    /// Why it cannot be opened.
    pub(crate) fn start(
        &self,
        states: &States,
        names: &Names,
        now: SystemTime,
    ) -> Result<(), String> {
        if self.state.get().is_none() {
            let state = states
                .open(&self.at, self.lives(), millis(now), &self.revoked, names)
                .map_err(|why| format!("`{}`: {why}", self.at))?;
            // Only this call sets it.
            drop(self.state.set(state));
        }
        Ok(())
    }

    /// The key that must be created before this service can issue tokens, if any: its first, or the first of its
    /// algorithm, which signs after it has been published long enough.
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

    /// Deletes the files of keys all of whose tokens have expired, and forgets expired entries.
    pub(crate) async fn clean(&self, now: SystemTime) {
        let Some(state) = self.state.get() else {
            return;
        };
        let longest = state.store().longest();
        let seconds = millis(now) / 1000;
        let algorithm = self.settings.algorithm;
        for key in self.ring.retired(algorithm, seconds, longest.any()) {
            let last = state.signed_last(key.key.kid());
            if last + longest.any() + SLACK >= seconds {
                // This gateway did not learn of its successor at once.
                continue;
            }
            match std::fs::remove_file(&key.path) {
                Ok(()) => tracing::info!(kid = key.key.kid(), "signing key retired"),
                Err(error) => {
                    tracing::warn!(path = %key.path.display(), %error, "a retired key file cannot be deleted");
                }
            }
        }
        let (families, subjects) = longest.told_since(millis(now));
        self.revoked.forget(families, subjects);
        self.end_all(state, state.unended()).await;
        match state.store().purge(millis(now)).await {
            Ok(0) => {}
            Ok(rows) => tracing::debug!(rows, "expired sessions forgotten"),
            Err(StoreDown) => tracing::warn!("expired sessions could not be forgotten"),
        }
    }

    /// Ends the sessions of users who may no longer log in, or whose password changed: all that began before this
    /// service replaced the previous one. An old password was valid until then.
    pub(crate) async fn end_those_who_left(&self, before: &Self, now: SystemTime) {
        let stays = |name: &str, user: &User| {
            let next = self.users.active(name);
            next.is_some_and(|next| next.since <= user.since && next.has_password_of(user))
        };
        let active = before.users.iter().filter(|(_, user)| user.active);
        let ended = active
            .filter(|(name, user)| !stays(name, user))
            .map(|(name, _)| (name.to_owned(), millis(now)));
        if let Some(state) = self.state.get() {
            self.end_all(state, ended.collect()).await;
        }
    }

    /// Ends all sessions of users that began before a time each; those that cannot be written now are written later.
    async fn end_all(&self, state: &TokenState, ended: Vec<(String, u64)>) {
        /// How many fit into the time limit of one order.
        const AT_ONCE: usize = 100;
        for some in ended.chunks(AT_ONCE) {
            let names: Vec<_> = some.iter().map(|(name, _)| name.as_str()).collect();
            let users = names.join(", ");
            match state.store().end_all(some.to_vec()).await {
                Ok(()) => tracing::info!(users, "removed, disabled or changed: sessions ended"),
                // The users' file tells every gateway that reads it, too.
                Err(StoreDown) => {
                    tracing::warn!(users, "the end of their sessions will be recorded later");
                    state.end_later(some);
                }
            }
        }
    }

    fn open_state(&self) -> Result<&TokenState, Answer> {
        self.state
            .get()
            .map(|state| &**state)
            .ok_or_else(Answer::down)
    }

    /// The data about the user of a family whose sessions of this time have not ended: from the users' file, or from
    /// the app's response to the login.
    fn known_of<'f>(&'f self, family: &'f Family) -> Option<&'f Map<String, Value>> {
        if self.settings.users.is_none() {
            return Some(&family.claims);
        }
        let user = self.users.active(&family.sub)?;
        (family.created >= user.since).then_some(&user.more)
    }

    /// An access token without a family, for a user who may have one: it is valid until it expires, as long as the
    /// user is active.
    ///
    /// # Errors
    /// Why none was issued.
    pub(crate) fn issue(
        &self,
        sub: &str,
        claims: Map<String, Value>,
        life: Duration,
        now: SystemTime,
    ) -> Result<String, String> {
        if life > self.settings.refresh_lifetime {
            return Err("it would outlive its key; `refresh_lifetime` is the maximum".to_owned());
        }
        let now = millis(now);
        let family = Family {
            sub: sub.to_owned(),
            created: now,
            generation: 0,
            rotated: now,
            expires: 0,
            spender: Spender::default(),
            repeated: false,
            ended: None,
            claims,
        };
        let user = self
            .known_of(&family)
            .ok_or_else(|| format!("there is no active user {sub:?}"))?;
        let jti = random_name().map_err(|_| "no random bytes".to_owned())?;
        let key = self.ring.signing(self.settings.algorithm, now / 1000);
        let key = key.ok_or("there is no key yet; the first start of the gateway creates one")?;
        let claims = mint::access(
            (None, &family),
            self.settings.issuer.as_deref(),
            (&self.settings.claims, user),
            (now / 1000, life),
            &jti,
        );
        key.sign(&claims).map_err(|error| error.to_string())
    }

    /// The family of one of its valid tokens.
    ///
    /// # Errors
    /// Why the token is invalid.
    pub(crate) fn family_of(&self, token: &str, now: SystemTime) -> Result<FamilyName, String> {
        let claims = self
            .access
            .verify(token, now)
            .or_else(|_| self.refresh.verify(token, now))
            .map_err(|fault| fault.to_string())?;
        let why = "the token has no session; it is valid until it expires or its user is removed";
        mint::family_of(&claims).ok_or_else(|| why.to_owned())
    }

    /// The location of its store, and the lifetimes of its tokens.
    pub(crate) fn store_at(&self) -> (&StateAt, Lives) {
        (&self.at, self.lives())
    }

    fn lives(&self) -> Lives {
        Lives {
            access: self.settings.access_lifetime.as_secs(),
            refresh: self.settings.refresh_lifetime.as_secs(),
        }
    }

    /// Its settings.
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

    /// Responds to a request; returns the reason code for the access log if the response is an error.
    pub(crate) async fn answer(&self, asked: Asked<'_>) -> Answered {
        if asked.endpoint == Endpoint::Keys {
            return (self.published(asked.method), None);
        }
        let answer = if *asked.method == Method::POST {
            let served = Box::pin(self.serve(&asked)).await;
            served.unwrap_or_else(|refusal| refusal)
        } else {
            Answer::method(asked.method)
        };
        answer.with_reason()
    }

    async fn serve(&self, asked: &Asked<'_>) -> Result<Answer, Answer> {
        let fields = wire::fields(asked.headers, &asked.body).await?;
        match asked.endpoint {
            Endpoint::Obtain => {
                let [name, password] = self.credentials(asked, &fields)?;
                self.obtain(name, password, asked).await
            }
            Endpoint::Refresh => {
                if let Some(cookies) = &self.settings.cookies {
                    // The response sets cookies, as a login does, whatever token is in the body.
                    cookies.check_page(asked.headers, asked.origin)?;
                }
                let (token, from_cookie) = self.token(asked, &fields, "refresh", Kind::Refresh)?;
                let renewed = self.renew(&token, asked).await;
                self.forgetting(renewed, from_cookie, asked)
            }
            Endpoint::Verify => {
                let (token, _) = self.token(asked, &fields, "token", Kind::Access)?;
                self.verify(&token, asked.now).await
            }
            Endpoint::Blacklist => {
                let everywhere = wire::boolean(&fields, "everywhere")?;
                let (token, from_cookie) = self.token(asked, &fields, "refresh", Kind::Refresh)?;
                let ended = self.blacklist(&token, everywhere, asked.now).await;
                self.forgetting(ended, from_cookie, asked)
            }
            Endpoint::Revoke => {
                let [token] = wire::texts(&fields, ["token"])?;
                self.revoke(&token, asked.now).await
            }
            Endpoint::Keys => Err(Answer::method(asked.method)),
        }
    }

    /// The key set, for apps that verify the tokens themselves. It may be cached for half the time that a new key is
    /// published before it signs, because a gateway does not see its file at once.
    fn published(&self, method: &Method) -> Response<Body> {
        if *method == Method::OPTIONS {
            return preflight_of_keys();
        }
        let mut response = Response::new(Body::full(self.ring.published()));
        let headers = response.headers_mut();
        let kind = HeaderValue::from_static("application/jwk-set+json");
        headers.insert(header::CONTENT_TYPE, kind);
        let age = self.settings.rotate_keys_after.as_secs() / 2;
        if let Ok(kept) = HeaderValue::try_from(format!("public, max-age={age}")) {
            headers.insert(header::CACHE_CONTROL, kept);
        }
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_ORIGIN,
            HeaderValue::from_static("*"),
        );
        response
    }

    /// The token of a request: from its body, or else from a cookie that the page may use.
    fn token(
        &self,
        asked: &Asked<'_>,
        fields: &wire::Fields,
        field: &str,
        kind: Kind,
    ) -> Result<(String, bool), Answer> {
        if let (Some(cookies), None) = (&self.settings.cookies, fields.get(field))
            && let Some(token) = self.best(cookies.all(kind, asked.headers), kind, asked.now)
        {
            cookies.check_origin(asked.headers, asked.origin)?;
            return Ok((token, true));
        }
        let [token] = wire::texts(fields, [field])?;
        Ok((token, false))
    }

    /// The token to use among cookies of one name: the valid one; of several, the one of the last login, and of its
    /// session the newest. If none is valid, any.
    fn best(&self, tokens: Vec<String>, kind: Kind, now: SystemTime) -> Option<String> {
        let verifier = match kind {
            Kind::Access => &self.access,
            Kind::Refresh => &self.refresh,
        };
        if tokens.len() < 2 {
            return tokens.into_iter().next();
        }
        let rank = |token: &String| {
            let claims = verifier.verify(token, now).ok()?;
            let number = |name| claims.get(name).and_then(Value::as_u64);
            Some(["auth_time", "auth_ms", "gen", "iat"].map(number))
        };
        tokens.into_iter().max_by_key(rank)
    }

    /// Makes the browser delete the tokens of an ended session, if it sent them.
    fn forgetting(
        &self,
        outcome: Result<Answer, Answer>,
        from_cookie: bool,
        asked: &Asked<'_>,
    ) -> Result<Answer, Answer> {
        let forget = |mut answer: Answer| {
            if let (Some(cookies), true, true) = (
                &self.settings.cookies,
                from_cookie,
                answer.cookies.is_empty(),
            ) {
                answer.cookies = cookies.forget(asked.origin);
            }
            answer
        };
        match outcome {
            Ok(answer) => Ok(forget(answer)),
            Err(answer) if answer.status == StatusCode::UNAUTHORIZED => Err(forget(answer)),
            Err(answer) => Err(answer),
        }
    }

    fn credentials(&self, asked: &Asked<'_>, fields: &wire::Fields) -> Result<[String; 2], Answer> {
        if let Some(cookies) = &self.settings.cookies {
            // Another site must not log a user in as someone else.
            cookies.check_page(asked.headers, asked.origin)?;
        }
        let names = [&self.settings.username_field, "password"];
        let [name, password] = wire::texts(fields, names)?;
        // Keyboards add a space after a name; REST framework removes it, too.
        Ok([name.trim().to_owned(), password])
    }

    async fn obtain(
        &self,
        name: String,
        password: String,
        asked: &Asked<'_>,
    ) -> Result<Answer, Answer> {
        self.try_once(asked, &name)?;
        let verdict = self.check(&name, password).await?;
        if verdict == Verdict::Wrong {
            return Err(Answer::no_account());
        }
        let begun = self.begin(name, Map::new(), asked.now).await?;
        Ok(self.alone(begun, asked.origin))
    }

    /// Begins a login that the app decides on.
    ///
    /// # Errors
    /// The response to a request that is invalid or exceeds the rate, with the reason code for the access log.
    pub(crate) async fn begin_login(&self, asked: &Asked<'_>) -> Result<Login, Box<Answered>> {
        let begin = async {
            if *asked.method != Method::POST {
                return Err(Answer::method(asked.method));
            }
            let fields = wire::fields(asked.headers, &asked.body).await?;
            let [name, password] = self.credentials(asked, &fields)?;
            self.try_once(asked, &name)?;
            Ok(Login::new(name, password))
        };
        let begun = begin.await;
        begun.map_err(|answer| Box::new(answer.with_reason()))
    }

    /// Responds to a login that the app decided on.
    pub(crate) async fn end_login(&self, decided: Decided, asked: &Asked<'_>) -> Answered {
        let answer = match decided {
            Decided::User(sub, claims) => {
                let begun = self.begin(sub, claims, asked.now).await;
                begun.map(|begun| self.alone(begun, asked.origin))
            }
            Decided::Refused => Err(Answer::no_account()),
            Decided::Throttled(seconds) => Err(Answer::throttled(seconds)),
            Decided::Nothing(why) => {
                tracing::error!(why, "the app that decides on logins returned no decision");
                Err(Answer::undecided())
            }
        };
        answer.unwrap_or_else(|refusal| refusal).with_reason()
    }

    /// Makes the browser delete cookies of these names that it has for other domains.
    fn alone(&self, mut answer: Answer, origin: Option<&str>) -> Answer {
        if let Some(cookies) = &self.settings.cookies {
            answer.cookies.extend(cookies.forget_others(origin));
        }
        answer
    }

    fn try_once(&self, asked: &Asked<'_>, name: &str) -> Result<(), Answer> {
        let name = match &self.settings.users {
            Some(_) => Cow::Borrowed(name),
            // The app may accept several spellings for one user.
            None => Cow::Owned(throttle::folded(name)),
        };
        self.throttle
            .try_once(asked.client, &name)
            .map_err(|wait| Answer::throttled(wait.as_secs() + 1))
    }

    /// Begins a family for a user who logged in.
    async fn begin(
        &self,
        sub: String,
        claims: Map<String, Value>,
        now: SystemTime,
    ) -> Result<Answer, Answer> {
        let now = millis(now);
        let id = random_name()?;
        let family = Family {
            sub,
            created: now,
            generation: 0,
            rotated: now,
            expires: now / 1000 + self.settings.refresh_lifetime.as_secs(),
            spender: Spender::default(),
            repeated: false,
            ended: None,
            claims,
        };
        let user = self.known_of(&family).ok_or_else(Answer::no_account)?;
        let (access, refresh) = self.sign_both(&id, &family, user, now)?;
        let begun = self.open_state()?.store().begin(id, family).await;
        begun.map_err(|StoreDown| Answer::down())?;
        self.handed_out(&access, Some(&refresh))
    }

    /// Checks a password outside the event loops. A user who does not exist, or may not log in, takes the same time.
    async fn check(&self, name: &str, password: String) -> Result<Verdict, Answer> {
        let own = self.users.active(name);
        let own = own.and_then(|user| user.password.clone());
        // A user who does not exist, or may not log in, takes as long as one who may.
        let hash = own.clone().or_else(|| self.users.decoy(name));
        let state = self.open_state()?;
        let checking = self.hashing.check(hash, password, own.is_some());
        let checked = checking.await;
        let Checked { verdict, renewed } = checked.map_err(|unchecked| match unchecked {
            Unchecked::Busy => Answer::throttled(1),
            Unchecked::Gone => Answer::down(),
        })?;
        let Some(old) = own else {
            return Ok(Verdict::Wrong);
        };
        if let Some(new) = renewed {
            state.renew(name, Renewal { old, new });
        }
        Ok(verdict)
    }

    /// Writes the waiting new hashes to the users' file, all at once, so that many logins are one change. A file that
    /// was changed since it was read is left alone: it will be reloaded, and this is called again.
    pub(crate) fn renew_hashes(&self) {
        let (Some(state), Some(file)) = (self.state.get(), self.settings.users.clone()) else {
            return;
        };
        let renewals = state.renewals();
        if renewals.is_empty() || self.users.unwritable().is_some() {
            return;
        }
        let mut users = self.users.clone();
        let mut renewed = Vec::new();
        for (name, Renewal { old, new }) in renewals {
            match users.get(&name).cloned() {
                Some(mut user) if user.password.as_ref() == Some(&old) => {
                    user.password = Some(new);
                    users.put(&name, user);
                    renewed.push(name);
                }
                // The user was changed or removed in the meantime.
                Some(_) | None => state.renewed(&name),
            }
        }
        if renewed.is_empty() {
            return;
        }
        let (as_read, state) = (Arc::clone(&self.users_file), Arc::clone(state));
        tokio::task::spawn_blocking(move || {
            let written = alone(&file, || {
                if filesystem::read(&file)? == *as_read {
                    write_private(&file, users.write()?.as_bytes())?;
                    for name in &renewed {
                        state.renewed(name);
                    }
                    let users = renewed.join(", ");
                    tracing::info!(users, "password hashes upgraded");
                }
                Ok(())
            });
            if let Err(error) = written {
                tracing::warn!(%error, "password hashes could not be upgraded");
                // Their next logins try again.
                for name in &renewed {
                    state.renewed(name);
                }
            }
        });
    }

    async fn renew(&self, token: &str, asked: &Asked<'_>) -> Result<Answer, Answer> {
        let claims = self.refresh_claims(token, asked.now)?;
        let (family, generation) = spendable(&claims)?;
        let id = family.id.clone();
        let now = millis(asked.now);
        let cookies = self.settings.cookies.as_ref();
        let with = cookies.and_then(|cookies| cookies.all(Kind::Access, asked.headers).pop());
        let spender = Spender::of(&id, asked.client, with.as_deref());
        let rotate = self.settings.rotate_refresh;
        let until = now / 1000 + self.settings.refresh_lifetime.as_secs();
        let asked = Refresh {
            family,
            generation,
            now,
            rotate_until: rotate.then_some(until),
            grace: as_millis(self.settings.refresh_grace),
            spender,
        };
        let refreshed = self.open_state()?.store().refresh(asked).await;
        let family = match refreshed.map_err(|StoreDown| Answer::down())? {
            Refreshed::Family(family) => family,
            Refreshed::Ended => return Err(Answer::blacklisted("token_revoked")),
            Refreshed::Reused => return Err(Answer::blacklisted("token_reused")),
        };
        let user = self.known_of(&family).ok_or_else(Answer::account_gone)?;
        let (access, refresh) = self.sign_both(&id, &family, user, now)?;
        self.handed_out(&access, rotate.then_some(&refresh))
    }

    /// Tokens in a body, or in cookies, where the body contains their lifetimes.
    ///
    /// # Errors
    /// Where a token is longer than a cookie can be.
    fn handed_out(&self, access: &str, refresh: Option<&String>) -> Result<Answer, Answer> {
        let Some(cookies) = &self.settings.cookies else {
            return Ok(Answer::ok(match refresh {
                Some(refresh) => json!({"refresh": refresh, "access": access}),
                None => json!({ "access": access }),
            }));
        };
        let fitting = |line: Option<HeaderValue>| {
            line.ok_or_else(|| {
                tracing::error!("a token is too long for a cookie: give it fewer `claims`");
                Answer::down()
            })
        };
        let access_life = self.settings.access_lifetime.as_secs();
        let refresh_life = self.settings.refresh_lifetime.as_secs();
        let mut lines = vec![fitting(cookies.set(Kind::Access, access, access_life))?];
        let body = match refresh {
            None => json!({"expires_in": access_life}),
            Some(refresh) => {
                lines.push(fitting(cookies.set(Kind::Refresh, refresh, refresh_life))?);
                json!({"expires_in": access_life, "refresh_expires_in": refresh_life})
            }
        };
        Ok(Answer {
            cookies: lines,
            ..Answer::ok(body)
        })
    }

    async fn verify(&self, token: &str, now: SystemTime) -> Result<Answer, Answer> {
        let claims = match self.access.verify(token, now) {
            Ok(claims) => claims,
            Err(TokenFault::Revoked) => return Err(Answer::blacklisted("token_revoked")),
            Err(_) => self.refresh_claims(token, now)?,
        };
        if claims.get("sid").is_none() && claims.get("gen").is_none() {
            // Issued on the command line, it has no family.
            return Ok(Answer::ok(json!({})));
        }
        let family = mint::family_of(&claims).ok_or_else(Answer::not_ours)?;
        let family = self.open_state()?.store().look(family).await;
        let family = family.map_err(|StoreDown| Answer::down())?;
        // Whether a refresh token was used is not revealed: a thief of a copy could find out when its owner has used
        // it, without being detected.
        match family {
            Some(_) => Ok(Answer::ok(json!({}))),
            None => Err(Answer::blacklisted("token_revoked")),
        }
    }

    async fn blacklist(
        &self,
        token: &str,
        everywhere: bool,
        now: SystemTime,
    ) -> Result<Answer, Answer> {
        // The gateway that ended the session may have died before it notified all others, so a repeated request goes
        // to the store.
        let claims = self.refresh.verify_of_any_session(token, now);
        let claims = claims.map_err(|fault| refused_refresh(&fault))?;
        let everywhere = if everywhere {
            Everywhere::Yes
        } else {
            Everywhere::No
        };
        if self.end(&claims, everywhere, now).await? {
            Ok(Answer::ok(json!({})))
        } else {
            Err(Answer::blacklisted("token_revoked"))
        }
    }

    /// RFC 7009: an invalid token counts as revoked.
    async fn revoke(&self, token: &str, now: SystemTime) -> Result<Answer, Answer> {
        let claims = self
            .access
            .verify(token, now)
            .or_else(|_| self.refresh.verify(token, now));
        if let Ok(claims) = claims {
            if claims.get("sid").is_none() {
                return Err(Answer::unsupported_token());
            }
            self.end(&claims, Everywhere::No, now).await?;
        }
        Ok(Answer::ok(Value::Null))
    }

    /// Ends the family of a token, and its access tokens; returns whether it had not ended before.
    async fn end(
        &self,
        claims: &Claims,
        everywhere: Everywhere,
        now: SystemTime,
    ) -> Result<bool, Answer> {
        let family = mint::family_of(claims).ok_or_else(Answer::not_ours)?;
        let store = self.open_state()?.store();
        let ended = store.end(family, millis(now), everywhere).await;
        let ended = ended.map_err(|StoreDown| Answer::down())?.is_some();
        if everywhere == Everywhere::Yes {
            // Sessions that began in this millisecond have ended, too. The client may log in again as soon as it gets
            // the response, and that session must not begin in the same millisecond.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(ended)
    }

    fn refresh_claims(&self, token: &str, now: SystemTime) -> Result<Claims, Answer> {
        let claims = self.refresh.verify(token, now);
        claims.map_err(|fault| refused_refresh(&fault))
    }

    /// Signs an access token and the refresh token for the state of a family.
    fn sign_both(
        &self,
        id: &str,
        family: &Family,
        user: &Map<String, Value>,
        now: u64,
    ) -> Result<(String, String), Answer> {
        let settings = &self.settings;
        let (issuer, seconds) = (settings.issuer.as_deref(), now / 1000);
        let access = mint::access(
            (Some(id), family),
            issuer,
            (&settings.claims, user),
            (seconds, settings.access_lifetime),
            &random_name()?,
        );
        let refresh = mint::refresh(id, family, issuer);
        let signing = self.ring.signing(settings.algorithm, seconds);
        let key = signing.ok_or_else(Answer::down)?;
        let state = self.open_state()?;
        state.signs(key.kid(), seconds);
        let sign = |claims| key.sign(claims).map_err(|_| Answer::down());
        Ok((sign(&access)?, sign(&refresh)?))
    }
}

/// The response to an invalid refresh token.
fn refused_refresh(fault: &TokenFault) -> Answer {
    let detail = if *fault == TokenFault::Expired {
        "Token is expired"
    } else if *fault == TokenFault::Revoked {
        "Token is blacklisted"
    } else if *fault == TokenFault::RequiredClaim {
        "Token has wrong type"
    } else {
        "Token is invalid"
    };
    Answer::invalid(detail, fault.reason())
}

/// The response to a preflight for the key set: pages of any origin may read it, with any header.
fn preflight_of_keys() -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "*, Authorization"),
        (header::ACCESS_CONTROL_MAX_AGE, "86400"),
    ] {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}

/// The family of a refresh token, and the token's generation.
fn spendable(claims: &Claims) -> Result<(FamilyName, u64), Answer> {
    let family = mint::family_of(claims);
    let generation = claims.get("gen").and_then(Value::as_u64);
    family.zip(generation).ok_or_else(Answer::not_ours)
}

/// 128 random bits as text.
fn random_name() -> Result<String, Answer> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|_| Answer::down())?;
    Ok(URL_SAFE_NO_PAD.encode(random))
}

fn millis(time: SystemTime) -> u64 {
    as_millis(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn as_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
