//! Portcullis: nginx in front of the app, with the tokens checked.
//!
//! The library's entry point: [`run`] serves a configuration until it is told to stop, [`check`] reads one without
//! binding anything. ARCHITECTURE.md describes how the modules fit together.

mod admin;
mod auth;
#[doc(hidden)]
pub mod bench;
pub mod cli;
mod clock;
mod compress;
mod config;
mod control;
mod edits;
mod explain;
mod files;
mod filesystem;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzz;
mod gateway;
mod limit;
mod message;
mod net;
mod observe;
mod privilege;
mod proxy;
mod route;
#[cfg(any(test, fuzzing))]
mod script;
mod server;
mod snapshot;
mod state;
mod tokens;
mod wire;
mod worker;
mod yaml;

pub use self::config::{ConfigError, ConfigErrors, ConfigWarning};
pub use self::control::{Checked, RunError, RunOptions, check, run};
