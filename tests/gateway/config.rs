//! `portcullis check`: what it accepts, and how it says what is wrong, where, and what would be right.

use std::process::Output;

use super::support::{Folder, config, run_to_end};

/// Checks a configuration that lies in the folder as `gateway.yaml`.
fn check_in(folder: &Folder, text: &str, more: &[&str]) -> (Option<i32>, String) {
    folder.write("gateway.yaml", text);
    let arguments = [&["check", "-c", "gateway.yaml"], more].concat();
    let output = run_to_end(folder, &arguments, &[("SET_NAME", "set-value")]);
    (output.status.code(), said(&output))
}

fn check(text: &str) -> (Option<i32>, String) {
    check_in(&Folder::new(), text, &[])
}

fn said(output: &Output) -> String {
    let all = [&output.stdout[..], &output.stderr].concat();
    let all = String::from_utf8(all).unwrap();
    assert!(!all.contains("panicked at"), "{all}");
    all
}

/// The configuration is refused, and the message has all of these parts.
#[track_caller]
fn refused(text: &str, parts: &[&str]) {
    let (code, said) = check(text);
    assert_eq!(code, Some(2), "{text}\n{said}");
    for part in parts {
        assert!(said.contains(part), "no {part:?} in:\n{said}");
    }
}

/// The configuration is accepted.
#[track_caller]
fn accepted(text: &str) {
    let (code, said) = check(text);
    assert_eq!(code, Some(0), "{text}\n{said}");
}

const ROUTE: &str = "routes: [{path: /*, respond: {status: 200, body: in}}]\n";

