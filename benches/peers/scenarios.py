"""What is measured: every scenario, its servers, and the goals for Portcullis.

Nothing is run here; bench.py executes these descriptions.
"""

from dataclasses import dataclass, field, replace

BEST = "best peer"
MIB = 1 << 20


@dataclass(frozen=True)
class Line:
    """One line of a table: a server with one configuration. `change` overrides fields of the scenario."""

    name: str
    server: str
    options: dict = field(default_factory=dict)
    change: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Goal:
    """The figure of line `of` is at most `at_most` times that of `against`: a server (its best line), a line, or BEST.
    If `against` is None, it is at most `at_most` itself."""

    against: str | None
    at_most: float
    of: str = "portcullis"


@dataclass(frozen=True)
class Scenario:
    """What a client does, and how the server must be set up. `load` names the way to measure it (load.py)."""

    name: str
    title: str
    load: str = "wrk"
    unit: str = "us/request"
    path: str = "/open/1k"
    size: int = 1024
    algorithm: str | None = None
    tokens: int = 1
    tls: bool = False
    names: int = 0
    clients: bool = False
    groups: str | None = None
    preamble: bool = False
    connections: int | None = None
    routes: int = 0
    servers: int = 1
    workers: int = 1
    rate: int = 5000
    reloads: int = 0
    reloads_in: int = 12
    lines: tuple = ()
    goals: tuple = ()
    absent: dict = field(default_factory=dict)

    def for_line(self, line):
        """The scenario as this line runs it."""
        return replace(self, **line.change)


PORTCULLIS = Line("portcullis", "portcullis")
NGINX, HAPROXY = Line("nginx", "nginx"), Line("haproxy", "haproxy")
ENVOY, CADDY, TRAEFIK = Line("envoy", "envoy"), Line("caddy", "caddy"), Line("traefik", "traefik")
PINGAP = Line("pingap", "pingap")
PROXIES = (PORTCULLIS, NGINX, HAPROXY, ENVOY, CADDY, TRAEFIK, PINGAP)
FILES = (
    PORTCULLIS,
    Line("nginx, sendfile on", "nginx", {"sendfile": True, "cache": False}),
    Line("nginx, sendfile off", "nginx", {"sendfile": False, "cache": False}),
    Line("nginx, sendfile on, open_file_cache", "nginx", {"sendfile": True, "cache": True}),
    Line("nginx, sendfile off, open_file_cache", "nginx", {"sendfile": False, "cache": True}),
    CADDY,
)
UNGUARDED = Line("portcullis, no token", "portcullis", change={"algorithm": None, "path": "/open/1k"})
VERIFIERS = (PORTCULLIS, UNGUARDED, HAPROXY, Line("nginx-jwt", "nginx-jwt"), ENVOY)
RELOADED = (PORTCULLIS, Line("portcullis, no reloads", "portcullis", change={"reloads": 0}))
UPLOADS = (
    PORTCULLIS,
    NGINX,
    Line("nginx, 1 MiB buffer", "nginx", {"body_buffer": "1m"}),
    HAPROXY,
    Line("haproxy, 64 KiB buffers", "haproxy", {"buffer": 65536}),
    ENVOY, CADDY, TRAEFIK, PINGAP,
)
HANDSHAKES = (
    PORTCULLIS,
    NGINX,
    Line("nginx, no tickets", "nginx", {"tickets": False}),
    HAPROXY, ENVOY, CADDY, TRAEFIK, PINGAP,
)
NO_FILES = {server: "serves no files" for server in ("haproxy", "envoy", "traefik")}
NO_FILES["pingap"] = "not set up for files"
NO_TOKENS = {server: "cannot check a JWT" for server in ("nginx (Debian)", "caddy", "traefik")}


def guarded(algorithm, hot_goal):
    hmac = algorithm == "HS256"
    return Scenario(
        "jwt" if hmac else f"jwt-{algorithm.lower()}", f"proxy with one hot {algorithm} token, 1 KiB",
        path="/jwt/1k", algorithm=algorithm, lines=VERIFIERS + (PINGAP,) * hmac,
        absent=NO_TOKENS if hmac else NO_TOKENS | {"pingap": "checks HMAC alone"},
        goals=(Goal(BEST, hot_goal), Goal(UNGUARDED.name, 1.05)),
    )


