#!/usr/bin/env python3
"""Make or rotate the secret that signs tokens and sessions. Three files, and all who verify accept all three:

    secret.key            signs
    secret.next.key       signs after the next rotation; accepted already, so that nobody meets it unprepared
    secret.previous.key   signed before the last rotation; still accepted

    rotate_secret.py         rotate: current becomes previous, next becomes current, a fresh one becomes next.
                             The first call makes the three files.
    rotate_secret.py --end   forget the previous secret: what it signed is refused from now on

The gateway sees the change by itself; gunicorn needs a `kill -HUP`. Each file is replaced whole, and at every
moment between two replacements the secrets in use are among the three.
"""

import os
import secrets
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
CURRENT = HERE / "secret.key"
NEXT = HERE / "secret.next.key"
PREVIOUS = HERE / "secret.previous.key"


def replace(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    fresh = path.with_suffix(".writing.key")
    fresh.unlink(missing_ok=True)
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def new_secret() -> str:
    """48 random bytes as text; HS256 asks for 32."""
    return secrets.token_urlsafe(48)


def main(arguments: list[str]) -> int:
    if arguments == ["--end"]:
        replace(PREVIOUS, new_secret())
    elif arguments:
        print(__doc__, file=sys.stderr)
        return 2
    elif not CURRENT.exists():
        for path in (PREVIOUS, NEXT, CURRENT):
            replace(path, new_secret())
    else:
        replace(PREVIOUS, CURRENT.read_text())
        replace(CURRENT, NEXT.read_text())
        replace(NEXT, new_secret())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
