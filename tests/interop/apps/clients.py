#!/usr/bin/env python3
"""The clients of apps.py that need packages: each talks to one app at one address and prints what it saw as JSON.

    clients.py STORY URL [--ca FILE] [--http2]

STORY is `s3`, `early`, `kernel` or `fetch`. What is printed holds nothing that differs from run to run: apps.py compares what
was seen straight at the app with what was seen through the gateway, as a whole. `fetch` reads lines of JSON (method, path,
headers, body as base64) from standard input, sends each with httpx, over HTTP/2 where that is asked for, and prints the responses.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import http.client
import json
import ssl
import sys
import time
from urllib.parse import urlsplit

# Keys that a gateway that tidies paths would make one, or break.
KEYS = [
    "x/y", "x//y", "x/./y", "z/../x/y", "/lead", "tail/", "tail//", "a b/c d", "a+b", "a%2Fb", "a%20b", "100%", "per%cent/%41",
    "semi;colon=1", "back\\slash", "quote'\"<>", "brace{0}|^`", "hash#mark", "question?mark", "at@colon:amp&eq=", "~tilde._-",
    "unicode/\u00e9\u4e2d\U0001f600", "e\u0301", "%F0%9F%98%80",
]
EARLY_POSTS = 500


def context(ca: str | None) -> ssl.SSLContext | None:
    return ssl.create_default_context(cafile=ca) if ca else None


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def s3(url: str, ca: str | None, http2: bool) -> dict:
    """Puts, lists, reads and removes an object of every key. With HTTP/2 the requests are presigned, and httpx sends them."""
    import boto3
    import httpx
    from botocore.config import Config

    config = Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1})
    client = boto3.client(
        "s3", endpoint_url=url, aws_access_key_id="a", aws_secret_access_key="b", region_name="us-east-1",
        config=config, verify=ca or True,
    )
    bucket = "http2" if http2 else "plain"
    over = httpx.Client(http2=True, verify=context(ca)) if http2 else None

    def call(method: str, operation: str, key: str, body: bytes | None = None) -> bytes:
        """One request as boto3 signs its URL, sent over HTTP/2 with the URL's own bytes."""
        target = client.generate_presigned_url(operation, Params={"Bucket": bucket, "Key": key})
        parts = urlsplit(target)
        raw = target[len(f"{parts.scheme}://{parts.netloc}"):].encode()
        # httpx would resolve dot segments in a URL; a target goes out as it is.
        response = over.request(method, f"{parts.scheme}://{parts.netloc}/", content=body, extensions={"target": raw})
        if response.http_version != "HTTP/2" or response.status_code >= 300:
            raise SystemExit(f"{method} {raw!r}: {response.http_version} {response.status_code} {response.text[:200]}")
        return response.content

    client.create_bucket(Bucket=bucket)
    for key in KEYS:
        if over:
            call("PUT", "put_object", key, key.encode())
        else:
            client.put_object(Bucket=bucket, Key=key, Body=key.encode())
    listed = client.list_objects_v2(Bucket=bucket)["Contents"]
    read = {}
    for key in sorted(entry["Key"] for entry in listed):
        body = call("GET", "get_object", key) if over else client.get_object(Bucket=bucket, Key=key)["Body"].read()
        read[key] = body.decode()
    for key in KEYS[::2]:
        client.delete_object(Bucket=bucket, Key=key)
    left = sorted(entry["Key"] for entry in client.list_objects_v2(Bucket=bucket).get("Contents", []))
    return {"read": read, "left": left}


