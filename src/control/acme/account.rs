//! Accounts: one for each directory and external account. The key is kept before the directory sees it, so that a
//! process that is killed at any moment registers the same account again (RFC 8555 section 7.3.1), not another one.
//! instant-acme makes the key itself and gives it out only afterwards, so registering is done here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, header};
use instant_acme::{Account, Error, Key, Problem};
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::{Client, Failure, is_bad_nonce};
use super::rows::AccountRow;
use super::store::Store;
use crate::net::fetch::Message;
use crate::snapshot::Eab;

/// How often a call is repeated for a bad nonce.
const NONCES: usize = 10;

/// What registering needs of a directory (RFC 8555 section 7.1.1).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Directory {
    new_nonce: String,
    new_account: String,
    #[serde(default)]
    meta: Meta,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Meta {
    terms_of_service: Option<String>,
    external_account_required: bool,
}

/// The accounts of a process: whoever comes first registers one, and the others wait. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Accounts(Arc<Mutex<HashMap<String, Arc<Turn>>>>);

/// The turn to register an account.
type Turn = tokio::sync::Mutex<()>;

impl Accounts {
    fn turn(&self, id: &str) -> Arc<Turn> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(turns.entry(id.to_owned()).or_default())
    }

    /// The account at a directory: the one that is kept, or a new one.
    ///
    /// # Errors
    /// The directory refuses it, or it cannot be kept.
    pub(super) async fn get(
        &self,
        store: &Store,
        client: &Client,
        email: Option<&str>,
    ) -> Result<Account, Failure> {
        let url = client.directory().whole();
        let host = client.directory().authority();
        let id = id_of(&url, client.eab());
        let turn = self.turn(&id);
        let turn = turn.lock().await;
        let kept = store.account(host, &id).await?;
        let mut row = match kept.filter(|row| row.directory == url) {
            Some(row) => row,
            None => {
                let (_, key) = Key::generate_pkcs8().map_err(|error| client.failure(&error))?;
                let row = AccountRow {
                    directory: url.clone(),
                    key: URL_SAFE_NO_PAD.encode(key.secret_pkcs8_der()),
                    url: None,
                    email: None,
                };
                // Another gateway may have been first.
                store.add_account(host, &id, row).await?
            }
        };
        let damaged = || Failure::own("the account's key in `state` is damaged");
        let key = URL_SAFE_NO_PAD.decode(&row.key).map_err(|_| damaged())?;
        let at = match &row.url {
            Some(at) => at.clone(),
            None => {
                let at = register(client, &key, email).await?;
                row.url = Some(at.clone());
                row.email = email.map(str::to_owned);
                store.keep_account(host, &id, &row).await?;
                at
            }
        };
        let known = row.email.as_deref() == email;
        if known {
            drop(turn);
        }
        let builder = Account::builder_with_http(Box::new(client.clone()));
        let restored = builder.from_parts(at, key.into(), url).await;
        let account = restored.map_err(|error| client.failure(&error))?;
        if !known {
            let contact = email.map(|email| format!("mailto:{email}"));
            let contact: Vec<&str> = contact.as_deref().into_iter().collect();
            let updated = account.update_contacts(&contact).await;
            updated.map_err(|error| client.failure(&error))?;
            row.email = email.map(str::to_owned);
            store.keep_account(host, &id, &row).await?;
        }
        Ok(account)
    }
}

/// Forgets that the directory has confirmed the account, which it no longer knows; its key stays.
pub(super) async fn forget(store: &Store, client: &Client) -> Result<(), Failure> {
    let (host, id) = (
        client.directory().authority(),
        id_of(&client.directory().whole(), client.eab()),
    );
    if let Some(row) = store.account(host, &id).await? {
        let row = AccountRow { url: None, ..row };
        store.keep_account(host, &id, &row).await?;
    }
    Ok(())
}

/// The name of an account's file: the same for the same directory and external account.
fn id_of(url: &str, eab: Option<&Eab>) -> String {
    let kid = eab.map_or("", |eab| eab.kid.as_str());
    let whole = digest(&SHA256, format!("{url}\n{kid}").as_bytes());
    let first = whole.as_ref().iter().take(8);
    first.map(|byte| format!("{byte:02x}")).collect()
}

