//! Story tests against the real program over real sockets: each starts `portcullis run` in a folder
//! of its own and talks to it as clients and apps do. What one function does is tested beside it.

// A test stops at the first surprise, and mints tokens around the real time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::disallowed_methods,
    clippy::needless_pass_by_value,
    clippy::wildcard_enum_match_arm,
    clippy::large_futures
)]

mod accel;
mod acme;
mod admin;
mod api_keys;
mod attacks;
mod balance;
mod basic;
mod blocking_files;
mod bound;
mod buffering;
mod certified;
mod claims;
mod clients;
mod command_line;
mod compression;
mod config;
mod cors;
mod demo;
mod descriptors;
mod docs;
mod early;
mod ejection;
mod error_pages;
mod failures;
mod fields;
mod folders;
mod hashing;
mod hazards;
mod health;
mod hostile;
mod http2;
mod issuers;
mod jwt;
mod limiting;
mod limits;
mod listing;
mod logs;
mod otherwise;
mod policy;
mod precompressed;
mod prompt;
mod proxy;
mod proxy_protocol;
mod queries;
mod queueing;
mod refusals;
mod reload;
mod resting;
mod retries;
mod reuse;
mod rotation;
mod shutdown;
mod sockets;
mod static_files;
mod sticky;
mod streaming;
mod support;
mod systemd;
mod targets;
mod tidy;
mod tls;
mod tokens;
mod user;
mod vectors;
mod verifiers;
mod websocket;