def early(url: str, ca: str | None, http2: bool) -> dict:
    """POSTs that are answered before their body was read, over one connection as long as it stays: http.client writes head
    and body apart. Each must have its own response."""
    import httpx

    parts = urlsplit(url)
    delays = [0, 0.001, 0.02, 0.1]
    statuses: dict[str, int] = {}
    if http2:
        with httpx.Client(http2=True, verify=context(ca)) as over:
            for number in range(EARLY_POSTS):
                response = over.post(f"{url}/early/{number}", content=b"x" * (number % 7 * 1000))
                check(number, response.status_code, response.content, statuses)
        return {"statuses": statuses}
    kind = http.client.HTTPSConnection if ca else http.client.HTTPConnection
    more = {"context": context(ca)} if ca else {}
    connection = kind(parts.hostname, parts.port, timeout=10, **more)
    for number in range(EARLY_POSTS):
        body = b"x" * (number % 7 * 1000)
        connection.putrequest("POST", f"/early/{number}")
        connection.putheader("Content-Length", str(len(body)))
        connection.endheaders()
        if number % 10 == 0:
            time.sleep(delays[number // 10 % len(delays)])
        try:
            connection.send(body)
        except ConnectionError as error:
            raise SystemExit(f"POST {number}: the body could not be sent: {error}") from error
        response = connection.getresponse()
        check(number, response.status, response.read(), statuses)
    return {"statuses": statuses}


def check(number: int, status: int, body: bytes, statuses: dict[str, int]) -> None:
    if json.loads(body) != {"number": number} or status != (200 if number % 2 else 401):
        raise SystemExit(f"POST {number} was answered with {status} {body[:100]!r}")
    statuses[str(status)] = statuses.get(str(status), 0) + 1


def kernel(url: str, ca: str | None, http2: bool) -> dict:
    """Starts a kernel with Jupyter's REST interface and lets it work over its WebSocket."""
    import httpx
    import websocket

    with httpx.Client(http2=http2, verify=context(ca) or True, timeout=60) as over:
        started = over.post(f"{url}/api/kernels", json={"name": "python3"})
        started.raise_for_status()
        name = started.json()["id"]
        scheme = "wss" if ca else "ws"
        channel = websocket.create_connection(
            f"{scheme}://{urlsplit(url).netloc}/api/kernels/{name}/channels?session_id=apps", timeout=60,
            sslopt={"ca_certs": ca} if ca else None,
        )
        said = []
        for at, code in enumerate(["print(6 * 7)", "print('\u00e9\u4e2d' * 3)", "print('x' * 200_000)"]):
            content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
            header = {"msg_id": f"m{at}", "username": "", "session": "apps", "msg_type": "execute_request", "version": "5.3"}
            channel.send(json.dumps({
                "header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell", "buffers": [],
            }))
            text, idle = "", False
            while not idle:
                message = json.loads(channel.recv())
                if message["parent_header"].get("msg_id") != f"m{at}":
                    continue
                if message["msg_type"] == "stream":
                    text += message["content"]["text"]
                idle = message["msg_type"] == "status" and message["content"]["execution_state"] == "idle"
            said.append(digest(text.encode()) if len(text) > 100 else text)
        channel.close()
        stopped = over.delete(f"{url}/api/kernels/{name}").status_code
        # Names in paths, as its file browser writes them.
        path = "/api/contents/a%20b%2B%C3%A9.txt"
        written = over.put(f"{url}{path}", json={"type": "file", "format": "text", "content": "\u00e9"}).status_code
        read = over.get(f"{url}{path}").json()
        return {"said": said, "stopped": stopped, "written": written in (200, 201), "name": read["name"], "content": read["content"]}


def fetch(url: str, ca: str | None, http2: bool) -> list:
    """Sends the requests of standard input."""
    import httpx

    seen = []
    with httpx.Client(http2=http2, verify=context(ca) or True, timeout=60) as over:
        for line in sys.stdin:
            wanted = json.loads(line)
            response = over.request(
                wanted["method"], url, headers=wanted.get("headers"), content=base64.b64decode(wanted.get("body", "")) or None,
                extensions={"target": wanted["path"].encode()},
            )
            if http2 and response.http_version != "HTTP/2":
                raise SystemExit(f"{wanted['path']}: {response.http_version}")
            seen.append({"status": response.status_code, "length": len(response.content), "sha256": digest(response.content)})
    return seen


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("story", choices=["s3", "early", "kernel", "fetch"])
    parser.add_argument("url")
    parser.add_argument("--ca")
    parser.add_argument("--http2", action="store_true")
    options = parser.parse_args()
    print(json.dumps(globals()[options.story](options.url, options.ca, options.http2), sort_keys=True))
