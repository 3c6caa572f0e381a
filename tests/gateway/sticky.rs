//! Sticky clients: a cookie of the gateway's keeps each at its server.

use super::support::{Answer, App, Folder, Gateway, Reply, config, eventually, run_to_end};

const SECRET: &str = "a secret of more than thirty-two bytes";

async fn apps() -> [App; 2] {
    let app = || App::start(|_| Answer::Echo);
    [app().await, app().await]
}

fn text(servers: [&str; 2], sticky: &str, more: &str) -> String {
    let text = format!(
        "workers: 2\nupstreams: {{app: {{servers: [{}, {}], sticky: {sticky}{more}}}}}\n\
         routes: [{{path: /*, proxy: app, auth: none}}]\n",
        servers[0], servers[1]
    );
    config(&text, &[])
}

/// The cookie that a response sets, without its attributes.
fn cookie(reply: &Reply) -> Option<String> {
    let lines = reply.all("set-cookie");
    assert!(lines.len() <= 1, "{lines:?}");
    let line = lines.first()?;
    Some(line.split(';').next().unwrap().to_owned())
}

/// Which app answers with this cookie, and the cookie that it sets.
async fn who(gateway: &Gateway, apps: &[App; 2], sent: &str) -> (usize, Option<String>) {
    let before = [apps[0].requests(), apps[1].requests()];
    let reply = gateway.get("/", &[("Cookie", sent)]).await;
    assert_eq!(reply.status, 200);
    assert!(!reply.text().contains("app_server"), "{}", reply.text());
    let at = (0..2)
        .find(|at| apps[*at].requests() > before[*at])
        .unwrap();
    (at, cookie(&reply))
}

#[tokio::test]
async fn a_client_stays_at_its_server_and_the_app_sees_no_cookie() {
    let apps = apps().await;
    let urls = [apps[0].url(), apps[1].url()].map(|url| format!("'{url}'"));
    let sticky = format!("{{cookie: app_server, secret: '{SECRET}', max_age: 1h}}");
    let both = text([&urls[0], &urls[1]], &sticky, "");
    let gateway = Gateway::start(&both).await;
    let reply = gateway.get("/", &[]).await;
    let line = reply.field("set-cookie").unwrap();
    assert!(
        line.ends_with("; Path=/; Max-Age=3600; HttpOnly; SameSite=Lax"),
        "{line}"
    );
    let mut clients = Vec::new();
    for _ in 0..6 {
        let (at, set) = who(&gateway, &apps, "a=1").await;
        clients.push((set.unwrap(), at));
    }
    assert!(clients.iter().any(|(_, at)| *at == 0) && clients.iter().any(|(_, at)| *at == 1));
    for (cookie, at) in &clients {
        for _ in 0..3 {
            let sent = format!("a=1; {cookie}; b=2");
            assert_eq!(who(&gateway, &apps, &sent).await, (*at, None));
        }
    }
    assert_eq!(
        apps[0].seen().pop().unwrap().field("cookie").unwrap(),
        "a=1; b=2"
    );
    // A value of nobody is none, and is replaced.
    let (_, set) = who(
        &gateway,
        &apps,
        "app_server=0123456789abcdef0123456789abcdef",
    )
    .await;
    assert!(set.is_some());

    // Another gateway with the secret says the same, in another order; one without it does not.
    let second = Gateway::start(&text([&urls[1], &urls[0]], &sticky, "")).await;
    let stranger = Gateway::start(&text([&urls[0], &urls[1]], "app_server", "")).await;
    for (cookie, at) in &clients {
        assert_eq!(who(&second, &apps, cookie).await, (*at, None));
        assert!(who(&stranger, &apps, cookie).await.1.is_some());
    }
    assert_eq!(stranger.stderr().matches("random key").count(), 1);
    // A random key lasts over reloads.
    let (at, set) = who(&stranger, &apps, "").await;
    stranger
        .reconfigure(&text(
            [&urls[0], &urls[1]],
            "app_server",
            ", timeouts: {response: 50s}",
        ))
        .await;
    assert_eq!(who(&stranger, &apps, &set.unwrap()).await, (at, None));
    assert_eq!(stranger.stderr().matches("random key").count(), 1);

    // A server of weight 0 gets no new clients, and keeps its own.
    let drained = format!("{{url: {}, weight: 0}}", urls[0]);
    gateway
        .reconfigure(&text([&drained, &urls[1]], &sticky, ""))
        .await;
    for (cookie, at) in &clients {
        assert_eq!(who(&gateway, &apps, cookie).await, (*at, None));
        assert_eq!(who(&gateway, &apps, "").await.0, 1);
    }
}

#[tokio::test]
async fn a_client_whose_server_is_out_gets_another_one_and_a_new_cookie() {
    let [a, b] = apps().await;
    let urls = [a.url(), b.url()].map(|url| format!("'{url}'"));
    let more = ", health: {tcp: true, interval: 100ms, unhealthy_after: 1}";
    let gateway = Gateway::start(&text([&urls[0], &urls[1]], "app_server", more)).await;
    let mut cookies = Vec::new();
    eventually("a client of the first", async || {
        let before = a.requests();
        let reply = gateway.get("/", &[]).await;
        cookies.extend(cookie(&reply).filter(|_| a.requests() > before));
        cookies.first().map(|_| ())
    })
    .await;
    a.stop().await;
    eventually("the check", async || {
        gateway
            .stderr()
            .contains("taken out, 1 of 2 left")
            .then_some(())
    })
    .await;
    let reply = gateway.get("/", &[("Cookie", &cookies[0])]).await;
    assert_eq!(reply.status, 200);
    let new = cookie(&reply).unwrap();
    assert_ne!(new, cookies[0]);
    assert_eq!(cookie(&gateway.get("/", &[("Cookie", &new)]).await), None);
}

#[test]
fn cookies_that_make_no_sense_are_errors_and_secrets_stay_hidden() {
    let run = |command: &[&str], sticky: &str| {
        let folder = Folder::new();
        let text = format!(
            "listeners: [{{address: 127.0.0.1:0}}]\nupstreams: {{app: {{servers: ['http://127.0.0.1:9', 'http://127.0.0.1:8'], sticky: {sticky}}}}}\n\
             routes: [{{path: /*, proxy: app, auth: none}}]\n"
        );
        folder.write("gateway.yaml", text);
        let output = run_to_end(&folder, command, &[]);
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    for (sticky, said) in [
        ("'a b'", "a name of letters, digits"),
        ("{secret: x}", "`cookie` is missing"),
        (
            "{cookie: a, secret: short}",
            "a secret of at least 32 bytes",
        ),
        ("{cookie: a, max_age: 0s}", "a duration from 1s"),
    ] {
        let (code, errors) = run(&["check"], sticky);
        assert_eq!(code, Some(2), "{sticky}: {errors}");
        assert!(errors.contains(said), "{sticky}: {errors}");
        assert!(!errors.contains("short"), "{errors}");
    }
    let (code, said) = run(
        &["check", "--print"],
        &format!("{{cookie: a, secret: '{SECRET}'}}"),
    );
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains(SECRET), "{said}");
}
