"""HAProxy, Debian's build. Its log goes to a ring buffer and from there over TCP to run.py's log server."""

from tokens import SECRET


def guard(site, algorithm):
    """The algorithm is a constant: cheaper than comparing the token's `alg`, and as safe, since the signature is always
    checked with it. A token without `exp` is refused: there is no number to compare."""
    key = SECRET if algorithm == "HS256" else site.tokens.public_key
    return f"""
    acl guarded path_beg /jwt/
    http-request set-var(txn.token) http_auth_bearer if guarded
    http-request return status 401 if guarded !{{ var(txn.token),jwt_verify("{algorithm}","{key}") -m int 1 }}
    http-request set-var(txn.now) date() if guarded
    http-request set-var(txn.left) var(txn.token),jwt_payload_query('$.exp','int'),sub(txn.now) if guarded
    http-request return status 401 if guarded !{{ var(txn.left) -m int gt 0 }}
"""


def backend_rule(site, scenario):
    """The routes are one map, stored as a tree."""
    if not scenario.routes:
        return "default_backend app"
    rows = "".join(f"/r{number}/ app\n" for number in range(scenario.routes))
    return f"use_backend %[path,map_beg({site.write('haproxy.map', rows + '/open/ app' + chr(10))})]"


def command(site, scenario, buffer=16384):
    tls = ""
    if scenario.tls:
        pem = site.write("haproxy.pem", site.certificate.read_text() + site.key.read_text())
        tls = f" ssl crt {pem} alpn h2,http/1.1 ssl-min-ver TLSv1.3 no-tls-tickets"
    if scenario.clients:
        tls += f" ca-file {site.client_ca} verify required"
    servers = "\n".join(f"    server app{number} {address}" for number, address in enumerate(site.backends))
    path = site.write("haproxy.cfg", f"""
global
    nbthread 1
    maxconn 12000
    no strict-limits
    tune.bufsize {buffer}
    tune.ssl.cachesize 0
    log ring@access format raw local0
ring access
    format raw
    maxlen 2048
    size 4194304
    timeout connect 5s
    timeout server 1h
    server sink 127.0.0.1:{site.log_port}
defaults
    mode http
    log global
    option httplog
    option forwardfor
    option http-keep-alive
    http-reuse always
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    timeout tunnel 1h
frontend bench
    bind 127.0.0.1:{site.port}{tls}{" accept-proxy" if scenario.preamble else ""}
    {guard(site, scenario.algorithm) if scenario.algorithm else ""}
    {backend_rule(site, scenario)}
backend app
{servers}
""")
    return [site.tools["haproxy"], "-db", "-f", path]