/// Registers a key, or finds the account that it already has; returns the account's URL.
async fn register(client: &Client, key: &[u8], email: Option<&str>) -> Result<String, Failure> {
    let eab = client.eab();
    let failed = |error: &Error| client.failure(error);
    let message = Message {
        method: Method::GET,
        headers: HeaderMap::new(),
        body: Bytes::new(),
    };
    let url = client.directory().whole();
    let answer = client.call(&url, &message).await;
    let answer = answer.map_err(|error| failed(&error))?;
    let directory: Directory = serde_json::from_slice(answer.body()).map_err(|error| {
        let url = client.directory();
        Failure::own(format!("{url} is no ACME directory: {error}"))
    })?;
    if directory.meta.external_account_required && eab.is_none() {
        let url = client.directory();
        let why = format!("{url} needs an external account: write its `eab`");
        return Err(Failure::own(why));
    }
    if let Some(terms) = &directory.meta.terms_of_service {
        tracing::info!(
            directory = %client.directory(),
            terms = terms.chars().filter(|letter| !letter.is_control()).take(400).collect::<String>(),
            "an ACME account is registered, which agrees to the directory's terms"
        );
    }
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key)
        .map_err(|_| Failure::own("the account's key in `state` is damaged"))?;
    let mut payload = json!({"termsOfServiceAgreed": true});
    if let Some(email) = email {
        set(&mut payload, "contact", json!([format!("mailto:{email}")]));
    }
    let jwk = jwk_of(&pair).ok_or_else(|| Failure::own("the account's key is damaged"))?;
    if let Some(eab) = eab {
        // RFC 8555 section 7.3.4.
        let header = json!({"alg": "HS256", "kid": eab.kid, "url": directory.new_account});
        let key = hmac::Key::new(hmac::HMAC_SHA256, eab.hmac.expose());
        let binding = jws(&header, &jwk, |message| {
            Some(hmac::sign(&key, message).as_ref().to_vec())
        });
        let binding = binding.ok_or_else(|| Failure::own("the external account's key fails"))?;
        set(&mut payload, "externalAccountBinding", binding);
    }
    let mut nonce = None;
    let mut tries = 0;
    loop {
        let known = match nonce.take() {
            Some(nonce) => nonce,
            None => new_nonce(client, &directory.new_nonce).await?,
        };
        let header = json!({
            "alg": "ES256", "jwk": jwk, "nonce": known, "url": directory.new_account,
        });
        let random = SystemRandom::new();
        let body = jws(&header, &payload, |message| {
            let signature = pair.sign(&random, message).ok()?;
            Some(signature.as_ref().to_vec())
        });
        let body = body.ok_or_else(|| Failure::own("the account's key fails"))?;
        let jose = HeaderValue::from_static("application/jose+json");
        let message = Message {
            method: Method::POST,
            headers: HeaderMap::from_iter([(header::CONTENT_TYPE, jose)]),
            body: body.to_string().into(),
        };
        let answer = client.call(&directory.new_account, &message).await;
        let answer = answer.map_err(|error| failed(&error))?;
        if answer.status().is_success() {
            let at = answer.headers().get(header::LOCATION);
            let at = at.and_then(|at| at.to_str().ok()).map(str::to_owned);
            return at.ok_or_else(|| Failure::own("the directory does not say the account's URL"));
        }
        let problem = serde_json::from_slice::<Problem>(answer.body());
        let error = match problem {
            Ok(problem) => Error::Api(problem),
            Err(error) => Error::Json(error),
        };
        tries += 1;
        if !is_bad_nonce(&error) || tries >= NONCES {
            return Err(failed(&error));
        }
        nonce = nonce_of(&answer);
    }
}

async fn new_nonce(client: &Client, url: &str) -> Result<String, Failure> {
    let message = Message {
        method: Method::HEAD,
        headers: HeaderMap::new(),
        body: Bytes::new(),
    };
    let answer = client.call(url, &message).await;
    let answer = answer.map_err(|error| client.failure(&error))?;
    nonce_of(&answer).ok_or_else(|| Failure::own("the directory gives no nonce"))
}

fn nonce_of(answer: &Response<Bytes>) -> Option<String> {
    let nonce = answer.headers().get("replay-nonce")?;
    nonce.to_str().ok().map(str::to_owned)
}

fn set(payload: &mut Value, name: &str, value: Value) {
    if let Value::Object(members) = payload {
        members.insert(name.to_owned(), value);
    }
}

/// The public key (RFC 7518 section 6.2.1).
fn jwk_of(pair: &EcdsaKeyPair) -> Option<Value> {
    // An uncompressed point: 4, x, y.
    let (x, y) = pair
        .public_key()
        .as_ref()
        .get(1..65)?
        .split_at_checked(32)?;
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    Some(json!({"kty": "EC", "crv": "P-256", "x": encode(x), "y": encode(y)}))
}

/// A JWS in its flattened JSON form (RFC 7515 section 7.2.2).
fn jws(
    header: &Value,
    payload: &Value,
    sign: impl FnOnce(&[u8]) -> Option<Vec<u8>>,
) -> Option<Value> {
    let protected = URL_SAFE_NO_PAD.encode(header.to_string());
    let payload = URL_SAFE_NO_PAD.encode(payload.to_string());
    let signature = sign(format!("{protected}.{payload}").as_bytes())?;
    let signature = URL_SAFE_NO_PAD.encode(signature);
    Some(json!({"protected": protected, "payload": payload, "signature": signature}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_has_one_file_for_its_directory_and_external_account() {
        let eab = |kid: &str| Eab {
            kid: kid.to_owned(),
            hmac: crate::snapshot::Hmac::new(Vec::new()),
        };
        let one = id_of("https://ca.test/a", None);
        assert_eq!(one.len(), 16);
        assert_eq!(one, id_of("https://ca.test/a", None));
        assert_ne!(one, id_of("https://ca.test/b", None));
        assert_ne!(one, id_of("https://ca.test/a", Some(&eab("kid"))));
    }

    #[test]
    fn signatures_are_of_what_is_sent() {
        use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
        let (_, key) = Key::generate_pkcs8().unwrap();
        let key = key.secret_pkcs8_der();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key).unwrap();
        let random = SystemRandom::new();
        let signed = jws(&json!({"alg": "ES256"}), &json!({}), |message| {
            Some(pair.sign(&random, message).unwrap().as_ref().to_vec())
        });
        let signed = signed.unwrap();
        let part = |name: &str| signed[name].as_str().unwrap().to_owned();
        let message = format!("{}.{}", part("protected"), part("payload"));
        let signature = URL_SAFE_NO_PAD.decode(part("signature")).unwrap();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, pair.public_key().as_ref())
            .verify(message.as_bytes(), &signature)
            .unwrap();
        let jwk = jwk_of(&pair).unwrap();
        assert_eq!(jwk["x"].as_str().unwrap().len(), 43);
    }
}
