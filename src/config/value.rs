//! Parses single values: durations, sizes, addresses and so on. Each function returns the value, or a hint; the hint is
//! dropped where the text is a secret.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::uri::PathAndQuery;
use ipnet::IpNet;

use crate::net::addresses::canonical;

use super::parsed::{
    HostPattern, ListenAddress, LogTarget, RedirectToHttps, Server, TokenSource, TrustedPeers,
};

/// What to write instead of a text that is not valid.
pub(crate) type Hint = String;

/// The form of a duration.
pub(crate) const DURATIONS: &str = "durations are 250ms, 30s, 5m, 24h";
/// The form of a rate.
pub(crate) const RATES: &str = "rates are 5/s, 10/m, 100/h, 1000/d";
/// The form of a size.
pub(crate) const SIZES: &str = "sizes are 512B, 64KiB, 10MiB, 1GiB, or a number of bytes";
/// The form of a listener's address.
pub(crate) const ADDRESSES: &str =
    "addresses are 0.0.0.0:8080, \"[::]:8443\", unix:/run/gateway.sock";
/// The form of an app's address.
pub(crate) const SERVERS: &str = "servers are http://HOST:PORT or unix:/PATH";

/// The longest duration: a year. Adding it to a clock does not overflow.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Splits `30s` into 30 and `s`. A missing number, a leading zero and an overflow are errors.
fn number_and_unit(text: &str, general: &str) -> Result<(u64, String), Hint> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    Ok((
        integer(digits).map_err(|hint| format!("{hint}; {general}"))?,
        unit.to_owned(),
    ))
}

/// A decimal number without sign.
pub(crate) fn integer(text: &str) -> Result<u64, Hint> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        let plain = text.replace(['_', ','], "");
        let only_digits = !plain.is_empty() && plain.bytes().all(|byte| byte.is_ascii_digit());
        return Err(if only_digits && !plain.starts_with('0') {
            format!("write `{plain}`")
        } else {
            "write a whole number in decimal".to_owned()
        });
    }
    if text.len() > 1 && text.starts_with('0') {
        let plain = text.trim_start_matches('0');
        let plain = if plain.is_empty() { "0" } else { plain };
        return Err(format!(
            "write `{plain}`; some YAML readers take a leading zero for octal"
        ));
    }
    text.parse()
        .map_err(|_| "this number is too large".to_owned())
}

/// `250ms`, `30s`, `5m`, `24h`: one number, one unit, at most a year.
pub(crate) fn duration(text: &str) -> Result<Duration, Hint> {
    let (number, unit) = number_and_unit(text, DURATIONS)?;
    let seconds = |each: u64| number.checked_mul(each).map(Duration::from_secs);
    let duration = match unit.as_str() {
        "ms" => Some(Duration::from_millis(number)),
        "s" => seconds(1),
        "m" => seconds(60),
        "h" => seconds(60 * 60),
        "" => {
            return Err(format!(
                "write `{number}s` if seconds are meant; {DURATIONS}"
            ));
        }
        "d" => {
            return Err(format!(
                "write `{}h`; {DURATIONS}",
                number.saturating_mul(24)
            ));
        }
        "sec" | "secs" | "second" | "seconds" => return Err(format!("write `{number}s`")),
        "min" | "mins" | "minute" | "minutes" => return Err(format!("write `{number}m`")),
        "hour" | "hours" => return Err(format!("write `{number}h`")),
        _ => return Err(format!("one number and one unit: {DURATIONS}")),
    };
    duration
        .filter(|it| *it <= LONGEST)
        .ok_or_else(|| "at most a year: 8784h".to_owned())
}

/// `10/m`: the number per second, minute, hour or day. `zero` says what is wrong with none.
pub(crate) fn rate(text: &str, zero: &str) -> Result<(NonZeroU32, Duration), Hint> {
    let Some((count, unit)) = text.split_once('/') else {
        let is_number = integer(text).is_ok_and(|count| count > 0);
        return Err(if is_number {
            format!("write `{text}/s` if seconds are meant; {RATES}")
        } else {
            RATES.to_owned()
        });
    };
    let count = u32::try_from(integer(count).map_err(|_| RATES)?).map_err(|_| RATES)?;
    let per = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return Err(RATES.to_owned()),
    };
    let count = NonZeroU32::new(count).ok_or(zero)?;
    Ok((count, Duration::from_secs(per)))
}

