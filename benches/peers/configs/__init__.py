"""The configuration of every server, one module each.

Each has `command(site, scenario, **options)`, which writes the configuration and gives the command line. All of them listen
on `site.port` (with TLS 1.3 where the scenario has it), proxy /open/ and /jwt/ to `site.backends` and let /jwt/ in only
with a good token, serve `site.www`, and write one line a request to `site.log`.
"""

from dataclasses import dataclass
from pathlib import Path

from tokens import Tokens


@dataclass
class Site:
    """What a configuration has to know: the same for every server of a run."""

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
    def www(self):
        """The folder that holds static/."""
        return self.folder / "www"

    def write(self, name, text):
        path = self.folder / name
        path.write_text(text)
        return path
