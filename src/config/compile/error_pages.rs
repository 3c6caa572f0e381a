//! `errors`: reads the pages, once for each configuration.

use std::path::Path;
use std::sync::Arc;

use super::Compiler;
use crate::config::parsed::{self, Spanned};
use crate::config::source::{after, why};
use crate::message::error_pages::{ErrorPages, Page, Statuses};

/// The pages of the whole site.
#[derive(Debug, Default)]
pub(super) struct Site {
    pages: Vec<(Statuses, Arc<Page>)>,
    intercept: Vec<Statuses>,
    /// For routes without pages of their own.
    pub(super) whole: Option<Arc<ErrorPages>>,
}

impl Compiler<'_> {
    /// The pages of the whole site.
    pub(super) fn site_pages(&mut self, parsed: Option<&parsed::ErrorPages>) -> Site {
        let Some(parsed) = parsed else {
            return Site::default();
        };
        let pages = self.pages(parsed);
        let intercept = values(parsed.intercept.as_deref().unwrap_or_default());
        let whole = ErrorPages::new(&[], &pages, intercept.clone());
        Site {
            pages,
            intercept,
            whole: Some(Arc::new(whole)),
        }
    }

    /// The pages of a route.
    pub(super) fn route_pages(
        &mut self,
        parsed: Option<&parsed::ErrorPages>,
    ) -> Option<Arc<ErrorPages>> {
        let Some(parsed) = parsed else {
            return self.site.whole.clone();
        };
        let own = self.pages(parsed);
        let intercept = match &parsed.intercept {
            Some(own) => values(own),
            None => self.site.intercept.clone(),
        };
        let pages = ErrorPages::new(&own, &self.site.pages, intercept);
        Some(Arc::new(pages))
    }

    fn pages(&mut self, parsed: &parsed::ErrorPages) -> Vec<(Statuses, Arc<Page>)> {
        let pages = parsed.pages.iter();
        let read = pages.filter_map(|(statuses, file)| Some((*statuses, self.page(file)?)));
        read.collect()
    }

    fn page(&mut self, file: &Spanned<std::path::PathBuf>) -> Option<Arc<Page>> {
        match self.page_text(&file.value) {
            Ok(text) => Some(Arc::new(Page::parse(&text))),
            Err(problem) => {
                let problem = format!("`{}` {problem}", file.value.display());
                self.errors.at(file.place, problem);
                None
            }
        }
    }

    fn page_text(&self, path: &Path) -> Result<String, String> {
        let read = self.loader.read_public(path);
        let bytes = read.map_err(|error| format!("cannot be read: {}", why(&error)))?;
        if bytes.len() > Page::MOST {
            let (has, most) = (bytes.len() >> 10, Page::MOST >> 10);
            return Err(format!(
                "has {has} KiB; an error page has at most {most} KiB"
            ));
        }
        String::from_utf8(bytes).map_err(|error| {
            let (good, bytes) = (error.utf8_error().valid_up_to(), error.into_bytes());
            let (line, column) = after(&bytes, good);
            format!("is not UTF-8 (line {line}, column {column})")
        })
    }
}

fn values(list: &[Spanned<Statuses>]) -> Vec<Statuses> {
    list.iter().map(|item| item.value).collect()
}
