"""kem.py GROUP JSON: full handshakes of TLS 1.3 with one key exchange, by OpenSSL 3.5 or later.

As `handshake` of clients.py, whose argument it takes: a connection and a request, again and again. A separate program,
since it needs pyOpenSSL from a virtual environment: Debian 12's OpenSSL does not know ML-KEM. OpenSSL reads in its
configuration which group to offer (load.py writes it); here it is looked at what was agreed on.
"""

import json
import os
import socket
import sys
import time
from dataclasses import replace

from OpenSSL import SSL

from clients import Order, answer, in_threads, request

class Stream:
    """A TLS connection, never a resumed one, with the calls of a socket that clients.py makes."""

    def __init__(self, order, context, group):
        self.socket = socket.create_connection(("127.0.0.1", order.port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # pyOpenSSL waits by itself only on sockets that block.
        self.socket.settimeout(None)
        self.tls = SSL.Connection(context, self.socket)
        self.tls.set_connect_state()
        self.tls.do_handshake()
        agreed = self.tls.get_group_name()
        if agreed.lower() != group.lower() or self.tls.get_protocol_version_name() != "TLSv1.3":
            raise ConnectionError(f"{agreed} instead of {group}")

    def recv_into(self, buffer):
        try:
            return self.tls.recv_into(buffer)
        except (SSL.ZeroReturnError, SSL.SysCallError):
            return 0


def handshakes(order, group):
    def work(_, deadline):
        buffer, count = memoryview(bytearray(1 << 16)), 0
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        while time.monotonic() < deadline:
            stream = Stream(order, context, group)
            stream.tls.sendall(request(order, close=True))
            length, _ = answer(stream, buffer)
            stream.socket.close()
            if length != order.size:
                raise ConnectionError("a wrong body")
            count += 1
        return count

    return in_threads(order, work)


def main():
    group, order = sys.argv[1], Order(**json.loads(sys.argv[2]))
    # The threads make their own TLS.
    print(json.dumps(handshakes(replace(order, tls=False), group)), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
