//! Every whole configuration in README.md, docs/ and examples/ passes `portcullis check`: each fenced
//! block of `yaml` there. A fragment says so: `yaml fragment`. Links lead somewhere, and every reason code is explained.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::SanType;

use super::support::{Authority, Folder, Kind, key, run_to_end};

const SECRET: &str = "a-secret-that-is-long-enough-for-every-hash-that-there-is-in-sha2-512";

#[test]
fn every_configuration_in_the_documents_is_accepted() {
    let authority = Authority::new();
    let mut failures = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for (line, block) in blocks(&text) {
            let folder = Folder::new();
            // Root checks whether `user` can enter it.
            let open = fs::Permissions::from_mode(0o755);
            fs::set_permissions(folder.path(""), open).unwrap();
            folder.write("gateway.yaml", &block);
            furnish(&folder, &block, &authority);
            let env = variables(&block);
            // Each has another value: two tokens of one configuration may not be equal.
            let env: Vec<_> = (env.iter())
                .map(|name| (name.as_str(), format!("{SECRET}-{name}")))
                .collect();
            let env: Vec<_> = (env.iter())
                .map(|(name, value)| (*name, value.as_str()))
                .collect();
            let output = run_to_end(&folder, &["check", "-c", "gateway.yaml"], &env);
            if !output.status.success() {
                failures.push(format!(
                    "{}:{line}:\n{}{}",
                    page.display(),
                    String::from_utf8_lossy(&output.stdout),
                    String::from_utf8_lossy(&output.stderr)
                ));
            }
        }
    }
    assert!(
        failures.is_empty(),
        "{} blocks are refused:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

#[test]
fn the_configuration_that_ships_is_accepted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let Ok(text) = fs::read_to_string(root.join("gateway.yaml")) else {
        return;
    };
    let folder = Folder::new();
    folder.write("gateway.yaml", &text);
    furnish(&folder, &text, &Authority::new());
    let env = variables(&text);
    let env: Vec<_> = env.iter().map(|name| (name.as_str(), SECRET)).collect();
    let output = run_to_end(&folder, &["check"], &env);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The pages that show configurations: the README, and everything below `docs/` and `examples/`.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec![root.join("README.md")];
    let mut directories = vec![root.join("docs"), root.join("examples")];
    while let Some(directory) = directories.pop() {
        let Ok(entries) = fs::read_dir(directory) else {
            continue;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy();
            if name.starts_with('.') || name == "node_modules" {
                continue; // packages that an example was installed with
            }
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|kind| kind == "md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    pages
}

#[test]
fn every_link_between_the_documents_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let more = ["ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"].map(|name| root.join(name));
    let mut broken = Vec::new();
    for page in pages().into_iter().chain(more) {
        let text = fs::read_to_string(&page).unwrap();
        for link in links(&text) {
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() {
                page.clone()
            } else {
                page.parent().unwrap().join(file)
            };
            let is_there = if anchor.is_empty() {
                target.exists()
            } else {
                fs::read_to_string(&target).is_ok_and(|text| anchors(&text).contains(anchor))
            };
            if !is_there {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
}

#[test]
fn every_reason_code_is_in_the_reference() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let source = fs::read_to_string(root.join("src/message/reject.rs")).unwrap();
    let page = fs::read_to_string(root.join("docs/reference/refusals.md")).unwrap();
    let explained = anchors(&page);
    let codes: Vec<&str> = source
        .split("fn reason(self)")
        .skip(1)
        .filter_map(|body| body.split("\n    }\n").next())
        .flat_map(|body| body.split("=> \"").skip(1))
        .filter_map(|rest| rest.split('"').next())
        .collect();
    assert!(codes.len() > 40, "{codes:?}");
    let missing: Vec<_> = codes
        .iter()
        .filter(|code| !explained.contains(**code))
        .collect();
    assert!(missing.is_empty(), "not in refusals.md: {missing:?}");
}

/// The targets of links to files of the repository, outside of fences and code spans.
fn links(text: &str) -> Vec<String> {
    prose(text)
        .flat_map(|line| {
            let spans: String = line.split('`').step_by(2).collect();
            let inline: Vec<_> = spans
                .split("](")
                .skip(1)
                .filter_map(|rest| Some(rest.split_once(')')?.0.to_owned()))
                .collect();
            let defined = line
                .strip_prefix('[')
                .and_then(|rest| Some(rest.split_once("]: ")?.1.to_owned()));
            inline.into_iter().chain(defined)
        })
        .filter(|link| !link.contains("://"))
        .collect()
}

/// What can be linked to: headings as GitHub makes anchors of them.
fn anchors(text: &str) -> BTreeSet<String> {
    prose(text)
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            line.trim_start_matches('#')
                .trim()
                .to_lowercase()
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | ' '))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect()
        })
        .collect()
}

/// The lines that stand in no fence.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut fenced = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

#[test]
fn links_and_anchors_are_read_as_github_reads_them() {
    let text = "# A key: `auth.on_expiry`\n[a](b.md#c) `[x](y.md)` [d](https://e)\n```\n[no](no.md)\n# no\n```\n[f]: g.md\n";
    assert_eq!(links(text), ["b.md#c", "g.md"]);
    assert_eq!(
        anchors(text).into_iter().collect::<Vec<_>>(),
        ["a-key-authon_expiry"]
    );
}

