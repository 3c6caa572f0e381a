"""Envoy: one worker, no admin endpoint, its cache of verified tokens on, a short line to a log written in batches."""

import json


def jwt_filter(site):
    provider = {
        "local_jwks": {"inline_string": site.tokens.jwks}, "forward": True,
        "jwt_cache_config": {"jwt_cache_size": 50_000},
    }
    return {
        "name": "envoy.filters.http.jwt_authn",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
            "providers": {"bench": provider},
            "rules": [{"match": {"prefix": "/jwt/"}, "requires": {"provider_name": "bench"}}],
        },
    }


def connection_manager(site, scenario):
    log = {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog", "path": str(site.log),
        "log_format": {"text_format_source": {"inline_string": (
            '%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% [%START_TIME%] "%REQ(:METHOD)% %REQ(:PATH)% %PROTOCOL%" '
            "%RESPONSE_CODE% %BYTES_SENT%\n"
        )}},
    }
    router = {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
        "suppress_envoy_headers": True, "dynamic_stats": False,
    }
    return {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench", "use_remote_address": True, "generate_request_id": False, "stream_idle_timeout": "0s",
        "access_log": [{"name": "file", "typed_config": log}],
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "http_filters": [
            *([jwt_filter(site)] if scenario.algorithm else []),
            {"name": "envoy.filters.http.router", "typed_config": router},
        ],
        "route_config": {"virtual_hosts": [{
            "name": "bench", "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "app", "timeout": "0s"}}],
        }]},
    }


def tls_socket(site, clients):
    trusted = {"validation_context": {"trusted_ca": {"filename": str(site.client_ca)}}} if clients else {}
    return {
        "name": "tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "disable_stateless_session_resumption": True, "disable_stateful_session_resumption": True,
            "require_client_certificate": clients,
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"], "tls_params": {"tls_minimum_protocol_version": "TLSv1_3"},
                "tls_certificates": [{
                    "certificate_chain": {"filename": str(site.certificate)}, "private_key": {"filename": str(site.key)},
                }],
                **trusted,
            },
        },
    }


def endpoint(address):
    host, _, port = address.rpartition(":")
    return {"endpoint": {"address": {"socket_address": {"address": host, "port_value": int(port)}}}}


def command(site, scenario):
    chain = {"filters": [{
        "name": "envoy.filters.network.http_connection_manager", "typed_config": connection_manager(site, scenario),
    }]}
    if scenario.tls:
        chain["transport_socket"] = tls_socket(site, scenario.clients)
    most = 1_000_000
    limits = {"max_connections": most, "max_pending_requests": most, "max_requests": most, "max_retries": most}
    path = site.write("envoy.json", json.dumps({"static_resources": {
        "listeners": [{
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": site.port}}, "filter_chains": [chain],
        }],
        "clusters": [{
            "name": "app", "type": "STATIC", "connect_timeout": "5s",
            "circuit_breakers": {"thresholds": [limits]},
            "load_assignment": {
                "cluster_name": "app", "endpoints": [{"lb_endpoints": [endpoint(each) for each in site.backends]}],
            },
        }],
    }}))
    return [
        site.tools["envoy"], "-c", path, "--concurrency", "1", "--disable-hot-restart", "--log-level", "error",
        "--file-flush-interval-msec", "1000",
    ]
