"""Caddy with one processor for Go, without its admin endpoint and without automatic certificates."""

import json


def log(site):
    """JSON, as Caddy writes it by default; it has no buffer."""
    return {
        "default": {"level": "ERROR"},
        "access": {
            "include": ["http.log.access"], "encoder": {"format": "json"},
            "writer": {"output": "file", "filename": str(site.log), "roll": False},
        },
    }


def command(site, scenario):
    proxy = {
        "handler": "reverse_proxy", "upstreams": [{"dial": address} for address in site.backends],
        "transport": {
            "protocol": "http", "compression": False,
            "keep_alive": {"enabled": True, "max_idle_conns": 20000, "max_idle_conns_per_host": 20000,
                           "idle_timeout": "1h"},
        },
    }
    files = {"handler": "file_server", "root": str(site.www)}
    server = {
        "listen": [f"127.0.0.1:{site.port}"], "protocols": ["h1", "h2"], "idle_timeout": "1h",
        "automatic_https": {"disable": True}, "logs": {},
        "routes": [
            {"match": [{"path": ["/static/*"]}], "handle": [files]},
            {"handle": [proxy]},
        ],
    }
    apps = {"http": {"servers": {"bench": server}}}
    if scenario.tls:
        policy = {"protocol_min": "tls1.3"}
        if scenario.clients:
            trusted = {"provider": "file", "pem_files": [str(site.client_ca)]}
            policy["client_authentication"] = {"ca": trusted, "mode": "require_and_verify"}
            server["strict_sni_host"] = False  # the load names no server
        server["tls_connection_policies"] = [policy]
        apps["tls"] = {
            "certificates": {"load_files": [{"certificate": str(site.certificate), "key": str(site.key)}]},
            "session_tickets": {"disabled": True},
        }
    path = site.write("caddy.json", json.dumps({
        "admin": {"disabled": True, "config": {"persist": False}}, "logging": {"logs": log(site)}, "apps": apps,
    }))
    return [
        "env", "GOMAXPROCS=1", f"HOME={site.folder}", f"XDG_DATA_HOME={site.folder}", f"XDG_CONFIG_HOME={site.folder}",
        site.tools["caddy"], "run", "--config", path,
    ]