def crowd(algorithm):
    return Scenario(
        f"crowd-{algorithm.lower()}", f"proxy with 20,000 {algorithm} tokens, 1 KiB", load="wrk_list", path="/jwt/1k",
        algorithm=algorithm, tokens=20_000, lines=tuple(line for line in VERIFIERS if line is not UNGUARDED),
        absent=NO_TOKENS | {"pingap": "checks HMAC alone"}, goals=(Goal(BEST, 0.6),),
    )


def grown(key, values, word, server="portcullis"):
    """Lines of one server that differ in one number."""
    return tuple(
        Line(f"{server}, {value:,} {word if value != 1 else word.removesuffix('s')}", server, change={key: value})
        for value in values
    )


FAR = 9_500  # connections; each takes two descriptors of the gateway, and 20,000 is a usual limit
MAIN = (
    Scenario("proxy-128", "proxy, 128 B", path="/open/128", size=128, lines=PROXIES),
    Scenario(
        "proxy", "proxy, 1 KiB", lines=PROXIES,
        goals=(Goal("nginx", 0.95), Goal("haproxy", 0.90), Goal("envoy", 0.50), Goal("pingap", 0.60)),
    ),
    guarded("HS256", 0.80),
    guarded("RS256", 0.45),
    guarded("ES256", 0.45),
    crowd("RS256"),
    crowd("ES256"),
    Scenario(
        "static", "static file, 1 KiB", path="/static/1k.txt", lines=FILES, absent=NO_FILES,
        goals=(Goal("nginx", 0.85),),
    ),
    Scenario(
        "static-16k", "static file, 16 KiB", path="/static/16k.txt", size=16384, lines=FILES, absent=NO_FILES,
        goals=(Goal("nginx", 1.0),),
    ),
    Scenario(
        "static-100m", "static file, 100 MiB, 4 connections", load="get", unit="ms/GiB", path="/static/100m.txt",
        size=100 * MIB, connections=4, lines=FILES, absent=NO_FILES, goals=(Goal("nginx", 0.8),),
    ),
    Scenario("tls", "proxy, 1 KiB, TLS 1.3, kept connections", tls=True, lines=PROXIES, goals=(Goal("nginx", 0.95),)),
    Scenario(
        "handshake", "proxy, 1 KiB, TLS 1.3, a full handshake for each request", load="handshake",
        unit="us/connection", tls=True, connections=8, lines=HANDSHAKES, goals=(Goal("nginx", 0.75),),
    ),
    Scenario(
        "resume", "proxy, 1 KiB, TLS 1.3, a resumed session for each request", load="resume", unit="us/connection",
        tls=True, connections=8, lines=(PORTCULLIS, NGINX), goals=(Goal("nginx", 0.9),),
    ),
    Scenario(
        "handshake-client", "the same as handshake, each with a client certificate (ECDSA, P-256)", load="handshake",
        unit="us/connection", tls=True, clients=True, connections=8, lines=HANDSHAKES[:-1],
        absent={"pingap": "not set up for client certificates"},
        goals=(Goal("nginx", 0.75), Goal("nginx, no tickets", 0.75)),
    ),
    Scenario(
        "resume-client", "the same as resume, with a client certificate", load="resume", unit="us/connection",
        tls=True, clients=True, connections=8, lines=(PORTCULLIS, NGINX), goals=(Goal("nginx", 0.9),),
    ),
    Scenario(
        "handshake-kem", "proxy, 1 KiB, TLS 1.3, a full handshake for each request, with ML-KEM and without", load="kem",
        unit="us/connection", tls=True, groups="X25519MLKEM768", connections=8, lines=(
            PORTCULLIS, Line("portcullis, X25519", "portcullis", change={"groups": "X25519"}),
            Line("nginx, X25519", "nginx", change={"groups": "X25519"}),
        ),
        goals=(Goal("portcullis, X25519", 1.3),),
    ),
    Scenario(
        "preamble", "proxy, 1 KiB, a connection with a PROXY header of version 2 for each request", load="handshake",
        unit="us/connection", preamble=True, connections=8, lines=(
            PORTCULLIS, Line("portcullis, no header", "portcullis", change={"preamble": False}),
            NGINX, Line("nginx, no header", "nginx", change={"preamble": False}),
            HAPROXY, Line("haproxy, no header", "haproxy", change={"preamble": False}),
        ),
        goals=(Goal("portcullis, no header", 1.02),),
    ),
    Scenario(
        "tls-100m", "static file, 100 MiB, TLS 1.3, 4 connections", load="get", unit="ms/GiB", path="/static/100m.txt",
        size=100 * MIB, tls=True, connections=4, lines=FILES, absent=NO_FILES, goals=(Goal("nginx", 0.6),),
    ),
    Scenario(
        "h2", "proxy, 1 KiB, HTTP/2 over TLS 1.3, 16 connections of 8 streams", load="h2", tls=True, connections=16,
        lines=PROXIES, goals=(Goal(BEST, 0.95),),
    ),
    Scenario(
        "upload", "upload of 50 MiB, 4 connections", load="put", unit="ms/GiB", path="/open/sink", size=50 * MIB,
        connections=4, lines=UPLOADS, goals=(Goal("caddy", 1.0),),
    ),
    Scenario(
        "idle", "10,000 idle connections after one request each", load="idle", unit="KiB/connection",
        connections=10_000, lines=PROXIES, goals=(Goal(None, 2),),
    ),
    Scenario(
        "idle-tls", "10,000 idle connections with TLS 1.3 after one request each", load="idle", unit="KiB/connection",
        tls=True, connections=10_000, lines=PROXIES, goals=(Goal(None, 13),),
    ),
    Scenario(
        "websocket", "WebSocket, messages of 64 bytes there and back", load="websocket", unit="us/round trip",
        path="/open/echo", lines=PROXIES,
    ),
    Scenario("latency", "proxy, 1 KiB, 5,000 requests a second (open loop)", load="paced", unit="p99 ms", lines=PROXIES),
    Scenario(
        "reload", "the same during 100 reloads of another configuration; a failed request refuses the line", load="paced",
        unit="p99.9 ms", reloads=100, lines=RELOADED, goals=(Goal("portcullis, no reloads", 1.5),),
    ),
)
GROWTH = (
    Scenario(
        "growth-routes", "proxy, 1 KiB, 1,000 paths spread over many routes", load="wrk_list",
        lines=grown("routes", (10, 1000, 100_000), "routes") + tuple(
            line for server in ("nginx", "haproxy") for line in grown("routes", (10, 100_000), "routes", server)
        ),
        goals=(Goal("portcullis, 10 routes", 1.1, of="portcullis, 100,000 routes"),),
    ),
    Scenario(
        "growth-connections", "proxy, 1 KiB, over more and more connections",
        lines=grown("connections", (1, 10, 100, 1000, FAR), "connections")
        + grown("connections", (100, FAR), "connections", "nginx"),
    ),
    Scenario(
        "growth-servers", "proxy, 1 KiB, to more and more upstream servers",
        lines=grown("servers", (1, 10, 100, 1000), "servers") + grown("servers", (1, 1000), "servers", "nginx"),
    ),
    Scenario(
        "growth-names", "proxy, 1 KiB, TLS 1.3, a full handshake for each request, with more and more certificates",
        load="handshake", unit="us/connection", tls=True, connections=8,
        lines=grown("names", (1, 10_000), "names") + grown("names", (1, 10_000), "names", "nginx"),
        goals=(
            Goal("portcullis, 1 name", 1.05, of="portcullis, 10,000 names"),
            Goal("nginx, 10,000 names", 0.75, of="portcullis, 10,000 names"),
        ),
    ),
    Scenario(
        "names", "memory with more and more certificates, after the start and a rest", load="names", unit="MiB", tls=True,
        lines=grown("names", (1, 10_000), "names") + grown("names", (1, 10_000), "names", "nginx"),
        goals=(Goal("nginx, 10,000 names", 1.0, of="portcullis, 10,000 names"),),
    ),
    Scenario(
        "growth-workers", "proxy, 1 KiB, by 1 worker and 2 (the second shares the CPU of client and origin)",
        lines=grown("workers", (1, 2), "workers"),
    ),
)
ALL = MAIN + GROWTH
NAMES = tuple(scenario.name for scenario in ALL)
