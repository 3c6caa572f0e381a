"""A small MCP server: two tools, no word about tokens. It listens on loopback, where only the gateway reaches it.

    python server.py [PORT]

Clients talk to the gateway. Which token opens the server is decided in gateway.yaml; who the caller is arrives as the
header X-User-Id, which no client can set itself.
"""

import sys

from mcp.server.mcpserver import Context, MCPServer

ORDERS = {"7": "two lamps", "8": "a chair"}

server = MCPServer("orders")


@server.tool()
def find_order(number: str) -> str:
    """What was ordered under a number."""
    return ORDERS.get(number, "no such order")


@server.tool()
def who_am_i(context: Context) -> str:
    """Who the gateway says the caller is."""
    return context.headers.get("x-user-id", "nobody") if context.headers else "nobody"


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
    # Over HTTP the SDK accepts `Host: 127.0.0.1:*` and `localhost:*` alone; the gateway passes the client's Host on.
    # With a public name, say it: transport_security=TransportSecuritySettings(allowed_hosts=["mcp.example.com"]).
    server.run("streamable-http", host="127.0.0.1", port=port)