#[test]
fn a_good_file_is_0_and_a_bad_one_2() {
    accepted(&config(ROUTE, &[]));
    refused("routes: 7\n", &["gateway.yaml:1:9"]);
    let folder = Folder::new();
    let output = run_to_end(&folder, &["check", "-c", "nothing.yaml"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("nothing.yaml"));
}

#[test]
fn the_file_in_the_current_folder_is_the_default() {
    let folder = Folder::new();
    folder.write("gateway.yaml", config(ROUTE, &[]));
    assert_eq!(run_to_end(&folder, &["check"], &[]).status.code(), Some(0));
}

#[test]
fn a_mistake_is_shown_with_its_place_its_line_and_a_caret() {
    let text = "listeners:\n  - address: 127.0.0.1:0\nroutes:\n  - path: /*\n    prxy: http://127.0.0.1:1\n    auth: none\n";
    let (code, said) = check(text);
    assert_eq!(code, Some(2));
    assert!(said.contains("gateway.yaml:5:5"), "{said}");
    assert!(
        said.contains("`proxy`") || said.contains("\"proxy\"") || said.contains("proxy"),
        "{said}"
    );
    let lines: Vec<_> = said.lines().collect();
    let at = lines
        .iter()
        .position(|line| line.contains("prxy: http://127.0.0.1:1"));
    let shown = lines[at.expect("the line is shown")];
    let caret = lines[at.unwrap() + 1];
    assert_eq!(
        caret.find('^'),
        shown.find("prxy"),
        "the caret stands under the word:\n{said}"
    );
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text = "workers: many\nlisteners: [{address: nonsense}]\nlimits: {body_bytes: 10Mib, hedder_bytes: 1KiB}\n\
        timeouts: {header_read: 10}\nroutes:\n  - {path: a, respond: {status: 200, body: x}}\n  \
        - {path: /b, proxy: nobody, auth: nothing}\n";
    let (code, said) = check(text);
    assert_eq!(code, Some(2));
    for line in 1..=7 {
        if line != 5 {
            assert!(
                said.contains(&format!("gateway.yaml:{line}:")),
                "line {line} is missing:\n{said}"
            );
        }
    }
    assert!(said.contains("header_bytes"), "{said}");
}

#[test]
fn unknown_keys_are_refused_and_near_ones_suggested() {
    for (bad, good) in [
        ("listners: [{address: 127.0.0.1:0}]\n", "listeners"),
        ("limits: {bodybytes: 1KiB}\n", "body_bytes"),
        ("timeouts: {keepalive: 1s}\n", "keep_alive"),
        ("jwt: {app: {algoritms: [HS256]}}\n", "algorithms"),
        ("log: {access: {formt: json}}\n", "format"),
    ] {
        refused(&format!("{bad}{ROUTE}"), &[good]);
    }
    refused(
        &config(
            "routes: [{path: /*, proxy: 'http://127.0.0.1:1', auth: {jwt: a, requird: {}}}]\n",
            &[],
        ),
        &["require"],
    );
}

#[test]
fn a_proxied_route_says_who_may_come_in() {
    let route = |auth: &str| {
        config(
            &format!("routes: [{{path: /*, proxy: 'http://127.0.0.1:1'{auth}}}]\n"),
            &[],
        )
    };
    accepted(&route(", auth: none"));
    refused(&route(""), &["auth"]);
    refused(&route(", auth: nobody"), &["nobody"]);
}

#[test]
fn a_root_or_a_file_that_is_not_there_is_refused() {
    let folder = Folder::new();
    let text = config("routes: [{path: /*, static: ./site}]\n", &[]);
    assert_eq!(check_in(&folder, &text, &[]).0, Some(2));
    folder.write("site/index.html", "home");
    assert_eq!(check_in(&folder, &text, &[]).0, Some(0));
    refused(
        &config(
            &format!("jwt: {{a: {{algorithms: [RS256], keys: [no.pem]}}}}\n{ROUTE}"),
            &[],
        ),
        &["no.pem"],
    );
    refused(
        &format!(
            "listeners: [{{address: 127.0.0.1:0, tls: {{certificates: [{{cert: no.pem, key: no.key}}]}}}}]\n{ROUTE}"
        ),
        &["no.pem"],
    );
}

#[test]
fn routes_that_tie_are_refused() {
    let respond = "respond: {status: 200, body: x}";
    accepted(&config(
        &format!(
            "routes:\n - {{path: /a, methods: [GET], {respond}}}\n - {{path: /a, methods: [POST], {respond}}}\n"
        ),
        &[],
    ));
    refused(
        &config(
            &format!("routes:\n - {{path: /a, {respond}}}\n - {{path: /a, {respond}}}\n"),
            &[],
        ),
        &["gateway.yaml:"],
    );
    refused(
        &config(
            &format!(
                "routes:\n - {{path: '/{{a}}/x', {respond}}}\n - {{path: '/{{b}}/x', {respond}}}\n"
            ),
            &[],
        ),
        &["gateway.yaml:"],
    );
}

#[test]
fn the_same_key_twice_is_refused() {
    refused("workers: 1\nworkers: 2\n", &["gateway.yaml:2:1", "workers"]);
}

#[test]
fn weak_keys_are_refused_unless_they_are_welcome() {
    let jwt = |more: &str| {
        config(
            &format!("jwt: {{a: {{algorithms: [HS256], secret: short{more}}}}}\n{ROUTE}"),
            &[],
        )
    };
    refused(&jwt(""), &["secret"]);
    accepted(&jwt(", weak_secret: allow"));
}

#[test]
fn algorithms_are_named_for_secrets_and_files() {
    let secret = "s".repeat(64);
    let jwt = |rest: &str| config(&format!("jwt: {{a: {{{rest}}}}}\n{ROUTE}"), &[]);
    accepted(&jwt(&format!("algorithms: [HS256], secret: {secret}")));
    refused(&jwt(&format!("secret: {secret}")), &["algorithms"]);
    refused(
        &jwt(&format!("algorithms: [none], secret: {secret}")),
        &["none"],
    );
    refused(
        &jwt(&format!("algorithms: [RS256], secret: {secret}")),
        &["RS256"],
    );
}

#[test]
fn values_come_from_the_environment_and_from_files() {
    let jwt = |value: &str| {
        config(
            &format!(
                "jwt: {{a: {{algorithms: [HS256], secret: \"{value}\", weak_secret: allow}}}}\n{ROUTE}"
            ),
            &[],
        )
    };
    let folder = Folder::new();
    folder.write("secrets/key", "from-a-file");
    for (value, code, part) in [
        ("${SET_NAME}", 0, ""),
        ("${NOT_SET_NAME}", 2, "NOT_SET_NAME"),
        ("${NOT_SET_NAME:-default}", 0, ""),
        ("${file:secrets/key}", 0, ""),
        ("${file:secrets/none}", 2, "secrets/none"),
        ("${SET_NAME", 2, "gateway.yaml:"),
    ] {
        let (status, said) = check_in(&folder, &jwt(value), &[]);
        assert_eq!(status, Some(code), "{value}: {said}");
        assert!(said.contains(part), "{value}: {said}");
    }
}

#[test]
fn a_secret_is_never_shown_wherever_the_mistake_is() {
    let folder = Folder::new();
    folder.write("secrets/key", "hush-from-file");
    for text in [
        "jwt: {a: {algorithms: [HS256], secret: hush-short}}\n",
        "jwt: {a: {algorithms: [HS256], secret: hush-short, secrt: hush-typo}}\n",
        "jwt: {a: {algorithms: [RS999], secret: \"hush-${SET_NAME}\", bad: 1}}\n",
        "jwt:\n  a:\n    algorithms: [HS256]\n    secret: [hush-list]\n",
        "jwt: {a: {algorithms: [HS256], secret: \"${file:secrets/key}\"}}\n",
        "jwt: {a: {algorithms: [HS256], secret: \"hush-unclosed}}\n",
    ] {
        let (code, said) = check_in(&folder, &format!("{text}{ROUTE}"), &[]);
        assert_eq!(code, Some(2), "{text}");
        assert!(
            !said.contains("hush") && !said.contains("set-value"),
            "{text} gave\n{said}"
        );
    }
}

#[test]
fn print_shows_the_resolved_configuration_without_secrets() {
    let folder = Folder::new();
    folder.write("secrets/key", "hush-".repeat(20));
    folder.write(
        "conf.d/more.yaml",
        "routes: [{path: /more, respond: {status: 200, body: more}}]\n",
    );
    let text = config(
        "include: [conf.d/*.yaml]\njwt: {a: {algorithms: [HS256], secret: '${file:secrets/key}'}}\n\
         limits: {body_bytes: 3MiB}\nroutes: [{path: /*, respond: {status: 200, body: '${SET_NAME}'}}]\n",
        &[],
    );
    let (code, said) = check_in(&folder, &text, &["--print"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("hush"), "{said}");
    for part in ["/more", "HS256", "3MiB", "127.0.0.1:0"] {
        assert!(said.contains(part), "no {part} in:\n{said}");
    }
}

#[test]
fn includes_append_lists_and_the_same_name_twice_is_refused() {
    let folder = Folder::new();
    folder.write(
        "conf.d/a.yaml",
        "upstreams: {one: {servers: ['http://127.0.0.1:1']}}\n",
    );
    folder.write(
        "conf.d/b.yaml",
        "upstreams: {two: {servers: ['http://127.0.0.1:2']}}\n",
    );
    let text = config(&format!("include: [conf.d/*.yaml]\n{ROUTE}"), &[]);
    assert_eq!(check_in(&folder, &text, &[]).0, Some(0));
    folder.write(
        "conf.d/b.yaml",
        "upstreams: {one: {servers: ['http://127.0.0.1:2']}}\n",
    );
    let (code, said) = check_in(&folder, &text, &[]);
    assert_eq!(code, Some(2));
    assert!(said.contains("conf.d/b.yaml:1:"), "{said}");
}

#[test]
fn a_file_that_is_no_yaml_is_refused_with_its_place() {
    refused("routes: [\n", &["gateway.yaml:"]);
    refused("routes:\n\t- a\n", &["gateway.yaml:2:"]);
    refused("", &["gateway.yaml"]);
    refused("- a list\n", &["gateway.yaml:1:1"]);
}

#[test]
fn a_check_binds_nothing() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    accepted(&format!("listeners: [{{address: '{address}'}}]\n{ROUTE}"));
}

#[test]
fn run_refuses_a_bad_file_with_2_and_the_same_words() {
    let folder = Folder::new();
    folder.write("gateway.yaml", config("routs: []\n", &[]));
    let output = run_to_end(&folder, &["run", "-c", "gateway.yaml"], &[]);
    assert!(
        matches!(output.status.code(), Some(1 | 2)),
        "{:?}",
        output.status
    );
    let said = said(&output);
    assert!(
        said.contains("gateway.yaml:") && said.contains("routes"),
        "{said}"
    );
}

#[test]
fn a_secret_with_odd_ends_is_warned_of() {
    let folder = Folder::new();
    let secret = "0123456789abcdef0123456789abcdef";
    let jwt = "jwt: {a: {algorithms: [HS256], secret: '${file:key}'}}\n";
    let text = config(&format!("{jwt}{ROUTE}"), &[]);
    for (content, word) in [
        (secret.to_owned(), None),
        (format!("{secret}\n"), None),
        (format!("{secret}\r\n"), None),
        (format!("\u{feff}{secret}"), Some("U+FEFF")),
        (format!("{secret}\n\n"), Some("line end")),
        (format!("{secret} \n"), Some("blank")),
        (format!(" {secret}"), Some("blank")),
        (format!("{secret}\u{a0}"), Some("U+00A0")),
    ] {
        folder.write("key", &content);
        let (code, said) = check_in(&folder, &text, &[]);
        assert_eq!(code, Some(0), "{content:?}: {said}");
        assert!(!said.contains(secret), "{said}");
        assert_eq!(
            said.contains(": the secret of "),
            word.is_some(),
            "{content:?}: {said}"
        );
        assert!(
            said.contains(word.unwrap_or_default()),
            "{content:?}: {said}"
        );
    }
    let variable = config(
        &format!(
            "jwt: {{a: {{algorithms: [HS256], secret: '${{file:key}}${{SET_NAME}} '}}}}\n{ROUTE}"
        ),
        &[],
    );
    folder.write("key", secret);
    assert_eq!(check_in(&folder, &variable, &[]).0, Some(0));
}

#[test]
fn bytes_that_are_not_utf8_have_a_line_and_a_column() {
    let folder = Folder::new();
    let mut text = config(ROUTE, &[]).into_bytes();
    text.extend(b"# gr\xfc\xdfe\n");
    folder.write("gateway.yaml", &text);
    let output = run_to_end(&folder, &["check"], &[]);
    let said = said(&output);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        said.contains("gateway.yaml:5:5: this file is not UTF-8: the byte 0xfc"),
        "{said}"
    );
    let utf16: Vec<u8> = "\u{feff}routes: []\r\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    folder.write("gateway.yaml", utf16);
    let output = run_to_end(&folder, &["check"], &[]);
    assert!(self::said(&output).contains("this file is UTF-16"));
}

