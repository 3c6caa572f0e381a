//! The code keeps its own rules: who may import whom, where outside crates live, no loose ends.
//! A new room of `src/` is added to the table here, with what it may use.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The floors, the ground first, with the rooms on each. A room may use what stands on a floor below its own, and nothing
/// beside it.
const FLOORS: &[&[&str]] = &[
    &["clock", "filesystem", "privilege", "script", "yaml"],
    &["net"],
    &["message"],
    &["observe"],
    &["auth", "compress", "state", "wire"],
    &["edits", "limit"],
    &["files", "proxy", "tokens"],
    &["route"],
    &["snapshot"],
    &["worker"],
    &["gateway"],
    &["config", "explain", "server"],
    &["admin"],
    &["control"],
];

/// The rooms that tie everything together.
const TOP: &[&str] = &["lib", "main", "cli", "bench", "fuzz"];

/// Outside crates and the only places that may use them.
const HOMES: &[(&str, &[&str])] = &[
    ("h2", &["wire/http2"]),
    (
        "serde",
        &["config", "auth", "cli", "control/acme", "tokens", "yaml"],
    ),
    (
        "serde_json",
        &[
            "admin",
            "config",
            "auth",
            "cli",
            "control/acme",
            "files/listing",
            "tokens",
            "yaml",
        ],
    ),
    ("serde_yaml", &["config/print", "yaml"]),
    ("saphyr_parser", &["config", "auth", "cli"]),
    (
        "jsonwebtoken",
        &[
            "auth/algorithm",
            "auth/keys",
            "auth/provider",
            "auth/public_key",
            "auth/signing",
        ],
    ),
    (
        "aws_lc_rs",
        &["auth", "control/acme", "net/tls", "state", "tokens"],
    ),
    ("quick_cache", &["auth/remembered", "compress/store"]),
    ("arc_swap", &["auth/remote", "auth/revoked", "net/tls"]),
    ("brotli", &["compress/encoder"]),
    ("flate2", &["compress/encoder", "net/fetch"]),
    ("zstd", &["compress/encoder"]),
    ("brotli_decompressor", &["net/fetch"]),
    ("ruzstd", &["net/fetch"]),
    ("listenfd", &["server/inherited"]),
    ("redb", &["tokens/store"]),
    (
        "redis",
        &[
            "control/acme/shared",
            "control/tickets",
            "state",
            "tokens/store",
        ],
    ),
    ("argon2", &["auth/password"]),
    ("bcrypt", &["auth/password"]),
    ("governor", &["tokens/throttle"]),
    ("psl", &["config/acme"]),
    ("jiff", &["admin/told", "config/value"]),
    ("prometheus_client", &["admin/collector"]),
    ("notify", &["control/reload"]),
    ("rustls", &["net/tls", "server"]),
    ("x509_parser", &["net/tls"]),
    ("tokio_rustls", &["net/tls", "server"]),
    ("instant_acme", &["control/acme"]),
    ("rcgen", &["cli", "control/acme"]),
    ("tikv_jemalloc_ctl", &["control/start"]),
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
    let floor = |room: &str| FLOORS.iter().position(|rooms| rooms.contains(&room));
    let rooms: BTreeSet<_> = sources().iter().map(room).collect();
    let mut problems = Vec::new();
    for source in sources() {
        let own = room(&source);
        if TOP.contains(&own.as_str()) {
            continue;
        }
        let Some(here) = floor(&own) else {
            problems.push(format!(
                "src/{}.rs: the room {own} has no floor",
                source.name
            ));
            continue;
        };
        for used in named_after(&source.code, "crate::") {
            let known = rooms.contains(&used) && used != own;
            if known && floor(&used).is_none_or(|there| there >= here) {
                problems.push(format!("src/{}.rs: {own} must not use {used}", source.name));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

fn room(source: &Source) -> String {
    source.name.split('/').next().unwrap().to_owned()
}

/// The module paths that follow `prefix` in the code, lists taken apart: `a::{b, c::d}` is `a::b` and `a::c::d`.
fn paths_after(code: &str, prefix: &str) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        let before = code[..at].chars().next_back();
        if before.is_none_or(|it| !it.is_alphanumeric() && it != '_' && it != ':') {
            expand(&code[at + prefix.len()..], "", &mut paths);
        }
    }
    paths
}

/// Reads one path, or a list of paths, and gives what follows it.
fn expand<'c>(code: &'c str, outer: &str, paths: &mut BTreeSet<String>) -> &'c str {
    let code = code.trim_start();
    if let Some(mut list) = code.strip_prefix('{') {
        loop {
            list = expand(list, outer, paths).trim_start();
            match list.strip_prefix(',') {
                Some(more) => list = more,
                None => return list.strip_prefix('}').unwrap_or(list),
            }
        }
    }
    let name = word(code);
    let rest = &code[name.len()..];
    let path = [outer, name.as_str()].concat();
    match rest.strip_prefix("::") {
        Some(rest) if !name.is_empty() => expand(rest, &format!("{path}::"), paths),
        _ => {
            paths.insert(path);
            rest
        }
    }
}

