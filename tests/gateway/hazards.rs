//! What gives access or secrets away: `check` says it of a configuration that is good otherwise, and refuses what is never
//! meant.

use std::fs::{Permissions, set_permissions};
use std::os::unix::fs::{PermissionsExt, symlink};

use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use super::support::{Folder, config, free_port, run_to_end};

fn check(folder: &Folder, text: &str) -> (Option<i32>, String) {
    let output = run_to_end(folder, &["check"], &[]);
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(!said.contains("panicked at"), "{text}\n{said}");
    (output.status.code(), said)
}

fn check_text(folder: &Folder, text: &str) -> (Option<i32>, String) {
    let text = config(text, &[]);
    folder.write("gateway.yaml", &text);
    chmod(folder, "gateway.yaml", 0o640);
    check(folder, &text)
}

fn chmod(folder: &Folder, name: &str, mode: u32) {
    set_permissions(folder.path(name), Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_served_directory_holds_nothing_of_the_gateways_own() {
    let folder = Folder::new();
    for name in ["www/a.html", "www/.well-known/b", "secret/key", "www/.env"] {
        folder.write(name, "0123456789abcdef0123456789abcdef");
    }
    symlink(folder.path("www"), folder.path("link")).unwrap();
    symlink(folder.path("www/a.html"), folder.path("outside")).unwrap();
    let with =
        |root: &str, more: &str| format!("routes: [{{path: '/f/*', static: '{root}'}}]\n{more}");
    let secret =
        |name: &str| format!("jwt: {{a: {{algorithms: [HS256], secret: '${{file:{name}}}'}}}}\n");
    for (root, more, held) in [
        (".", String::new(), Some("gateway.yaml")),
        ("www/..", String::new(), Some("gateway.yaml")),
        ("www", String::new(), None),
        ("www", secret("www/a.html"), Some("www/a.html")),
        ("link", secret("www/a.html"), Some("www/a.html")),
        ("www", secret("outside"), Some("outside")),
        ("www", secret("secret/key"), None),
        ("www", secret("www/.well-known/b"), Some(".well-known/b")),
        // Hidden files are never sent.
        ("www", secret("www/.env"), None),
        // Not there yet, none of them.
        (
            "www",
            "log: {access: {to: www/new.log}}\n".into(),
            Some("www/new.log"),
        ),
        (
            "www",
            "state: www/data/deep\ntokens: {keys: keys, users: users.yaml}\n".into(),
            Some("www/data/deep"),
        ),
        (
            "www",
            "state: data\ntokens: {keys: www/keys, users: users.yaml}\n".into(),
            Some("www/keys"),
        ),
        (
            "www",
            "state: data\ntokens: {keys: keys, users: www/users.yaml}\n".into(),
            Some("www/users.yaml"),
        ),
        (
            "www",
            "upstreams: {u: {servers: ['http://127.0.0.1:9'], buffer: {spool: www/spool}}}\n"
                .into(),
            Some("www/spool"),
        ),
    ] {
        let (code, said) = check_text(&folder, &with(root, &more));
        match held {
            None => assert_eq!(code, Some(0), "{root} {more}\n{said}"),
            Some(held) => {
                assert_eq!(code, Some(2), "{root} {more}\n{said}");
                let both = said.contains("clients could fetch") && said.contains(held);
                assert!(both, "{root} {more}\n{said}");
            }
        }
    }
}

#[test]
fn no_client_chooses_the_host_of_a_redirect() {
    let folder = Folder::new();
    for (to, is_open) in [
        ("https://new.example.com{rest}", true),
        ("https://{rest}", true),
        ("https://www.{rest}/a", true),
        ("https:{rest}", true),
        ("https:/{rest}", true),
        ("https:///{rest}", true),
        ("//new.example.com{rest}", true),
        ("//{rest}", true),
        ("{rest}", true),
        ("a{rest}", true),
        ("https://new.example.com/{rest}", false),
        ("https://new.example.com?to={rest}", false),
        ("https://new.example.com#{rest}", false),
        ("//new.example.com/{rest}", false),
        ("/{rest}", false),
        ("/new/{rest}", false),
        ("new/{rest}", false),
        ("/new:{rest}", false),
        ("https://new.example.com", false),
    ] {
        let text = format!("routes: [{{path: '/old/*', redirect: {{to: '{to}'}}}}]\n");
        let (code, said) = check_text(&folder, &text);
        if is_open {
            assert_eq!(code, Some(2), "{to}\n{said}");
            assert!(
                said.contains("the client decides on the host"),
                "{to}\n{said}"
            );
        } else {
            assert_eq!(code, Some(0), "{to}\n{said}");
        }
    }
}

#[test]
fn an_exact_path_that_is_stricter_than_its_twin_is_said() {
    let folder = Folder::new();
    const APP: &str = "proxy: 'http://127.0.0.1:9'";
    let strict = "auth: {jwt: a, require: {role: admin}}";
    for (routes, twin) in [
        (
            format!("{{path: /*, {APP}, auth: a}}, {{path: /admin, {APP}, {strict}}}"),
            Some("/admin/"),
        ),
        (
            format!("{{path: /*, {APP}, auth: none}}, {{path: /admin, {APP}, auth: a}}"),
            Some("/admin/"),
        ),
        (
            format!(
                "{{path: /*, {APP}, auth: none}}, {{path: /admin/, {APP}, auth: a}}, {{path: /admin/x, {APP}, auth: a}}"
            ),
            Some("`/admin`"),
        ),
        (
            format!("{{path: /*, {APP}, auth: none}}, {{path: '/u/{{id}}', {APP}, auth: a}}"),
            Some("/u/{id}/"),
        ),
        (
            format!("{{path: /*, {APP}, auth: none}}, {{path: /admin, respond: {{status: 403}}}}"),
            Some("/admin/"),
        ),
        (
            format!(
                "{{path: /*, {APP}, auth: none}}, {{path: /admin, {APP}, auth: a, methods: [POST]}}"
            ),
            Some("/admin/"),
        ),
        // The same server by another name.
        (
            format!(
                "{{path: /*, {APP}, auth: none}}, {{path: /admin, proxy: 'http://localhost:9', auth: a}}"
            ),
            Some("/admin/"),
        ),
        // As strict, less strict, another app, a star, an own route for the twin.
        (
            format!("{{path: /*, {APP}, auth: a}}, {{path: /admin, {APP}, auth: a}}"),
            None,
        ),
        (
            format!("{{path: /*, {APP}, {strict}}}, {{path: /admin, {APP}, auth: a}}"),
            None,
        ),
        (
            format!(
                "{{path: /*, {APP}, auth: none}}, {{path: /admin, proxy: 'http://127.0.0.1:10', auth: a}}"
            ),
            None,
        ),
        (
            format!("{{path: /*, {APP}, auth: none}}, {{path: '/admin/*', {APP}, auth: a}}"),
            None,
        ),
        (
            format!(
                "{{path: /*, {APP}, auth: none}}, {{path: /admin, {APP}, {strict}}}, {{path: '/admin/*', {APP}, {strict}}}"
            ),
            None,
        ),
        (
            format!("{{path: /*, {APP}, auth: none}}, {{path: /, {APP}, auth: a}}"),
            None,
        ),
        (
            format!("{{path: /*, {APP}, auth: none}}, {{path: /gone, respond: {{status: 200}}}}"),
            None,
        ),
    ] {
        let text =
            format!("jwt: {{a: {{algorithms: [HS256], secret: '${{S}}'}}}}\nroutes: [{routes}]\n");
        folder.write("gateway.yaml", config(&text, &[]));
        let output = run_to_end(
            &folder,
            &["check"],
            &[("S", "0123456789abcdef0123456789abcdef")],
        );
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(0), "{routes}\n{said}");
        let warning = said.lines().find(|line| line.contains("is stricter than"));
        match twin {
            None => assert_eq!(warning, None, "{routes}"),
            Some(twin) => {
                let warning = warning.unwrap_or_else(|| panic!("{routes}\n{said}"));
                assert!(
                    warning.contains(twin) && warning.contains("/*` takes both"),
                    "{warning}"
                );
                assert!(warning.starts_with("warning: gateway.yaml:"), "{warning}");
            }
        }
    }
}

#[test]
fn a_parameter_that_decides_and_names_no_file_is_said() {
    let folder = Folder::new();
    folder.write("media/a.txt", "a");
    for (route, is_said) in [
        (
            "{path: '/media/{user}/*', static: media, auth: {jwt: a, require: {sub: '{user}'}}}",
            true,
        ),
        ("{path: '/media/{user}/*', static: media, auth: a}", false),
        (
            "{path: '/media/{name}', static: media, auth: {jwt: a, require: {file: '{name}'}}}",
            false,
        ),
        (
            "{path: '/media/{user}/*', proxy: 'http://127.0.0.1:9', auth: {jwt: a, require: {sub: '{user}'}}}",
            false,
        ),
    ] {
        let text =
            format!("jwt: {{a: {{algorithms: [HS256], secret: '${{S}}'}}}}\nroutes: [{route}]\n");
        folder.write("gateway.yaml", config(&text, &[]));
        let output = run_to_end(
            &folder,
            &["check"],
            &[("S", "0123456789abcdef0123456789abcdef")],
        );
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.code(), Some(0), "{route}\n{said}");
        assert_eq!(
            said.contains("everybody opens the same files"),
            is_said,
            "{route}\n{said}"
        );
    }
}

