//! The code keeps its own rules: who may import whom, where outside crates live, no loose ends.
//! A new room of `src/` is added to the table here, with what it may use.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Which rooms a room may use; the ground comes first. Those in [`TOP`] may use all.
const MAY_USE: &[(&str, &[&str])] = &[
    ("alphabet", &[]),
    ("body", &[]),
    ("client", &[]),
    ("clock", &[]),
    ("der", &[]),
    ("fields", &[]),
    ("filesystem", &[]),
    ("limits", &[]),
    ("log", &[]),
    ("method", &[]),
    ("request_id", &[]),
    ("script", &[]),
    ("stream", &["script"]),
    ("tls", &["der"]),
    ("url", &[]),
    ("resolve", &[]),
    ("dial", &["resolve"]),
    ("fetch", &["dial", "tls", "url"]),
    ("reject", &["method"]),
    ("path", &["alphabet", "reject"]),
    ("cors", &["method", "reject"]),
    (
        "wire",
        &[
            "alphabet", "reject", "limits", "body", "method", "clock", "script", "stream",
        ],
    ),
    (
        "access_log",
        &["clock", "method", "reject", "client", "request_id"],
    ),
    ("auth", &["alphabet", "reject", "clock", "der", "url"]),
    ("edits", &["auth", "fields", "reject", "request_id"]),
    ("issuers", &["auth", "dial", "fetch", "tls", "clock", "url"]),
    (
        "files",
        &["auth", "path", "body", "reject", "method", "clock", "wire"],
    ),
    (
        "proxy",
        &[
            "auth",
            "path",
            "client",
            "body",
            "reject",
            "method",
            "clock",
            "edits",
            "fields",
            "wire",
            "limits",
            "script",
            "stream",
            "dial",
            "request_id",
        ],
    ),
    (
        "tokens",
        &[
            "auth",
            "body",
            "client",
            "cors",
            "reject",
            "filesystem",
            "resolve",
        ],
    ),
    (
        "route",
        &[
            "auth", "files", "proxy", "path", "method", "reject", "edits", "cors", "tokens",
        ],
    ),
    (
        "snapshot",
        &[
            "access_log",
            "route",
            "tls",
            "limits",
            "client",
            "edits",
            "dial",
            "proxy",
            "auth",
            "tokens",
        ],
    ),
    (
        "worker",
        &["snapshot", "auth", "proxy", "clock", "limits", "request_id"],
    ),
    (
        "gateway",
        &[
            "snapshot",
            "route",
            "worker",
            "auth",
            "files",
            "proxy",
            "access_log",
            "body",
            "client",
            "clock",
            "cors",
            "edits",
            "alphabet",
            "fields",
            "limits",
            "method",
            "path",
            "reject",
            "request_id",
            "tokens",
            "wire",
        ],
    ),
    (
        "explain",
        &[
            "gateway",
            "snapshot",
            "route",
            "auth",
            "client",
            "cors",
            "method",
            "path",
            "proxy",
            "reject",
            "request_id",
        ],
    ),
    (
        "server",
        &[
            "gateway", "snapshot", "worker", "tls", "client", "limits", "wire", "body", "clock",
            "reject", "stream",
        ],
    ),
    (
        "config",
        &[
            "snapshot",
            "route",
            "auth",
            "files",
            "filesystem",
            "proxy",
            "path",
            "client",
            "limits",
            "tls",
            "method",
            "edits",
            "cors",
            "url",
            "tokens",
            "reject",
            "access_log",
            "dial",
        ],
    ),
    (
        "reload",
        &[
            "config",
            "snapshot",
            "explain",
            "clock",
            "filesystem",
            "tokens",
        ],
    ),
];

/// The rooms that tie everything together.
const TOP: &[&str] = &["lib", "main", "cli", "bench", "fuzz"];

/// Outside crates and the only places that may use them.
const HOMES: &[(&str, &[&str])] = &[
    ("h2", &["wire/http2"]),
    ("serde", &["config", "auth", "cli", "tokens"]),
    ("serde_json", &["config", "auth", "cli", "tokens"]),
    ("saphyr_parser", &["config", "auth", "cli"]),
    ("jsonwebtoken", &[]),
    ("aws_lc_rs", &["auth", "tls", "tokens"]),
    ("quick_cache", &["auth/remembered"]),
    ("arc_swap", &["auth/remote", "auth/revoked"]),
    ("flate2", &["fetch"]),
    ("brotli_decompressor", &["fetch"]),
    ("ruzstd", &["fetch"]),
    ("redb", &["tokens/store"]),
    ("argon2", &["tokens/password"]),
    ("bcrypt", &["tokens/password"]),
    ("governor", &["tokens/throttle"]),
    ("jiff", &["config/value"]),
    ("notify", &["reload"]),
    ("rustls", &["tls", "server"]),
    ("tokio_rustls", &["tls", "server"]),
    ("rcgen", &["cli"]),
    ("clap", &["cli", "main"]),
];