#[test]
fn a_file_that_includes_itself_by_another_name_is_refused() {
    let folder = Folder::new();
    let text = |include: &str| config(&format!("include: [{include}]\n{ROUTE}"), &[]);
    folder.link("other.yaml", "gateway.yaml");
    for include in ["gateway.yaml", "./gateway.yaml", "other.yaml", "'*.yaml'"] {
        let (code, said) = check_in(&folder, &text(include), &[]);
        assert_eq!(code, Some(2), "{include}: {said}");
        assert!(
            said.contains("this file includes itself"),
            "{include}: {said}"
        );
    }
}

#[test]
fn a_summary_says_what_is_public() {
    let folder = Folder::new();
    folder.write("site/index.html", "home");
    folder.write("users.yaml", "{}\n");
    let text = "jwt: {app: {algorithms: [HS256], secret: @secret}}\nlisteners: [{address: 127.0.0.1:0}, {address: 'unix:a.sock'}]\n\
        defaults: {auth: app}\nroutes:\n  - {path: /*, proxy: 'http://127.0.0.1:1'}\n  - {path: /static/*, static: site, auth: none}\n  \
        - {path: /media/*, static: site}\n  - {name: ping, path: /p, respond: {body: x}, auth: none}\n  \
        - {path: /maybe, proxy: 'http://127.0.0.1:1', auth: {jwt: app, optional: true}}\n  \
        - {path: /dry, proxy: 'http://127.0.0.1:1', auth: {jwt: app, enforce: report}}\n";
    let text = config(text, &[("secret", &"s".repeat(32))]);
    let (code, said) = check_in(&folder, &text, &[]);
    assert_eq!(code, Some(0), "{said}");
    let summary = "2 listeners, 6 routes, 4 of them public: /static/*, ping (/p), /maybe (optional), /dry (only reported); 1 verifier\n";
    let good = format!("gateway.yaml: good\n{summary}");
    assert!(said.starts_with(&good), "{said}");
    let (_, said) = check_in(&folder, &text, &["--print"]);
    assert!(said.ends_with(summary), "{said}");
    // The endpoints that the gateway adds are not counted; its verifier is.
    let tokens = format!("tokens: {{keys: keys/, users: users.yaml}}\nstate: data/\n{ROUTE}");
    let (_, said) = check_in(&folder, &config(&tokens, &[]), &[]);
    assert!(
        said.contains("1 listener, 1 route, public: /*; 1 verifier\n"),
        "{said}"
    );
}

