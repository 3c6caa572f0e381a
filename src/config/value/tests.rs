//! Values as they are written, and what is said of those that are none.

use std::fmt::Debug;

use super::*;

#[track_caller]
fn check<T: Debug>(read: impl Fn(&str) -> Result<T, Hint>, text: &str, expected: &str) {
    let seen = match read(text) {
        Ok(value) => format!("{value:?}"),
        Err(hint) => hint,
    };
    assert_eq!(seen, expected, "{text}");
}

#[test]
fn durations_have_one_number_and_one_unit() {
    check(duration, "250ms", "250ms");
    check(duration, "30s", "30s");
    check(duration, "5m", "300s");
    check(duration, "24h", "86400s");
    check(duration, "0s", "0ns");
    check(
        duration,
        "30",
        "write `30s` if seconds are meant; durations are 250ms, 30s, 5m, 24h",
    );
    check(
        duration,
        "1h30m",
        "one number and one unit: durations are 250ms, 30s, 5m, 24h",
    );
    check(
        duration,
        "1.5s",
        "one number and one unit: durations are 250ms, 30s, 5m, 24h",
    );
    check(
        duration,
        "2d",
        "write `48h`; durations are 250ms, 30s, 5m, 24h",
    );
    check(
        duration,
        "5 m",
        "one number and one unit: durations are 250ms, 30s, 5m, 24h",
    );
    check(
        duration,
        "-5s",
        "write a whole number in decimal; durations are 250ms, 30s, 5m, 24h",
    );
    check(duration, "99999h", "at most a year: 8784h");
    check(duration, "18446744073709551615h", "at most a year: 8784h");
}

#[test]
fn sizes_are_powers_of_two_or_bytes() {
    check(size, "64KiB", "65536");
    check(size, "10MiB", "10485760");
    check(size, "1GiB", "1073741824");
    check(size, "512B", "512");
    check(size, "512", "512");
    check(size, "64k", "write `64KiB`");
    check(size, "64KB", "write `64KiB`");
    check(size, "10Mb", "write `10MiB`");
    check(size, "1TiB", SIZES);
    check(size, "99999999999GiB", "this size is too large");
}

#[test]
fn numbers_are_decimal() {
    check(integer, "0", "0");
    check(
        integer,
        "0755",
        "write `755`; some YAML readers take a leading zero for octal",
    );
    check(integer, "0x1f", "write a whole number in decimal");
    check(integer, "1_000", "write `1000`");
    check(integer, "-1", "write a whole number in decimal");
    check(integer, "99999999999999999999", "this number is too large");
}

#[test]
fn booleans_are_two_words() {
    check(boolean, "true", "true");
    check(boolean, "false", "false");
    check(boolean, "no", "write `false`");
    check(boolean, "On", "write `true`");
    check(boolean, "TRUE", "write `true`");
    check(boolean, "1", "write `true` or `false`");
}

#[test]
fn listeners_have_an_address_and_a_port() {
    let read = |text: &str| listen_address(text, Path::new("etc"));
    check(read, "0.0.0.0:8080", "Tcp(0.0.0.0:8080)");
    check(read, "[::]:0", "Tcp([::]:0)");
    check(read, "unix:/run/a.sock", "Unix(\"/run/a.sock\")");
    check(read, "unix:a.sock", "Unix(\"etc/a.sock\")");
    check(read, ":80", "write `0.0.0.0:80`");
    check(read, "*:80", "write `0.0.0.0:80`");
    check(read, "localhost:80", "write `127.0.0.1:80`");
    check(
        read,
        "8080",
        "write `0.0.0.0:8080` for all addresses, `127.0.0.1:8080` for this machine",
    );
    check(
        read,
        "::1",
        "the port is missing; addresses are 0.0.0.0:8080, \"[::]:8443\", unix:/run/gateway.sock",
    );
    check(read, "unix:", "write `unix:/run/app.sock`");
    check(read, "unix:///run/a", "write `unix:/run/app.sock`");
    check(read, "a.example.com:80", ADDRESSES);
}