#[test]
fn secrets_that_others_can_read_are_said() {
    let folder = Folder::new();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
    folder.write("c.pem", params.self_signed(&key).unwrap().pem());
    folder.write("c.key", key.serialize_pem());
    folder.write("shared", "0123456789abcdef0123456789abcdef");
    folder.write("users.yaml", "{}\n");
    let text =
        "listeners: [{address: '127.0.0.1:0', tls: {certificates: [{cert: c.pem, key: c.key}]}}]
jwt: {a: {algorithms: [HS256], secret: '${file:shared}'}}
tokens: {keys: keys/, users: users.yaml}
state: data/
routes: [{path: /*, respond: {status: 200}}]
";
    folder.write("gateway.yaml", text);
    let made = run_to_end(&folder, &["key", "generate"], &[]);
    assert!(made.status.success(), "{made:?}");
    let made = std::fs::read_dir(folder.path("keys")).unwrap().next();
    let signing = made.unwrap().unwrap().file_name().into_string().unwrap();
    let signing = format!("keys/{signing}");
    let all = ["c.key", "shared", "users.yaml", signing.as_str()];
    for (mode, said_of_it) in [
        (0o600, None),
        (0o640, None),
        (0o644, Some("can read it (mode 0644): chmod o=")),
        (0o666, Some("can read it (mode 0666)")),
        (0o602, Some("can change")),
    ] {
        for name in all {
            chmod(&folder, name, mode);
        }
        chmod(&folder, "gateway.yaml", 0o644);
        let (code, said) = check(&folder, text);
        assert_eq!(code, Some(0), "{said}");
        for name in all {
            let line = said.lines().find(|line| line.contains(&format!("{name}`")));
            match said_of_it {
                None => assert_eq!(line, None, "{mode:o}"),
                Some(words) => assert!(line.is_some_and(|it| it.contains(words)), "{name}\n{said}"),
            }
        }
    }
    // What is written into the configuration itself.
    let text = "jwt: {a: {algorithms: [HS256], secret: 0123456789abcdef0123456789abcdef, from: [header, 'cookie:c']}}
routes: [{path: /*, respond: {status: 200}}]
";
    for (mode, is_said) in [(0o600, false), (0o644, true)] {
        folder.write("gateway.yaml", config(text, &[]));
        chmod(&folder, "gateway.yaml", mode);
        let (code, said) = check(&folder, text);
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(
            said.contains("`gateway.yaml` holds a secret"),
            is_said,
            "{said}"
        );
        assert!(!said.contains("0123456789"), "{said}");
    }
}

#[test]
fn a_certificate_that_has_expired_or_soon_will_is_said() {
    let folder = Folder::new();
    let today = std::time::SystemTime::now();
    let in_days = |days: u64| today + std::time::Duration::from_secs(days * 24 * 60 * 60 + 60);
    let never = date_time_ymd(2099, 1, 1);
    for (begins, ends, said_of_it) in [
        (
            date_time_ymd(2020, 1, 1),
            date_time_ymd(2020, 1, 2),
            Some("it expired on Thu, 02 Jan 2020"),
        ),
        (
            date_time_ymd(2020, 1, 1),
            in_days(5).into(),
            Some("it expires on"),
        ),
        (date_time_ymd(2020, 1, 1), in_days(8).into(), None),
        (
            never,
            date_time_ymd(2100, 1, 1),
            Some("it is not valid before Thu, 01 Jan 2099"),
        ),
        (date_time_ymd(2020, 1, 1), never, None),
    ] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        (params.not_before, params.not_after) = (begins, ends);
        folder.write("c.pem", params.self_signed(&key).unwrap().pem());
        folder.write("c.key", key.serialize_pem());
        let text = "listeners: [{address: '127.0.0.1:0', tls: {certificates: [{cert: c.pem, key: c.key}]}}]
routes: [{path: /*, respond: {status: 200}}]
";
        folder.write("gateway.yaml", text);
        let (code, said) = check(&folder, text);
        assert_eq!(code, Some(0), "{said}");
        let line = said
            .lines()
            .find(|line| line.contains("the certificate `c.pem`"));
        match said_of_it {
            None => assert_eq!(line, None),
            Some(words) => assert!(line.is_some_and(|it| it.contains(words)), "{said}"),
        }
    }
}

#[test]
fn a_login_that_clients_reach_through_a_route_is_said() {
    let folder = Folder::new();
    const APP: &str = "proxy: 'http://127.0.0.1:9', auth: none";
    for (routes, path) in [
        (format!("{{path: /*, {APP}}}"), Some("/internal/login")),
        (
            "{path: /*, proxy: 'http://localhost:9', auth: none}".to_owned(),
            Some("/internal/login"),
        ),
        (
            format!("{{path: '/api/*', {APP}, rewrite: {{strip_prefix: /api}}}}"),
            Some("/api/internal/login"),
        ),
        (
            format!("{{path: '/i/*', {APP}, rewrite: {{path: '/internal/{{rest}}'}}}}"),
            Some("/i/login"),
        ),
        (
            format!("{{path: '/i/{{what}}', {APP}, rewrite: {{path: '/internal/{{what}}'}}}}"),
            Some("/i/login"),
        ),
        (
            format!("{{path: /sign-in, {APP}, rewrite: {{path: /internal/login}}}}"),
            Some("/sign-in"),
        ),
        (
            format!("{{path: /*, {APP}, host: a.example}}"),
            Some("/internal/login"),
        ),
        // Another app, another path, another method, a route of its own.
        (
            "{path: /*, proxy: 'http://127.0.0.1:10', auth: none}".to_owned(),
            None,
        ),
        (format!("{{path: '/api/*', {APP}}}"), None),
        (format!("{{path: /*, {APP}, methods: [GET]}}"), None),
        (
            format!("{{path: /*, {APP}}}, {{path: '/internal/*', respond: {{status: 404}}}}"),
            None,
        ),
    ] {
        let text = format!(
            "tokens: {{keys: keys/, login: 'http://127.0.0.1:9/internal/login'}}\nstate: data/\nroutes: [{routes}]\n"
        );
        let (code, said) = check_text(&folder, &text);
        assert_eq!(code, Some(0), "{routes}\n{said}");
        let line = said.lines().find(|line| line.contains("decides on logins"));
        match path {
            None => assert_eq!(line, None, "{routes}"),
            Some(path) => assert!(
                line.is_some_and(|it| it.contains(&format!("`{path}` is where"))),
                "{routes}\n{said}"
            ),
        }
    }
}

#[test]
fn an_upstream_that_is_a_listener_of_the_gateway_is_refused() {
    let folder = Folder::new();
    let port = free_port();
    for (listener, server, is_own) in [
        ("127.0.0.1:@", "http://127.0.0.1:@", true),
        ("127.0.0.1:@", "http://localhost:@", true),
        ("0.0.0.0:@", "http://127.0.0.2:@", true),
        ("[::]:@", "http://127.0.0.1:@", true),
        ("[::]:@", "http://[::1]:@", true),
        ("127.0.0.1:@", "http://[::ffff:127.0.0.1]:@", true),
        ("127.0.0.1:@", "http://0.0.0.0:@", true),
        ("unix:a.sock", "unix:a.sock", true),
        ("unix:a.sock", "unix:./a.sock", true),
        ("127.0.0.1:@", "http://127.0.0.2:@", false),
        ("0.0.0.0:@", "http://192.0.2.1:@", false),
        ("0.0.0.0:@", "http://app:@", false),
        ("127.0.0.1:@", "http://127.0.0.1:9", false),
        ("unix:a.sock", "unix:b.sock", false),
    ] {
        for bare in [true, false] {
            let (named, proxy) = if bare {
                (String::new(), server)
            } else {
                (
                    format!("upstreams: {{u: {{servers: ['{server}']}}}}\n"),
                    "u",
                )
            };
            let text = format!(
                "listeners: [{{address: '{listener}'}}]\n{named}routes: [{{path: /*, proxy: '{proxy}', auth: none}}]\n"
            );
            let text = text.replace('@', &port.to_string());
            folder.write("gateway.yaml", &text);
            let (code, said) = check(&folder, &text);
            let words = said.contains("is a listener of this gateway");
            assert_eq!((code == Some(2), words), (is_own, is_own), "{text}\n{said}");
        }
    }
}

#[test]
fn root_is_said() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let folder = Folder::new();
    folder.write("shared", "0123456789abcdef0123456789abcdef");
    let (needless, needed) = (
        "this is root, which neither",
        "this is root, and stays root",
    );
    for (listener, mode, user, expected) in [
        ("127.0.0.1:0", 0o640, "", Some(needless)),
        ("127.0.0.1:8080", 0o644, "", Some(needless)),
        ("127.0.0.1:8080", 0o600, "", Some(needed)),
        ("127.0.0.1:80", 0o644, "", Some(needed)),
        ("127.0.0.1:80", 0o644, "user: nobody", None),
    ] {
        let text = format!(
            "{user}\nlisteners: [{{address: '{listener}'}}]\njwt: {{a: {{algorithms: [HS256], secret: '${{file:shared}}'}}}}\nroutes: [{{path: /*, respond: {{status: 200}}}}]\n"
        );
        folder.write("gateway.yaml", &text);
        chmod(&folder, "shared", mode);
        let (_, said) = check(&folder, &text);
        for words in [needless, needed] {
            let is_said = said.contains(words);
            assert_eq!(
                is_said,
                expected == Some(words),
                "{listener} {mode:o} {user}: {said}"
            );
        }
    }
}
