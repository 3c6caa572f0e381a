"""Traefik with one processor for Go, its fast proxy enabled, and a buffered log."""

import json


def command(site, scenario):
    router = {"rule": "PathPrefix(`/`)", "entryPoints": ["bench"], "service": "app"}
    service = {"loadBalancer": {
        "servers": [{"url": f"http://{address}"} for address in site.backends], "passHostHeader": True,
        "serversTransport": "kept",
    }}
    dynamic = {"http": {
        "routers": {"bench": router}, "services": {"app": service},
        "serversTransports": {"kept": {
            "maxIdleConnsPerHost": 20000, "forwardingTimeouts": {"idleConnTimeout": "3600s"},
        }},
    }}
    if scenario.tls:
        router["tls"] = {}
        certificate = {"certFile": str(site.certificate), "keyFile": str(site.key)}
        options = {"minVersion": "VersionTLS13", "disableSessionTickets": True}
        if scenario.clients:
            options["clientAuth"] = {"caFiles": [str(site.client_ca)], "clientAuthType": "RequireAndVerifyClientCert"}
        dynamic["tls"] = {
            "certificates": [certificate], "stores": {"default": {"defaultCertificate": certificate}},
            "options": {"default": options},
        }
    # JSON is valid YAML, which the file provider reads.
    routes = site.write("traefik-routes.yml", json.dumps(dynamic))
    static = site.write("traefik.yml", json.dumps({
        "global": {"checkNewVersion": False, "sendAnonymousUsage": False}, "log": {"level": "ERROR"},
        "entryPoints": {"bench": {
            "address": f"127.0.0.1:{site.port}",
            "transport": {"respondingTimeouts": {"readTimeout": "0s", "idleTimeout": "3600s"}},
        }},
        "providers": {"file": {"filename": str(routes), "watch": False}},
        "accessLog": {"filePath": str(site.log), "bufferingSize": 1000}, "experimental": {"fastProxy": {}},
    }))
    return ["env", "GOMAXPROCS=1", site.tools["traefik"], f"--configFile={static}"]
