//! The text that the demo prints when the gateway is ready: its addresses, the users, and commands to copy.

use std::path::{Path, PathBuf};

use super::Printed;
use crate::cli::cert::local::LocalCa;
use crate::cli::guide::LINK_LIFETIME;

/// The values to print. No `Debug`: it contains passwords.
pub(super) struct Told<'t> {
    /// The configuration, as it was named.
    pub(super) config: &'t Path,
    /// Messages about ports and files.
    pub(super) notes: &'t [String],
    /// The page.
    pub(super) http: &'t str,
    /// The page over TLS.
    pub(super) https: &'t str,
    /// The code of the sign-in link, where the configuration has a route for it.
    pub(super) code: Option<&'t str>,
    /// Who can sign in.
    pub(super) users: &'t [Printed; 2],
    /// A token for the first of them.
    pub(super) token: &'t str,
}

/// The whole text.
pub(super) fn instructions(told: &Told<'_>) -> String {
    let Told {
        config,
        http,
        https,
        users,
        token,
        ..
    } = *told;
    let file = quote(&config.display().to_string());
    let backup = quote(&format!("{}.bak", config.display()));
    let root = LocalCa::root(&join(config, "certs"));
    let root = quote(&root.display().to_string());
    let bearer = "-H \"Authorization: Bearer $TOKEN\"";
    // Both GNU and BSD sed understand `-i.bak` in one word.
    let edit = format!("sed -i.bak 's/body: pong/body: edited/' {file}");
    let [alice, _] = users;
    let steps = [
        (
            "Sign in, as the page does: an access and a refresh token",
            vec![format!(
                "curl -i -d 'username={}&password={}' {http}/api/token/",
                alice.name, alice.password
            )],
        ),
        (
            "For the next commands, a token for alice, valid for an hour",
            vec![format!("export TOKEN={token}")],
        ),
        (
            "A static file: 200",
            vec![format!("curl -i {http}/favicon.svg")],
        ),
        (
            "The app without a token: 401, and the app never hears of it",
            vec![format!("curl -i {http}/api/orders/")],
        ),
        (
            "The app with the token: 200, and x-user-id tells the app who the user is",
            vec![format!("curl -i {bearer} {http}/api/orders/")],
        ),
        (
            "A route for admins, but alice is a clerk: 403",
            vec![format!("curl -i {bearer} {http}/api/admin/")],
        ),
        (
            "The same app over TLS",
            vec![format!(
                "curl -i --cacert {root} {bearer} {https}/api/orders/"
            )],
        ),
        (
            "A live edit: the response changes, no restart",
            vec![
                format!("curl -w '\\n' {http}/ping"),
                format!("{edit} && sleep 1 && curl -w '\\n' {http}/ping"),
                format!("mv {backup} {file}"),
            ],
        ),
    ];

    let mut text = format!("\nPortcullis serves {file}. Ctrl-C ends the demo.\n");
    for note in told.notes {
        line(&mut text, note);
    }
    text.push('\n');
    if let Some(code) = told.code {
        let minutes = LINK_LIFETIME.as_secs() / 60;
        let name = alice.name;
        line(&mut text, &format!("  Open      {http}/#sign-in={code}"));
        line(
            &mut text,
            &format!("            (signs in {name}, once, within {minutes} minutes)"),
        );
    }
    line(&mut text, &format!("  Browser   {http}/"));
    line(
        &mut text,
        &format!("  TLS       {https}/ (the browser asks, unless it trusts {root})"),
    );
    for (label, user) in ["Sign in", "or"].iter().zip(users) {
        let Printed {
            name,
            password,
            roles,
        } = user;
        line(
            &mut text,
            &format!("  {label:8}  {name:6} {password}  ({roles})"),
        );
    }
    let here = if config.is_absolute() {
        ""
    } else {
        ", in this directory"
    };
    line(&mut text, &format!("\nTo try in another terminal{here}:"));
    for (title, commands) in &steps {
        line(&mut text, &format!("\n  {title}"));
        for command in commands {
            line(&mut text, &format!("    {command}"));
        }
    }
    text.push('\n');
    text
}

/// Appends a line.
fn line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

/// `name` beside `config`, in a path as short as the user's.
fn join(config: &Path, name: &str) -> PathBuf {
    config
        .parent()
        .map_or_else(|| PathBuf::from(name), |parent| parent.join(name))
}

/// A word for a POSIX shell: unquoted where that is safe, else in single quotes.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+@%".contains(c);
    if !word.is_empty() && !word.starts_with('-') && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_shows_every_step_and_names_the_file_as_given() {
        let users = super::super::USERS.map(|(name, roles)| Printed {
            name,
            password: format!("password-of-{name}"),
            roles,
        });
        let text = instructions(&Told {
            config: Path::new("my demo/gateway.yaml"),
            notes: &["Port 1 is taken.".to_owned()],
            http: "http://127.0.0.1:8080",
            https: "https://localhost:8443",
            code: Some("c-o-d-e"),
            users: &users,
            token: "a.b.c",
        });
        for needle in [
            "Ctrl-C ends the demo.\nPort 1 is taken.\n\n",
            "  Open      http://127.0.0.1:8080/#sign-in=c-o-d-e\n",
            "in another terminal, in this directory:\n",
            "password-of-alice  (clerk)",
            "password-of-bob  (admin)",
            "-d 'username=alice&password=password-of-alice' http://127.0.0.1:8080/api/token/\n",
            "export TOKEN=a.b.c\n",
            "curl -i http://127.0.0.1:8080/api/orders/\n",
            "sed -i.bak 's/body: pong/body: edited/' 'my demo/gateway.yaml' &&",
            "--cacert 'my demo/certs/local-ca/root.pem'",
            "curl -w '\\n' http://127.0.0.1:8080/ping\n",
        ] {
            assert!(text.contains(needle), "{needle:?} is not in\n{text}");
        }
    }

    #[track_caller]
    fn check_quote(word: &str, expected: &str) {
        assert_eq!(quote(word), expected, "word {word:?}");
    }

    #[test]
    fn words_are_quoted_where_a_shell_would_read_them_otherwise() {
        check_quote("gateway.yaml", "gateway.yaml");
        check_quote("../a/gateway.yaml", "../a/gateway.yaml");
        check_quote("my demo.yaml", "'my demo.yaml'");
        check_quote("it's", r"'it'\''s'");
        check_quote("$(x)", "'$(x)'");
        check_quote("~/x", "'~/x'");
        check_quote("-x", "'-x'");
        check_quote("", "''");
    }
}