/// `64KiB`, `10MiB`, `1GiB`, `512B`, `512`: bytes.
pub(crate) fn size(text: &str) -> Result<u64, Hint> {
    let (number, unit) = number_and_unit(text, SIZES)?;
    let shift = match unit.as_str() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        other => {
            let known = ["KiB", "MiB", "GiB"].into_iter().find(|known| {
                let first = |text: &str| text.chars().next().map(|c| c.to_ascii_uppercase());
                first(other) == first(known) && other.len() <= 3
            });
            return Err(known.map_or_else(
                || SIZES.to_owned(),
                |unit| format!("write `{number}{unit}`"),
            ));
        }
    };
    number
        .checked_mul(1 << shift)
        .ok_or_else(|| "this size is too large".to_owned())
}

/// `true` and `false`, and no other word.
pub(crate) fn boolean(text: &str) -> Result<bool, Hint> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        other => Err(match boolean_of_yaml_1_1(other) {
            Some(meant) => format!("write `{meant}`"),
            None => "write `true` or `false`".to_owned(),
        }),
    }
}

/// The value of `off` for a timeout: longer than anybody waits.
pub(crate) const NEVER: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// The value of `off` for a size.
pub(crate) const UNLIMITED: u64 = u64::MAX;

/// Whether a word probably means `off`: `Off`, `no`, `false`, `none`, `unlimited`.
pub(crate) fn is_off(word: &str) -> bool {
    boolean_of_yaml_1_1(word) == Some(false)
        || matches!(
            word.to_ascii_lowercase().as_str(),
            "none" | "never" | "unlimited" | "infinity"
        )
}

/// The boolean that YAML 1.1 reads a word as: `yes`, `Off`, `TRUE`.
pub(crate) fn boolean_of_yaml_1_1(word: &str) -> Option<bool> {
    match word.to_ascii_lowercase().as_str() {
        "yes" | "on" | "true" => Some(true),
        "no" | "off" | "false" => Some(false),
        _ => None,
    }
}

/// The address of a listener: `ADDRESS:PORT` or `unix:PATH`, the path relative to `directory`.
pub(crate) fn listen_address(text: &str, directory: &Path) -> Result<ListenAddress, Hint> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok(ListenAddress::Unix(socket_path(path, directory)?));
    }
    text.parse::<SocketAddr>()
        .map(ListenAddress::Tcp)
        .map_err(|_| {
            if integer(text).is_ok_and(|port| port <= u64::from(u16::MAX)) {
                return format!(
                    "write `0.0.0.0:{text}` for all addresses, `127.0.0.1:{text}` for this machine"
                );
            }
            match text.rsplit_once(':') {
                Some(("" | "*", port)) => format!("write `0.0.0.0:{port}`"),
                Some(("localhost", port)) => format!("write `127.0.0.1:{port}`"),
                _ if text.parse::<IpAddr>().is_ok() => format!("the port is missing; {ADDRESSES}"),
                _ => ADDRESSES.to_owned(),
            }
        })
}

/// A name in a `Host` field, without a port.
pub(crate) fn admin_host(text: &str) -> Result<String, Hint> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if text.contains("://") || text.contains('/') {
        return Err("a name alone, as in gateway.internal".to_owned());
    }
    if let Some((name, port)) = text.rsplit_once(':') {
        if port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(format!("write `{name}`: every port is meant"));
        }
    }
    if text.is_empty() || !text.bytes().all(legal) {
        return Err("a name, without `*`".to_owned());
    }
    Ok(text.to_ascii_lowercase())
}

/// The form of a systemd socket's name.
pub(crate) const SOCKET_NAMES: &str = "as `FileDescriptorName=` of the socket's unit says it";

/// The name of sockets that systemd passes (systemd.socket(5)): ASCII without control characters and colons.
pub(crate) fn socket_name(text: &str) -> Result<ListenAddress, Hint> {
    let legal = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b':';
    if text.is_empty() || text.len() > 255 || !text.bytes().all(legal) {
        return Err(format!(
            "a name of 1 to 255 characters without `:`, {SOCKET_NAMES}"
        ));
    }
    Ok(ListenAddress::Inherited(text.to_owned()))
}

/// The form of a socket's mode.
pub(crate) const MODES: &str = "modes are \"0600\" (the owner), \"0660\" (the group, too)";

/// The permission bits of a socket: three octal digits, with or without a zero before them.
pub(crate) fn socket_mode(text: &str) -> Result<u32, Hint> {
    let digits = text.strip_prefix('0').filter(|it| it.len() == 3);
    let digits = digits.unwrap_or(text);
    let octal = digits.len() == 3 && digits.bytes().all(|byte| (b'0'..b'8').contains(&byte));
    let mode = u32::from_str_radix(digits, 8).ok().filter(|_| octal);
    match mode {
        None => Err(MODES.to_owned()),
        Some(mode) if mode & 0o222 == 0 => Err(format!(
            "nobody could connect: that takes the right to write; {MODES}"
        )),
        Some(mode) => Ok(mode),
    }
}

