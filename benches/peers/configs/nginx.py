"""nginx, Debian's build: the peer and, with other locations, the origin behind every server."""

import os
import resource


def whole(site, name, http):
    """The command of an nginx that writes only to the temporary directory and closes no persistent connection."""
    temp = " ".join(
        f"{kind}_temp_path {site.folder}/{name}-{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.geteuid() == 0 else ""
    path = site.write(
        f"{name}.conf",
        f"{user}\ndaemon off;\nworker_processes 1;\npid {site.folder}/{name}.pid;\n"
        f"error_log {site.folder}/{name}.error.log crit;\nworker_rlimit_nofile {resource.getrlimit(resource.RLIMIT_NOFILE)[1]};\n"
        f"events {{ worker_connections 32768; }}\n"
        f"http {{\n{temp}\ntypes {{ text/plain txt; }}\ndefault_type text/plain;\n"
        f"keepalive_requests 100000000;\nkeepalive_timeout 1h;\n{http}\n}}\n",
    )
    return [site.tools[name if name in site.tools else "nginx"], "-c", path, "-p", site.folder,
            "-e", site.folder / f"{name}.error.log"]


def origin(site, addresses, bodies):
    """Responds at `addresses` with the body of a path, by default 1 KiB, and with X-Forwarded-For at .../xff."""
    listen = "\n".join(f"listen {address} backlog=4096;" for address in addresses)
    places = "".join(
        f'location = {path} {{ return 200 "{body}"; }}\n'
        for path, body in {
            **bodies, "/open/xff": "$http_x_forwarded_for", "/jwt/xff": "$http_x_forwarded_for",
        }.items()
    )
    return whole(
        site, "origin", f'access_log off;\nserver {{ {listen}\n{places}location / {{ return 200 "{bodies[""]}"; }}\n}}'
    )


def listen(site, scenario):
    """The options of `listen`, and what belongs to it. One server has them for all that listen on the same address."""
    if scenario.tls:
        return "ssl http2 backlog=4096", ""
    if scenario.preamble:
        return "proxy_protocol backlog=4096", "set_real_ip_from 127.0.0.1; real_ip_header proxy_protocol;"
    return "backlog=4096", ""


def tls(site, scenario, tickets):
    """The settings of TLS, for all servers."""
    if not scenario.tls:
        return ""
    verified = f" ssl_client_certificate {site.client_ca}; ssl_verify_client on;" if scenario.clients else ""
    return (
        f"ssl_protocols TLSv1.3; ssl_session_cache {'none' if scenario.load == 'resume' else 'off'};"
        f" ssl_session_tickets {'on' if tickets else 'off'}; http2_max_concurrent_streams 128;{verified}\n"
    )


def servers(site, scenario, places):
    """A server; where a scenario has many names, one for each, with its certificate."""
    options, more = listen(site, scenario)
    address = f"127.0.0.1:{site.port}"
    if not scenario.tls:
        return f"server {{ listen {address} {options}; {more}\n{places} }}"
    pairs = site.pairs(scenario.names) or [(site.certificate, site.key)]
    hashes = "server_names_hash_max_size 65536; server_names_hash_bucket_size 128;\n" if scenario.names else ""
    return hashes + "\n".join(
        f"server {{ listen {address} {'ssl http2' if number else options}; server_name n{number}.bench.example;"
        f" ssl_certificate {certificate}; ssl_certificate_key {key};\n{places} }}"
        for number, (certificate, key) in enumerate(pairs)
    )


def command(site, scenario, sendfile=True, cache=False, tickets=True, body_buffer="16k"):
    on_off = "sendfile on; tcp_nopush on;" if sendfile else "sendfile off;"
    cached = "open_file_cache max=1000 inactive=1h; open_file_cache_valid 60s;" if cache else ""
    backends = " ".join(f"server {address};" for address in site.backends)
    prefixes = ["/open/"] + [f"/r{number}/" for number in range(scenario.routes)]
    proxied = "\n".join(f"location {prefix} {{ proxy_pass http://app; }}" for prefix in prefixes)
    upgrade = "$http_upgrade" if scenario.load == "websocket" else '""'
    connection = "upgrade" if scenario.load == "websocket" else '""'
    return whole(
        site, "nginx",
        f"access_log {site.log} combined buffer=32k;\n{on_off} {cached}\n"
        f"upstream app {{ {backends}"
        " keepalive 16384; keepalive_requests 100000000; keepalive_time 1h; keepalive_timeout 1h; }\n"
        f"{tls(site, scenario, tickets)}"
        "proxy_http_version 1.1; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n"
        f"proxy_set_header Connection {connection}; proxy_set_header Upgrade {upgrade};\n"
        f"client_max_body_size 0; client_body_buffer_size {body_buffer}; proxy_request_buffering off;\n"
        + servers(site, scenario, f"{proxied}\nlocation /static/ {{ root {site.www}; }}"),
    )
