//! `compress` of a route, or else of `defaults`: on for files and off for apps where neither says it.

use super::Compiler;
use crate::compress::{CompressRules, Private};
use crate::config::parsed::{self, Auth, Compress, TokenSource};

impl Compiler<'_> {
    /// The rules of a route that forwards to an app.
    pub(super) fn compress_answers(
        &mut self,
        parsed: &parsed::Route,
        gateway: &parsed::Gateway,
    ) -> Option<Box<CompressRules>> {
        let said = parsed.compress.as_ref();
        if let Some(own) = said
            && parsed.app().is_none()
            && parsed.files.is_none()
        {
            let problem = "`compress` means something only beside `static` and `proxy`";
            self.errors.at(own.place, problem);
        }
        parsed.app()?;
        match &said.or(gateway.defaults.compress.as_ref())?.value {
            Compress::Off => None,
            Compress::On(rules) => {
                if rules.private == Private::Always && takes_cookies(parsed, gateway) {
                    self.warnings.push(format!(
                        "`{}`: tokens come in cookies, and `compress.private: always` lets other sites learn from the \
                         lengths of its responses what is in them (BREACH)",
                        parsed.path.value
                    ));
                }
                Some(rules.clone())
            }
        }
    }
}

/// The rules of a route with files.
pub(super) fn of_files(parsed: &parsed::Route, gateway: &parsed::Gateway) -> Option<CompressRules> {
    let said = parsed.compress.as_ref();
    match &said.or(gateway.defaults.compress.as_ref()) {
        None => Some(CompressRules::default()),
        Some(said) => match &said.value {
            Compress::Off => None,
            Compress::On(rules) => Some((**rules).clone()),
        },
    }
}

/// Whether a verifier of the route takes tokens from cookies.
fn takes_cookies(parsed: &parsed::Route, gateway: &parsed::Gateway) -> bool {
    let auth = parsed.auth.as_ref().or(gateway.defaults.auth.as_ref());
    let Some(Auth::Jwt(rule)) = auth else {
        return false;
    };
    rule.verifiers.iter().any(|name| {
        let of_tokens = gateway.tokens.as_ref().filter(|_| name.value == "tokens");
        let mut named = gateway.jwt.iter();
        let verifier = named.find(|(known, _)| known.value == name.value);
        of_tokens.is_some_and(|tokens| tokens.cookies.is_some())
            || verifier.is_some_and(|(_, verifier)| {
                let mut sources = verifier.from.iter();
                sources.any(|source| matches!(source.value, TokenSource::Cookie(_)))
            })
    })
}
