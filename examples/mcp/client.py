"""An MCP client at the gateway, with the official SDK: what it is told without a token, how it gets one, a tool call.

    python client.py [URL]

It does what any MCP client does that was given a URL and nothing else: it asks, gets 401, reads the metadata that the
401 names, registers at the identity provider found there, sends the user through its pages, and calls again with the
token. The user's browser is played by `Browser`, which fills in the two pages of issuer.mjs.
"""

import asyncio
import json
import re
import sys
from html import unescape
from urllib.parse import parse_qs, urljoin, urlsplit

import httpx2
from mcp import Client
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.auth.extensions.client_credentials import ClientCredentialsOAuthProvider
from mcp.client.auth.utils import extract_field_from_www_auth
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientMetadata

URL = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080/mcp"
CALLBACK = "http://127.0.0.1:7777/callback"
PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
HEADERS = {"Accept": "application/json, text/event-stream"}


class Memory:
    """Where the SDK keeps tokens and its registration: nowhere beyond this process."""

    tokens = information = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.information

    async def set_client_info(self, information):
        self.information = information


class Browser:
    """Signs in and consents at the provider's pages, and hands the code back that the last redirect carries."""

    def __init__(self, user: str):
        self.user = user
        self.result: AuthorizationCodeResult | None = None

    async def open(self, url: str) -> None:
        async with httpx2.AsyncClient() as http:
            response = await http.get(url)
            while True:
                if response.is_redirect:
                    url = urljoin(str(response.url), response.headers["location"])
                    if url.startswith(CALLBACK):
                        given = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
                        self.result = AuthorizationCodeResult(**{n: given.get(n) for n in ("code", "state", "iss")})
                        return
                    response = await http.get(url)
                    continue
                action = re.search(r'<form[^>]* action="([^"]+)"', response.text)
                if action is None:
                    raise RuntimeError(f"{response.status_code} from {response.url}: {response.text[:200]}")
                prompt = re.search(r'name="prompt" value="([^"]+)"', response.text)
                form = {"prompt": prompt[1], "login": self.user, "password": "any"}
                response = await http.post(urljoin(str(response.url), unescape(action[1])), data=form)

    async def came_back(self) -> AuthorizationCodeResult:
        assert self.result is not None
        return self.result


def step(number: int, text: str) -> None:
    print(f"\n{number}. {text}", flush=True)


async def call(auth: httpx2.Auth, headers: dict | None = None, mode: str = "auto") -> list[str]:
    """Opens an MCP session and calls both tools; their texts."""
    async with httpx2.AsyncClient(auth=auth, headers=headers, timeout=30) as http:
        async with Client(streamable_http_client(URL, http_client=http), mode=mode) as client:
            tools = (await client.list_tools()).tools
            print(f"   protocol {client.protocol_version}; tools:", ", ".join(tool.name for tool in tools))
            texts = []
            for name, arguments in (("find_order", {"number": "7"}), ("who_am_i", {})):
                result = await client.call_tool(name, arguments)
                texts.append(result.content[0].text)
                print(f"   {name}({', '.join(arguments.values())}) -> {texts[-1]}")
            return texts


async def main() -> int:
    async with httpx2.AsyncClient(headers=HEADERS) as http:
        step(1, "Without a token")
        refused = await http.post(URL, json=PING)
        print(f"   {refused.status_code} WWW-Authenticate: {refused.headers.get('www-authenticate')}")
        metadata_url = extract_field_from_www_auth(refused, "resource_metadata")

        step(2, "The metadata that the 401 names (RFC 9728)")
        metadata = (await http.get(metadata_url)).json()
        print("  ", json.dumps(metadata))
        issuer = metadata["authorization_servers"][0]

    step(3, "A client that knows the URL and nothing else: it registers, ada signs in, two tools are called")
    browser = Browser("ada")
    wanted = OAuthClientMetadata(
        client_name="the example's client", redirect_uris=[CALLBACK], token_endpoint_auth_method="none",
        grant_types=["authorization_code"], response_types=["code"],
    )
    ada = await call(OAuthClientProvider(URL, wanted, Memory(), browser.open, browser.came_back))

    step(4, "A program with client credentials, an older protocol, and a header that says it is root")
    program = ClientCredentialsOAuthProvider(URL, Memory(), "reports", "secret-of-reports", issuer=issuer)
    reports = await call(program, headers={"X-User-Id": "root"}, mode="legacy")

    step(5, "A genuine token without the scope")
    async with httpx2.AsyncClient(headers=HEADERS) as http:
        token = (await http.post(
            f"{issuer}/token", auth=("visitor", "secret-of-visitor"),
            data={"grant_type": "client_credentials", "resource": metadata["resource"], "scope": "orders:list"},
        )).json()["access_token"]
        short = await http.post(URL, json=PING, headers={"Authorization": f"Bearer {token}"})
        print(f"   {short.status_code} WWW-Authenticate: {short.headers.get('www-authenticate')}")

    expected = (
        refused.status_code == 401 and metadata["scopes_supported"] == ["orders:read"]
        and ada == ["two lamps", "ada"] and reports == ["two lamps", "reports"]
        and short.status_code == 403 and extract_field_from_www_auth(short, "error") == "insufficient_scope"
    )
    print("\nas expected" if expected else "\nNOT as expected")
    return 0 if expected else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