/// The path after `unix:`, relative to the directory.
fn socket_path(path: &str, directory: &Path) -> Result<PathBuf, Hint> {
    if path.is_empty() || path.starts_with("//") || path.contains('\0') {
        return Err("write `unix:/run/app.sock`".to_owned());
    }
    let path = directory.join(path);
    // The system's limit for a socket address, without its terminator.
    if path.as_os_str().len() > 107 {
        return Err("the path of a socket has at most 107 bytes".to_owned());
    }
    Ok(path)
}

/// Whether a text is a URL rather than a name.
pub(crate) fn is_url(text: &str) -> bool {
    text.contains("://") || text.starts_with("unix:")
}

/// The address of an app: `http://HOST:PORT` or `unix:PATH`, the path relative to `directory`.
pub(crate) fn server(text: &str, directory: &Path) -> Result<Server, Hint> {
    if let Some(path) = text.strip_prefix("unix:") {
        return Ok(Server::Unix(socket_path(path, directory)?));
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(SERVERS.to_owned());
    };
    if scheme != "http" {
        return Err(format!("only http:// and unix: are supported; {SERVERS}"));
    }
    if rest.contains('@') {
        return Err("a server's URL has no user and password".to_owned());
    }
    if let Some((authority, _)) = rest.split_once(['/', '?', '#']) {
        return Err(format!(
            "a server's URL has no path; write `http://{authority}`, and see `rewrite`"
        ));
    }
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port_number(port)?),
        _ => (rest, 80),
    };
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let host = match bare {
        Some(v6) => match v6.parse::<IpAddr>() {
            Ok(ip @ IpAddr::V6(_)) => ip.to_string(),
            Ok(IpAddr::V4(_)) | Err(_) => {
                return Err("between `[` and `]` stands an IPv6 address".to_owned());
            }
        },
        None => host_name(host)?,
    };
    Ok(Server::Http { host, port })
}

/// A server and the target of the request to it: `http://HOST:PORT/PATH`, `unix:SOCKET:/PATH`, or `unix:SOCKET` for its
/// root.
pub(crate) fn server_and_target(
    text: &str,
    directory: &Path,
) -> Result<(Server, PathAndQuery), Hint> {
    let (base, target) = match text.strip_prefix("unix:") {
        Some(socket) => match socket.find(":/") {
            Some(at) => {
                let (base, target) = text.split_at("unix:".len() + at);
                (base, target.trim_start_matches(':'))
            }
            None => (text, ""),
        },
        None => {
            let at = text
                .find("://")
                .and_then(|scheme| Some(scheme + 3 + text.get(scheme + 3..)?.find(['/', '?'])?));
            at.map_or((text, ""), |at| text.split_at(at))
        }
    };
    let target = match target {
        "" => "/".to_owned(),
        query if query.starts_with('?') => format!("/{query}"),
        target => target.to_owned(),
    };
    if target.contains('#') {
        return Err("a fragment (#) is never sent; leave it out".to_owned());
    }
    let target = PathAndQuery::try_from(target).map_err(|_| "this is no path".to_owned())?;
    Ok((server(base, directory)?, target))
}

fn port_number(text: &str) -> Result<u16, Hint> {
    match integer(text).ok().and_then(|port| u16::try_from(port).ok()) {
        Some(port) if port > 0 => Ok(port),
        Some(_) | None => Err("a port is a number from 1 to 65535".to_owned()),
    }
}

/// Where a listener redirects to: `true`, `false` or a port.
pub(crate) fn redirect_to_https(text: &str) -> Result<RedirectToHttps, Hint> {
    if text.starts_with(|first: char| first.is_ascii_digit()) {
        return port_number(text).map(RedirectToHttps::Port);
    }
    boolean(text).map(|redirects| match redirects {
        true => RedirectToHttps::FirstTls,
        false => RedirectToHttps::Off,
    })
}

/// A host name or IPv4 address, in lower case.
fn host_name(text: &str) -> Result<String, Hint> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if !text.is_ascii() {
        return Err("write the name in its ASCII form (xn--...)".to_owned());
    }
    let labels = || text.split('.');
    if text.is_empty()
        || text.len() > 253
        || !labels().all(|label| !label.is_empty() && label.chars().all(legal))
    {
        return Err("a host is a name such as app.example.com, or an address".to_owned());
    }
    let last_is_number = labels()
        .next_back()
        .is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    if last_is_number && text.parse::<std::net::Ipv4Addr>().is_err() {
        return Err("this is no IPv4 address".to_owned());
    }
    Ok(text.to_ascii_lowercase())
}