#[test]
fn a_path_that_ends_at_a_slash_needs_a_star_or_routes_below() {
    let folder = Folder::new();
    folder.write("site/index.html", "home");
    let check = |routes: &str| {
        let text = config(&format!("routes: [{routes}]\n"), &[]);
        check_in(&folder, &text, &[])
    };
    let proxy = "proxy: 'http://127.0.0.1:1', auth: none";
    for (routes, hint) in [
        (
            "{path: /static/, static: site}".to_owned(),
            "write `/static/*`",
        ),
        (
            "{path: /, static: site}, {path: /a, static: site}".to_owned(),
            "write `/*`",
        ),
        (format!("{{path: /api/, {proxy}}}"), "write `/api/*`"),
        (
            format!("{{path: /api/, {proxy}}}, {{path: /*, static: site}}"),
            "write `/api/*`",
        ),
        (
            format!("{{path: /api/, {proxy}}}, {{path: /apis/x, {proxy}}}"),
            "write `/api/*`",
        ),
    ] {
        let (code, said) = check(&routes);
        assert_eq!(code, Some(2), "{routes}");
        assert!(
            said.contains(hint) && said.contains("this path alone"),
            "{routes}: {said}"
        );
    }
    for routes in [
        "{path: /static/*, static: site}".to_owned(),
        format!("{{path: /, {proxy}}}"),
        format!("{{path: /, {proxy}}}, {{path: /a, {proxy}}}"),
        format!("{{path: /api/, {proxy}}}, {{path: /api/x, {proxy}}}"),
        format!("{{path: /api/, {proxy}}}, {{path: /api/*, static: site}}"),
        format!("{{path: /api/upload/, {proxy}, body_bytes: 1MiB}}, {{path: /api/*, {proxy}}}"),
    ] {
        let (code, said) = check(&routes);
        assert_eq!(code, Some(0), "{routes}: {said}");
    }
}

