"""The configuration of every server, one module each.

Each has `command(site, scenario, **options)`, which writes the configuration and returns the command line. All servers
listen on `site.port` (with TLS 1.3 if the scenario uses it, and then perhaps only for clients with a certificate),
proxy /open/ and /jwt/ to `site.backends`, require a valid token for /jwt/, serve `site.www`, and write one line per
request to `site.log`.
"""

from dataclasses import dataclass
from pathlib import Path

from tokens import Tokens


@dataclass
class Site:
    """The environment of a configuration: the same for every server of a run."""

    folder: Path
    tools: dict
    port: int
    backends: list
    log: Path
    log_port: int
    certificate: Path
    key: Path
    tokens: Tokens | None = None

    @property
    def client_ca(self):
        """The CA of the clients, where a scenario has them show certificates."""
        return self.folder / "client-ca.pem"

    @property
    def client_certificate(self):
        return self.folder / "client.pem"

    @property
    def client_key(self):
        return self.folder / "client.key"

    @property
    def www(self):
        """The directory that contains static/."""
        return self.folder / "www"

    def pairs(self, names):
        """The certificates with their keys, where a scenario has one for each of so many names."""
        stems = [self.folder / "names" / f"n{number}" for number in range(names)]
        return [(f"{stem}.pem", f"{stem}.key") for stem in stems]

    def write(self, name, text):
        path = self.folder / name
        path.write_text(text)
        return path
