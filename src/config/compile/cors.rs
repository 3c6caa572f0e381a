//! `cors`: compiles the settings to header values.

use std::sync::Arc;

use super::Compiler;
use crate::config::parsed;
use crate::message::cors::{Cors, CorsSettings};
use crate::message::method::MethodSet;

impl Compiler<'_> {
    /// Compiles a route's `cors`, and adds its origins to the summary. Where it names no methods, the route's methods
    /// apply.
    pub(super) fn cors(
        &mut self,
        parsed: Option<&parsed::Cors>,
        methods: Option<MethodSet>,
        of: &str,
    ) -> Option<Arc<Cors>> {
        let parsed = parsed?;
        let own = self.methods(&parsed.methods);
        let texts = |names: &[parsed::Spanned<String>]| {
            names.iter().map(|name| name.value.clone()).collect()
        };
        let cors = Cors::new(CorsSettings {
            origins: parsed.origins.iter().map(|it| it.value.clone()).collect(),
            credentials: parsed.credentials.value,
            methods: own.or(methods).unwrap_or(MethodSet::COMMON),
            headers: texts(&parsed.headers),
            expose: texts(&parsed.expose),
            max_age: parsed.max_age.value,
        });
        self.summary.insert(format!("{of} cors"), cors.to_string());
        Some(Arc::new(cors))
    }
}