#[test]
fn a_host_may_be_a_list() {
    let route =
        |host: &str| format!("routes: [{{host: {host}, path: /x, respond: {{body: x}}}}]\n");
    accepted(&config(&route("[a.example, '*.b.example']"), &[]));
    accepted(&config(&route("a.example"), &[]));
    refused(
        &config(&route("[a.example, A.example]"), &[]),
        &["`a.example` is here twice"],
    );
    refused(&config(&route("[]"), &[]), &["an empty list"]);
    let both = format!(
        "{}  ",
        route("[a.example, b.example]").replace(
            "]\n",
            ", {host: b.example, path: /x, respond: {body: y}}]\n"
        )
    );
    refused(
        &config(&both, &[]),
        &["serve the same host, path and method"],
    );
}

#[test]
fn words_for_off_where_auth_is_expected_lead_to_none() {
    for word in ["off", "no", "false"] {
        let text = format!("routes: [{{path: /*, proxy: 'http://127.0.0.1:1', auth: {word}}}]\n");
        refused(
            &config(&text, &[]),
            &["write `none` if everybody may come in"],
        );
    }
}

#[test]
fn help_is_a_command() {
    let folder = Folder::new();
    for (arguments, word) in [
        (&["help"][..], "explain"),
        (&["help", "check"], "--print"),
        (&["help", "user", "add"], "NAME"),
        (&["user", "help"], "add"),
    ] {
        let output = run_to_end(&folder, arguments, &[]);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(said(&output).contains(word), "{arguments:?}");
    }
    assert_eq!(
        run_to_end(&folder, &["help", "nothing"], &[]).status.code(),
        Some(2)
    );
}