#[test]
fn servers_are_plain_http_or_a_socket() {
    let read = |text: &str| server(text, Path::new(""));
    check(
        read,
        "http://127.0.0.1:8000",
        "Http { host: \"127.0.0.1\", port: 8000 }",
    );
    check(
        read,
        "http://App.internal",
        "Http { host: \"app.internal\", port: 80 }",
    );
    check(read, "http://[::1]:80", "Http { host: \"::1\", port: 80 }");
    check(read, "http://[::1]", "Http { host: \"::1\", port: 80 }");
    check(read, "unix:/run/app.sock", "Unix(\"/run/app.sock\")");
    check(
        read,
        "https://a:1",
        "only http:// and unix: are supported; servers are http://HOST:PORT or unix:/PATH",
    );
    check(
        read,
        "http://a/",
        "a server's URL has no path; write `http://a`, and see `rewrite`",
    );
    check(
        read,
        "http://u:p@a:1",
        "a server's URL has no user and password",
    );
    check(read, "http://a:0", "a port is a number from 1 to 65535");
    check(
        read,
        "http://:80",
        "a host is a name such as app.example.com, or an address",
    );
    check(read, "http://1.2.3:80", "this is no IPv4 address");
    check(
        read,
        "http://::1:80",
        "a host is a name such as app.example.com, or an address",
    );
    check(read, "app:8000", SERVERS);
}

#[test]
fn hosts_are_names_or_all_below_a_name() {
    check(
        host_pattern,
        "WWW.example.com",
        "Exact(\"www.example.com\")",
    );
    check(host_pattern, "*.example.com", "Below(\"example.com\")");
    check(host_pattern, "[::1]", "Exact(\"[::1]\")");
    check(
        host_pattern,
        "a.com:80",
        "a host has no port; every listener serves every route",
    );
    check(
        host_pattern,
        "http://a.com",
        "a host has no scheme and no path: www.example.com",
    );
    check(
        host_pattern,
        "*",
        "a star stands alone and first: *.example.com",
    );
    check(
        host_pattern,
        "a.com.",
        "a host is a name such as app.example.com, or an address",
    );
    check(
        host_pattern,
        "käse.de",
        "write the name in its ASCII form (xn--...)",
    );
}

#[test]
fn networks_have_no_bits_after_their_prefix() {
    check(network, "10.0.0.0/8", "10.0.0.0/8");
    check(network, "10.0.0.1", "10.0.0.1/32");
    check(
        network,
        "10.0.0.1/8",
        "write `10.0.0.0/8` for the whole network",
    );
    check(
        network,
        "ten",
        "networks are 10.0.0.0/8, \"fd00::/8\", 10.0.0.1",
    );
    check(trusted_peers, "10.0.0.1", "Network(10.0.0.1/32)");
    check(trusted_peers, "unix", "Unix");
    check(
        trusted_peers,
        "unix:/run/g.sock",
        "write `unix` for every peer on a Unix socket",
    );
}

#[test]
fn tokens_are_looked_for_in_five_places() {
    check(token_source, "header", "Header");
    check(
        token_source,
        "cookie:access_token",
        "Cookie(\"access_token\")",
    );
    check(token_source, "query:t", "Query(\"t\")");
    check(token_source, "basic", "Basic");
    check(
        token_source,
        "cookie:",
        "a name of letters, digits, `-`, `_` and `.`",
    );
    check(token_source, "body", TOKEN_SOURCES);
}

#[test]
fn rates_are_a_number_in_a_time() {
    let seconds = |text| rate(text, "zero").map(|(count, per)| (count.get(), per.as_secs()));
    assert_eq!(seconds("10/m"), Ok((10, 60)));
    assert_eq!(seconds("1/s"), Ok((1, 1)));
    assert_eq!(seconds("100/h"), Ok((100, 3600)));
    assert_eq!(seconds("1000/d"), Ok((1000, 86_400)));
    assert_eq!(seconds("0/s"), Err("zero".to_owned()));
    let hint = "write `10/s` if seconds are meant; rates are 5/s, 10/m, 100/h, 1000/d";
    assert_eq!(seconds("10"), Err(hint.to_owned()));
    for bad in [
        "",
        "10/",
        "/m",
        "-1/m",
        "1.5/m",
        "10/w",
        "10 /m",
        "4294967296/s",
    ] {
        assert_eq!(seconds(bad), Err(RATES.to_owned()), "{bad}");
    }
}