/// The files that each file imports. What a file uses of the room around it, its face, is not counted.
fn imports() -> BTreeMap<String, BTreeSet<String>> {
    let module = |source: &Source| {
        let name = source.name.strip_suffix("/mod").unwrap_or(&source.name);
        name.replace('/', "::")
    };
    let all = sources();
    let modules: BTreeSet<String> = all.iter().map(module).collect();
    let mut imports = BTreeMap::new();
    for source in &all {
        let own = module(source);
        let mut uses = BTreeSet::new();
        let outer = |levels: usize| {
            let parts: Vec<&str> = own.split("::").collect();
            parts[..parts.len().saturating_sub(levels)].join("::")
        };
        for (prefix, base) in [
            ("crate::", String::new()),
            ("self::", own.clone()),
            ("super::", outer(1)),
            ("super::super::", outer(2)),
        ] {
            for path in paths_after(&source.code, prefix) {
                let whole = format!("{base}::{path}");
                let mut parts: Vec<&str> = whole.split("::").filter(|it| !it.is_empty()).collect();
                while !parts.is_empty() && !modules.contains(&parts.join("::")) {
                    parts.pop();
                }
                uses.insert(parts.join("::"));
            }
        }
        let around =
            |used: &str| used.is_empty() || own == used || own.starts_with(&format!("{used}::"));
        uses.retain(|used| !around(used));
        imports.insert(own, uses);
    }
    imports
}

#[test]
fn files_import_each_other_in_no_circle() {
    let imports = imports();
    assert!(imports.values().map(BTreeSet::len).sum::<usize>() > imports.len());
    // Whoever imports nothing that is left is in no circle, and is taken out.
    let mut left = imports;
    loop {
        let free: Vec<String> = left
            .iter()
            .filter(|(_, uses)| uses.iter().all(|used| !left.contains_key(used)))
            .map(|(file, _)| file.clone())
            .collect();
        if free.is_empty() {
            break;
        }
        for file in free {
            left.remove(&file);
        }
    }
    let circles: Vec<String> = left
        .iter()
        .map(|(file, uses)| {
            format!(
                "{file} -> {}",
                uses.iter().cloned().collect::<Vec<_>>().join(", ")
            )
        })
        .collect();
    assert!(
        circles.is_empty(),
        "in a circle, or above one:\n{}",
        circles.join("\n")
    );
}

#[test]
fn paths_are_taken_apart() {
    let paths = paths_after(
        "use super::a::{b, c::{d, self}};\nlet x = super::e(1);\nuse not_super::f; super::super::g",
        "super::",
    );
    assert_eq!(
        paths.into_iter().collect::<Vec<_>>(),
        ["a::b", "a::c::d", "a::c::self", "e", "super::g"]
    );
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