#[test]
fn values_of_headers_whose_names_speak_of_secrets_are_hidden() {
    let folder = Folder::new();
    let text = config(
        "routes: [{path: /*, proxy: 'http://127.0.0.1:1', auth: none, headers: {request: {set: {X-Internal-Token: hush-1, X-Api-Key: hush-2, \
         X-Auth-User: hush-3, X-Session-Cookie: hush-4, X-Client-Secret: hush-5, X-DB-Password: hush-6, X-Tenant: shown}}}}]\n\
         tests: [{request: GET /, headers: {X-My-Key: hush-7}, expect: {headers: {X-My-Key: hush-7}}}]\n",
        &[],
    );
    let (code, said) = check_in(&folder, &text, &["--print"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("hush") && said.contains("shown"), "{said}");
    // Where a value or the whole file is wrong, too.
    for bad in [
        text.replace("hush-1", "\"hush\\t1\""),
        text.replace("hush-2,", "hush-2: x,"),
        text.replace("X-Tenant: shown", "X-Tenant: {a: [shown"),
        format!("read_token: hush-8\n{text}"),
    ] {
        let (code, said) = check_in(&folder, &bad, &[]);
        assert_eq!(code, Some(2), "{said}");
        assert!(!said.contains("hush"), "{said}");
    }
}

/// What is wrong where each of the configurations is to have one error, and the part to be of it.
#[track_caller]
fn one_error_each<T: AsRef<str>>(rows: &[(T, &str)]) {
    let mut wrong = Vec::new();
    for (text, part) in rows {
        let text = text.as_ref();
        let folder = Folder::new();
        folder.write("site/index.html", "home");
        folder.write("users.yaml", "{}\n");
        let (code, said) = check_in(&folder, &config(text, &[]), &[]);
        let one = said.ends_with("\n1 error in gateway.yaml\n") && said.contains(part);
        if code != Some(2) || !one {
            wrong.push(format!("{text}\n{said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n----\n"));
}

#[test]
fn an_unset_variable_causes_no_second_error() {
    let unset = "the variable `NONE` is not set";
    let jwt = "jwt: {app: {algorithms: [HS256], secret: 0123456789abcdef0123456789abcdef}}\n";
    let route = "routes: [{path: /*, proxy: 'http://127.0.0.1:1', auth: app}]\n";
    let tls = |cert: &str| {
        format!(
            "listeners: [{{address: 127.0.0.1:8080, redirect_to_https: true}}, {cert}]\n{ROUTE}"
        )
    };
    let texts = [
        format!("listeners: [{{address: '${{NONE}}'}}]\n{ROUTE}"),
        tls("{address: '${NONE}', tls: {certificates: [{cert: a, key: b}]}}"),
        format!("listeners: '${{NONE}}'\n{ROUTE}"),
        format!("listeners: [{{address: '127.0.0.1:0', tls: {{certificates: [{{cert: '${{NONE}}', key: '${{NONE}}'}}]}}}}]\n{ROUTE}")
            .replace("key: '${NONE}'", "key: gateway.yaml"),
        format!("listeners: [{{address: '127.0.0.1:0', tls: {{certificates: '${{NONE}}'}}}}]\n{ROUTE}"),
        format!("jwt: {{app: {{algorithms: [HS256], secret: '${{NONE}}'}}}}\n{route}"),
        format!("jwt: {{app: {{algorithms: [RS256], keys: [{{kid: a, file: '${{NONE}}'}}]}}}}\n{route}"),
        format!("jwt: {{app: {{algorithms: [RS256], jwks: '${{NONE}}'}}}}\n{route}"),
        format!("jwt: {{app: {{algorithms: ['${{NONE}}'], jwks: 'https://a.example/k'}}}}\n{route}"),
        format!("jwt: '${{NONE}}'\n{route}"),
        format!("jwt: {{app: '${{NONE}}'}}\n{route}"),
        format!("{jwt}upstreams: {{a: {{servers: ['${{NONE}}']}}}}\n{}", route.replace("'http://127.0.0.1:1'", "a")),
        format!("{jwt}upstreams: {{a: '${{NONE}}'}}\n{}", route.replace("'http://127.0.0.1:1'", "a")),
        format!("{jwt}upstreams: '${{NONE}}'\n{}", route.replace("'http://127.0.0.1:1'", "a")),
        format!("{jwt}{}", route.replace("'http://127.0.0.1:1'", "'${NONE}'")),
        format!("{jwt}{}", route.replace("auth: app", "auth: '${NONE}'")),
        format!("{jwt}{}", route.replace("auth: app", "auth: {jwt: '${NONE}'}")),
        format!("{jwt}{}", route.replace("auth: app", "auth: {ask: '${NONE}'}")),
        format!("{jwt}{}", route.replace("auth: app", "auth: {jwt: app, require: '${NONE}'}")),
        format!("{jwt}defaults: {{auth: '${{NONE}}'}}\n{}", route.replace(", auth: app", "")),
        format!("{jwt}defaults: '${{NONE}}'\n{}", route.replace(", auth: app", "")),
        "routes: '${NONE}'\n".to_owned(),
        "routes: [{path: '${NONE}', respond: {body: a}}]\n".to_owned(),
        "routes: [{path: /*, static: '${NONE}'}]\n".to_owned(),
        "routes: [{path: /*, static: {root: '${NONE}'}}]\n".to_owned(),
        "routes: [{path: /*, redirect: {to: '${NONE}'}}]\n".to_owned(),
        "routes: [{path: /*, respond: '${NONE}'}]\n".to_owned(),
        "routes: [{path: /a, methods: ['${NONE}'], respond: {body: a}}, {path: /a, methods: [GET], respond: {body: b}}]\n".to_owned(),
        "routes: [{path: /a, methods: ['${NONE}'], respond: {body: a}}, {path: /a, respond: {body: b}}]\n".to_owned(),
        "routes: [{path: /a, host: '${NONE}', respond: {body: a}}, {path: /a, respond: {body: b}}]\n".to_owned(),
        "routes: [{path: /a, name: '${NONE}', proxy: 'http://127.0.0.1:1', auth: none, rewrite: {strip_prefix: '${NONE:-}${NONE}'}}]\n".replace("name: '${NONE}', ", ""),
        format!("tokens: {{keys: '${{NONE}}', users: users.yaml}}\nstate: data/\n{ROUTE}"),
        format!("tokens: {{keys: keys/, users: '${{NONE}}'}}\nstate: data/\n{ROUTE}"),
        format!("tokens: {{keys: keys/, login: '${{NONE}}'}}\nstate: data/\n{ROUTE}"),
        format!("tokens: {{keys: keys/, users: users.yaml}}\nstate: '${{NONE}}'\n{ROUTE}"),
        format!("tokens: {{keys: keys/, users: users.yaml}}\nstate: {{redis: '${{NONE}}'}}\n{ROUTE}"),
        "tokens: '${NONE}'\nstate: data/\nroutes: [{path: /*, respond: {body: a}, auth: tokens}]\n".to_owned(),
        format!("log: {{access: {{to: '${{NONE}}'}}}}\n{ROUTE}"),
        format!("tests: [{{request: '${{NONE}}', expect: {{status: 200}}}}]\n{ROUTE}"),
        format!("trusted_proxies: ['${{NONE}}']\n{ROUTE}"),
        "routes: [{path: /a, respond: {body: a}, cors: {origins: ['${NONE}']}}]\n".to_owned(),
    ];
    let rows: Vec<_> = texts.iter().map(|text| (text, unset)).collect();
    one_error_each(&rows);
}

#[test]
fn a_refused_value_causes_no_second_error() {
    let jwt = "jwt: {app: {algorithms: [HS256], secret: 0123456789abcdef0123456789abcdef}}\n";
    let route = "routes: [{path: /*, proxy: 'http://127.0.0.1:1', auth: app}]\n";
    one_error_each(&[
        (format!("listeners: [{{address: nonsense}}]\n{ROUTE}"), "an address"),
        (
            format!("listeners: [{{address: 127.0.0.1:8080, redirect_to_https: true}}, {{address: 8443, tls: {{certificates: [{{cert: a, key: b}}]}}}}]\n{ROUTE}"),
            "an address",
        ),
        (format!("jwt: []\n{route}"), "a map of verifiers"),
        (format!("jwt: {{app: {{algorithms: [HS265], secret: a}}}}\n{route}"), "an algorithm"),
        (format!("{jwt}upstreams: []\n{}", route.replace("'http://127.0.0.1:1'", "a")), "a map of upstreams"),
        (format!("{jwt}upstreams: {{a: 8000}}\n{}", route.replace("'http://127.0.0.1:1'", "a")), "a server's URL"),
        (format!("{jwt}{}", route.replace("'http://127.0.0.1:1'", "'127.0.0.1:1'")), "an upstream's name"),
        (format!("{jwt}{}", route.replace("auth: app", "auth: yes")), "a verifier's name"),
        (format!("{jwt}defaults: {{auth: [app]}}\n{}", route.replace(", auth: app", "")), "a verifier's name"),
        ("routes: [{path: a, respond: {body: a}}]\n".to_owned(), "a path"),
        (
            "routes: [{path: /a, methods: [get], respond: {body: a}}, {path: /a, respond: {body: b}}]\n".to_owned(),
            "a method",
        ),
        (
            "routes: [{path: /a, host: 'http://a', respond: {body: a}}, {path: /a, respond: {body: b}}]\n".to_owned(),
            "a host",
        ),
        (format!("tokens: {{keys: keys/, users: [a]}}\nstate: data/\n{ROUTE}"), "a file's path"),
        (
            "tokens: []\nstate: data/\nroutes: [{path: /*, respond: {body: a}, auth: tokens}]\n".to_owned(),
            "expected a map",
        ),
    ]);
    // Its sister: what is wrong besides is said.
    refused(
        &config(
            "jwt: {a: {algorithms: [HS256], secret: '${NONE}'}}\nroutes: [{path: /*, respond: {body: a}, auth: b}]\n",
            &[],
        ),
        &["the variable `NONE`", "`b`", "2 errors"],
    );
}

#[test]
fn words_of_others_are_answered_with_ours() {
    one_error_each(&[
        (
            format!("limits: {{client_max_body_size: 5m}}\n{ROUTE}"),
            "nginx's `client_max_body_size` is `limits.body_bytes`",
        ),
        (
            format!("entryPoints: {{}}\n{ROUTE}"),
            "Traefik's `entryPoints` is `listeners` here",
        ),
        (
            "routes: [{path: /*, respond: {body: a}, proxy_pass: 'http://a'}]\n".to_owned(),
            "is `proxy` of a route here",
        ),
        (
            "routes: [{path: /*, respond: {body: a}, try_files: x}]\n".to_owned(),
            "is `static.fallback` of a route",
        ),
        (
            "routes: [{path: '^/api/.*$', respond: {body: a}}]\n".to_owned(),
            "paths have no regular expressions; write `/api/*`",
        ),
        (
            "routes: [{path: '/users/\\d+', respond: {body: a}}]\n".to_owned(),
            "write `/users/{id}`",
        ),
    ]);
    for (text, part) in [
        (
            "server {\n  listen 80;\n  root /srv;\n}\n",
            "gateway.yaml:1:1: this looks like nginx's configuration",
        ),
        (
            "example.com {\n  reverse_proxy localhost:8000\n}\n",
            "gateway.yaml:2:1: this looks like a Caddyfile",
        ),
        (
            "global\n  maxconn 9\nfrontend a\n  bind :80\n",
            "gateway.yaml:1:1: this looks like haproxy.cfg",
        ),
        (
            "entryPoints: {web: {address: ':80'}}\n",
            "gateway.yaml:1:1: this looks like Traefik's configuration",
        ),
        (
            "http: {routers: {a: {rule: 'Host(`a`)'}}}\n",
            "gateway.yaml:1:1: this looks like Traefik's configuration",
        ),
    ] {
        let (code, said) = check(text);
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(part), "{said}");
        assert!(said.ends_with("1 error in gateway.yaml\n"), "{said}");
    }
    // Their words inside a text are a text.
    accepted(&config(
        "routes:\n  - path: /*\n    respond:\n      body: |\n        server {\n          listen 80;\n        }\n",
        &[],
    ));
}
