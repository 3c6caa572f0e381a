"""pingap with one thread. The buffer of its access log is not configurable; its own JWT plugin only checks HMAC."""

from tokens import SECRET


def command(site, scenario):
    addresses = ", ".join(f'"{address}"' for address in site.backends)
    guarded = scenario.algorithm is not None
    tls = 'tls_min_version = "tlsv1.3"\nglobal_certificates = true\nenabled_h2 = true' if scenario.tls else ""
    certificate = f"""
[certificates.bench]
tls_cert = '''{site.certificate.read_text()}'''
tls_key = '''{site.key.read_text()}'''
is_default = true
""" if scenario.tls else ""
    guard = f"""
[plugins.bench]
category = "jwt"
step = "request"
header = "Authorization"
secret = "{SECRET}"
algorithm = "HS256"
auth_path = "/nowhere"
[locations.jwt]
path = "/jwt/"
upstream = "app"
plugins = ["bench"]
proxy_set_headers = ["X-Forwarded-For:$proxy_add_x_forwarded_for"]
""" if guarded else ""
    path = site.write("pingap.toml", f"""
[basic]
threads = 1
pid_file = "{site.folder}/pingap.pid"
upstream_keepalive_pool_size = 20000
log_level = "error"
[servers.bench]
addr = "127.0.0.1:{site.port}"
threads = 1
access_log = "{site.log}?rolling=never combined"
locations = ["open"{', "jwt"' if guarded else ""}]
{tls}
{certificate}
[locations.open]
path = "/"
upstream = "app"
proxy_set_headers = ["X-Forwarded-For:$proxy_add_x_forwarded_for"]
{guard}
[upstreams.app]
addrs = [{addresses}]
idle_timeout = "1h"
""")
    return [site.tools["pingap"], "-c", path]