/// The fenced blocks whose info is `yaml` alone, with the line of the fence.
fn blocks(text: &str) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, usize, Option<String>)> = None;
    for (number, line) in text.lines().enumerate() {
        let fence = line.trim_start().strip_prefix("```");
        match (&mut open, fence) {
            (None, Some(info)) => {
                let indent = line.len() - line.trim_start().len();
                let wanted = info.trim() == "yaml";
                open = Some((number + 1, indent, wanted.then(String::new)));
            }
            (Some((at, _, block)), Some(_)) => {
                blocks.extend(block.take().map(|block| (*at, block)));
                open = None;
            }
            (Some((_, indent, Some(block))), None) => {
                block.push_str(line.get(*indent..).unwrap_or_default());
                block.push('\n');
            }
            _ => {}
        }
    }
    blocks
}

#[test]
fn whole_configurations_are_told_from_fragments() {
    let text = "a\n```yaml\nx: 1\n```\n```yaml fragment\ny: 2\n```\n```sh\nls\n```\n  ```yaml\n  z:\n    a: 3\n  ```\n";
    let found = blocks(text);
    assert_eq!(
        found,
        [(2, "x: 1\n".to_owned()), (11, "z:\n  a: 3\n".to_owned())]
    );
}

/// Puts what the configuration names beside it: folders, certificates, keys, secrets.
fn furnish(folder: &Folder, text: &str, authority: &Authority) {
    let page = |root: &str| {
        folder.write(&format!("{root}/index.html"), "<p>home");
    };
    for key in ["static:", "root:", "accel:"] {
        after(text, key)
            .filter(|path| !path.starts_with(['{', '[']))
            .for_each(|path| page(path.split('{').next().unwrap()));
    }
    for (at, begin) in text.match_indices("root: [") {
        let list = text[at + begin.len()..].split(']').next().unwrap();
        list.split(',').for_each(|path| page(path.trim()));
    }
    for (at, begin) in text.match_indices("accel: {") {
        let map = text[at + begin.len()..].split('}').next().unwrap();
        let folders = map.split(',').filter_map(|entry| entry.split_once(": "));
        folders.for_each(|(_, path)| page(path.trim()));
    }
    for spool in after(text, "spool:") {
        fs::create_dir_all(folder.path(&spool)).unwrap();
    }
    for (cert, key) in after(text, "cert:").zip(after(text, "key:")) {
        let issued = authority.issue("www.example.com");
        folder.write(&cert, issued.cert);
        folder.write(&key, issued.key);
    }
    for ca in after(text, "ca:") {
        folder.write(&ca, authority.pem());
    }
    for hook in after(text, "hook:") {
        let hook = folder.write(&hook, "#!/bin/sh\n");
        fs::set_permissions(hook, fs::Permissions::from_mode(0o755)).unwrap();
    }
    for list in after(text, "crl:") {
        folder.write(&list, authority.revoke(&[]));
    }
    for certificate in after(text, "certificate:").filter(|path| path.ends_with(".pem")) {
        let issued = authority.client(|params| {
            let uri = "spiffe://example.org/till/7".to_owned();
            params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        });
        folder.write(&certificate, issued.cert);
    }
    for page in words(text).filter(|word| word.starts_with("pages/")) {
        folder.write(&page, "<p>{title}");
    }
    for users in words(text).filter(|word| word.ends_with(".htpasswd")) {
        folder.write(&users, "");
    }
    for keys in words(text).filter(|word| word.ends_with("keys.yaml")) {
        folder.write(&keys, "{}");
    }
    for revoked in after(text, "revoked:") {
        folder.write(&revoked, "[]");
    }
    let kind = match text {
        text if ["RS256", "RS512", "PS256"]
            .iter()
            .any(|name| text.contains(name)) =>
        {
            Kind::Rsa
        }
        text if text.contains("ES384") => Kind::P384,
        text if text.contains("EdDSA") => Kind::Ed25519,
        _ => Kind::P256,
    };
    for word in words(text).filter(|word| word.ends_with(".pub.pem")) {
        folder.write(&word, &key(kind, 0).public);
    }
    for (at, _) in text.match_indices("${file:") {
        let rest = &text[at + 7..];
        folder.write(&rest[..rest.find('}').unwrap()], SECRET);
    }
}

/// The values behind a key, wherever it stands.
fn after(text: &str, key: &str) -> impl Iterator<Item = String> {
    text.match_indices(key)
        .filter(|(at, _)| {
            !text[..*at].ends_with(|before: char| before.is_alphanumeric() || before == '_')
        })
        .filter_map(|(at, _)| {
            let line = text[at + key.len()..].lines().next()?.trim_start();
            let value = line
                .split([',', '}', ']', '#'])
                .next()?
                .trim()
                .trim_matches(['"', '\'']);
            (!value.is_empty()).then(|| value.to_owned())
        })
        .collect::<Vec<_>>()
        .into_iter()
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|character: char| !(character.is_alphanumeric() || "./_-".contains(character)))
        .map(str::to_owned)
}

/// The names of the environment that have no default.
fn variables(text: &str) -> Vec<String> {
    text.match_indices("${")
        .filter_map(|(at, _)| text[at + 2..].split('}').next())
        .filter(|name| !name.starts_with("file:") && !name.contains(":-"))
        .map(str::to_owned)
        .collect()
}