/// A file of `src/`: its path below it without `.rs`, and its text without comments and tests.
struct Source {
    name: String,
    whole: String,
    code: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    files.sort();
    assert!(!files.is_empty());
    files
        .into_iter()
        .map(|path| {
            let whole = fs::read_to_string(&path).unwrap();
            let name = path.strip_prefix(&root).unwrap().with_extension("");
            let code = without_tests(&whole)
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
                .collect::<Vec<_>>()
                .join("\n");
            Source {
                name: name.to_str().unwrap().to_owned(),
                whole,
                code,
            }
        })
        .filter(|source| !source.name.ends_with("/tests"))
        .collect()
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            files.push(path);
        }
    }
}

/// Tests stand at the end of a file; they may use what they like.
fn without_tests(text: &str) -> &str {
    text.find("\n#[cfg(test)]\nmod tests")
        .map_or(text, |at| &text[..at])
}

/// The names that follow `prefix` in the code: `crate::a`, and `crate::{a, b::c}`.
fn named_after(code: &str, prefix: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        let rest = &code[at + prefix.len()..];
        let Some(list) = rest.strip_prefix('{') else {
            names.insert(word(rest));
            continue;
        };
        let mut depth = 0;
        for part in list.split_inclusive([',', '{', '}']) {
            if depth == 0 {
                names.insert(word(part.trim_start()));
            }
            match part.chars().last() {
                Some('{') => depth += 1,
                Some('}') if depth == 0 => break,
                Some('}') => depth -= 1,
                _ => {}
            }
        }
    }
    names.remove("");
    names
}

fn word(text: &str) -> String {
    text.chars()
        .take_while(|next| next.is_alphanumeric() || *next == '_')
        .collect()
}

#[test]
fn imports_run_downward() {
    let rooms: BTreeSet<_> = sources().iter().map(room).collect();
    let mut problems = Vec::new();
    for source in sources() {
        let own = room(&source);
        if TOP.contains(&own.as_str()) {
            continue;
        }
        let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == own) else {
            problems.push(format!(
                "src/{}.rs: the room {own} is not in the table",
                source.name
            ));
            continue;
        };
        for used in named_after(&source.code, "crate::") {
            let known = rooms.contains(&used) && used != own;
            if known && !allowed.contains(&used.as_str()) {
                problems.push(format!("src/{}.rs: {own} must not use {used}", source.name));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

fn room(source: &Source) -> String {
    source.name.split('/').next().unwrap().to_owned()
}

#[test]
fn the_table_runs_downward() {
    for (at, (room, uses)) in MAY_USE.iter().enumerate() {
        for used in *uses {
            let below = MAY_USE[..at].iter().any(|(name, _)| name == used);
            assert!(below, "{used} must stand above {room} in the table");
        }
    }
}

#[test]
fn outside_crates_stay_at_home() {
    let mut problems = Vec::new();
    for source in sources() {
        for (outside, homes) in HOMES {
            let used = source
                .code
                .match_indices(&format!("{outside}::"))
                .any(|(at, _)| {
                    !source.code[..at]
                        .ends_with(|before: char| before.is_alphanumeric() || before == '_')
                });
            let home =
                |home: &&str| source.name == *home || source.name.starts_with(&format!("{home}/"));
            if used && !homes.iter().any(home) {
                problems.push(format!(
                    "src/{}.rs: {outside} lives in {homes:?}",
                    source.name
                ));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn there_are_no_loose_ends() {
    let mut problems = Vec::new();
    for source in sources() {
        if !source.whole.starts_with("//!") {
            problems.push(format!(
                "src/{}.rs: does not say what it is for",
                source.name
            ));
        }
        for loose in ["todo!(", "unimplemented!(", "dbg!(", "TODO", "FIXME", "XXX"] {
            if source.whole.contains(loose) {
                problems.push(format!("src/{}.rs: {loose}", source.name));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn lists_of_imports_are_read_whole() {
    let names = named_after(
        "use crate::{a, b::{c, d}, e};\nuse crate::f::g;\ncrate::h()",
        "crate::",
    );
    assert_eq!(
        names.into_iter().collect::<Vec<_>>(),
        ["a", "b", "e", "f", "h"]
    );
}
