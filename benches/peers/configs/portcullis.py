"""Portcullis as usually set up, with one worker and nginx's log format; limits that the load would reach are raised."""

from tokens import SECRET


def verifier(site, algorithm):
    if algorithm == "HS256":
        return f'{{algorithms: [HS256], audience: any, secret: "{SECRET}"}}'
    return f'{{algorithms: [{algorithm}], audience: any, keys: [{{kid: bench, file: "{site.tokens.public_key}"}}]}}'


def text(site, scenario, marker=None):
    """gateway.yaml. `marker` is the value of a header, so that a reload finds a change."""
    pairs = site.pairs(scenario.names) or [(site.certificate, site.key)]
    listed = ", ".join(f'{{cert: "{certificate}", key: "{key}"}}' for certificate, key in pairs)
    clients = f', client_auth: {{ca: "{site.client_ca}"}}' if scenario.clients else ""
    tls = f", tls: {{certificates: [{listed}]{clients}}}" if scenario.tls else ""
    servers = ", ".join(f'"http://{address}"' for address in site.backends)
    algorithm = scenario.algorithm
    guarded = algorithm is not None
    more = "".join(f"  - {{path: /r{number}/*, proxy: app, auth: none}}\n" for number in range(scenario.routes))
    return f"""
workers: {scenario.workers}
listeners: [{{address: "127.0.0.1:{site.port}"{tls}{", proxy_protocol: true" if scenario.preamble else ""}}}]
{"trusted_proxies: [127.0.0.1]" if scenario.preamble else ""}
limits: {{connections_per_ip: 100000, body_bytes: 1GiB}}
timeouts: {{keep_alive: 1h}}
{f"jwt: {{bench: {verifier(site, algorithm)}}}" if guarded else ""}
upstreams: {{app: {{servers: [{servers}]}}}}
{f'defaults: {{headers: {{response: {{set: {{X-Marker: "{marker}"}}}}}}}}' if marker else ""}
routes:
  - {{path: /open/*, proxy: app, auth: none}}
{"  - {path: /jwt/*, proxy: app, auth: bench}" if guarded else ""}
  - {{path: /static/*, static: {{root: "{site.www}/static"}}, auth: none}}
{more}
log: {{level: {'info' if scenario.reloads else 'warn'}, access: {{to: "{site.log}", format: combined}}}}
"""


def command(site, scenario):
    path = site.write("gateway.yaml", text(site, scenario))
    return [site.tools["portcullis"], "run", "-c", path]