/// The host of a route: `www.example.com`, `*.example.com`, `10.0.0.1` or `[::1]`, without a port.
pub(crate) fn host_pattern(text: &str) -> Result<HostPattern, Hint> {
    if text.contains("://") {
        return Err("a host has no scheme and no path: www.example.com".to_owned());
    }
    if let Some(v6) = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        let v6: std::net::Ipv6Addr = v6
            .parse()
            .map_err(|_| "this is no IPv6 address".to_owned())?;
        return Ok(HostPattern::Exact(format!("[{v6}]")));
    }
    if text.contains(':') {
        return Err("a host has no port; every listener serves every route".to_owned());
    }
    let (wild, name) = match text.strip_prefix("*.") {
        Some(name) => (true, name),
        None => (false, text),
    };
    if name.contains('*') {
        return Err("a star stands alone and first: *.example.com".to_owned());
    }
    let name = host_name(name)?;
    Ok(if wild {
        HostPattern::Below(name)
    } else {
        HostPattern::Exact(name)
    })
}

/// `10.0.0.0/8`, or one address.
pub(crate) fn network(text: &str) -> Result<IpNet, Hint> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(ip.into());
    }
    let net: IpNet = text
        .parse()
        .map_err(|_| "networks are 10.0.0.0/8, \"fd00::/8\", 10.0.0.1".to_owned())?;
    if net.trunc() != net {
        return Err(format!("write `{}` for the whole network", net.trunc()));
    }
    Ok(net)
}

/// The address of a client; `unix` is one on a Unix socket.
pub(crate) fn client(text: &str) -> Result<Option<IpAddr>, Hint> {
    match text {
        "unix" => Ok(None),
        text => match text.parse::<IpAddr>() {
            Ok(ip) => Ok(Some(ip.to_canonical())),
            Err(_) => Err("such as 192.0.2.7, \"2001:db8::1\" or `unix`".to_owned()),
        },
    }
}

/// An item of `trusted_proxies`.
pub(crate) fn trusted_peers(text: &str) -> Result<TrustedPeers, Hint> {
    match text {
        "unix" => Ok(TrustedPeers::Unix),
        text if text.starts_with("unix:") => {
            Err("write `unix` for every peer on a Unix socket".to_owned())
        }
        text => network(text).map(|network| TrustedPeers::Network(canonical(network))),
    }
}

/// The name of a cookie or a parameter.
pub(crate) fn cookie_name(text: &str) -> Result<&str, Hint> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !text.is_empty() && text.chars().all(legal) {
        Ok(text)
    } else {
        Err("a name of letters, digits, `-`, `_` and `.`".to_owned())
    }
}

/// The sources that [`token_source`] accepts.
pub(crate) const TOKEN_SOURCES: &str =
    "known here: header, cookie:NAME, query:NAME, websocket, basic";

/// `header`, `cookie:NAME`, `query:NAME`, `websocket`, `basic`.
pub(crate) fn token_source(text: &str) -> Result<TokenSource, Hint> {
    let named = |name: &str| cookie_name(name).map(str::to_owned);
    match text.split_once(':') {
        None if text == "header" => Ok(TokenSource::Header),
        None if text == "websocket" => Ok(TokenSource::WebSocket),
        None if text == "basic" => Ok(TokenSource::Basic),
        Some(("cookie", name)) => Ok(TokenSource::Cookie(named(name)?)),
        Some(("query", name)) => Ok(TokenSource::Query(named(name)?)),
        Some(_) | None => Err(TOKEN_SOURCES.to_owned()),
    }
}

/// A time in RFC 3339 format, in seconds since 1970.
pub(crate) fn moment(text: &str) -> Result<f64, Hint> {
    let parsed: Result<jiff::Timestamp, _> = text.parse();
    match parsed {
        // Far below 2^53.
        #[expect(
            clippy::cast_precision_loss,
            reason = "the years of a timestamp are bounded"
        )]
        Ok(moment) => Ok(moment.as_millisecond() as f64 / 1000.0),
        Err(_) => Err("write it as 2026-11-23T12:00:00Z, or with an offset for Z".to_owned()),
    }
}

/// `stdout`, `stderr`, or a file.
pub(crate) fn log_target(text: &str, directory: &Path) -> Result<LogTarget, Hint> {
    match text {
        "stdout" => Ok(LogTarget::Stdout),
        "stderr" => Ok(LogTarget::Stderr),
        path => Ok(LogTarget::File(file_path(path, directory)?)),
    }
}

/// A path, relative to the directory.
pub(crate) fn file_path(text: &str, directory: &Path) -> Result<PathBuf, Hint> {
    if text.is_empty() || text.contains('\0') {
        return Err("a path is not empty and has no NUL".to_owned());
    }
    Ok(directory.join(text))
}

#[cfg(test)]
mod tests;
