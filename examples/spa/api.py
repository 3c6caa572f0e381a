"""The API behind the gateway, with nothing but the standard library: it says whose orders it shows.

    python3 api.py [PORT]

It reads the user from X-User-Id, which the gateway sets from a verified token and no client can set itself.
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Api(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        found = self.path == "/api/orders"
        body = json.dumps({"user": self.headers["X-User-Id"], "orders": ["two lamps", "a chair"]} if found else {}).encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 8000), Api).serve_forever()
