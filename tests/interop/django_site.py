"""examples/django, copied and running: gunicorn, the gateway before it, and a browser for Django's admin pages.

What the tests of its two setups share; what is expected of them is in django.py and django_issuing.py.
"""

from __future__ import annotations

import http.cookies
import os
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlencode

from harness import Child, Target, expect, free_port, wait_until

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "django"
BUILT = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))

USER, PASSWORD = "alice", "correct horse battery"
# What the example's commands make, which stands in .gitignore there.
MADE = [
    "secret*.key", "db.sqlite3*", "collected", "spool", "gunicorn.sock", "gunicorn.pid", ".venv", "__pycache__",
    "users.yaml", "keys", "data",
]


class Site:
    """The example, copied and running: gunicorn, and before it the gateway unless `direct`."""

    def __init__(self, folder: Path, python: Path, gateway: Path | None, config: str = "gateway.yaml"):
        self.folder = folder / "site"
        self.logs = folder / "logs"
        self.python = python
        self.gateway_binary = gateway
        self.app: Child | None = None
        self.gateway: Child | None = None
        self.app_access = self.logs / "app-access.log"
        self.logs.mkdir()
        shutil.copytree(EXAMPLE, self.folder, ignore=shutil.ignore_patterns(*MADE))
        self.config = self.folder / config
        if gateway:
            port = free_port()
            self.edit("address: 127.0.0.1:8080", f"address: 127.0.0.1:{port}")
            self.target = Target(("127.0.0.1", port), f"127.0.0.1:{port}")
        else:
            self.target = Target(str(self.folder / "gunicorn.sock"), "127.0.0.1")
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("DJANGO_")},
            "DJANGO_SUPERUSER_PASSWORD": PASSWORD,
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def edit(self, old: str, new: str) -> None:
        """Replace the one place in gateway.yaml that says `old`, as an editor does: by a rename."""
        text = self.config.read_text()
        expect(text.count(old) == 1, f"the example's gateway.yaml says {old!r} {text.count(old)} times, not once")
        fresh = self.config.with_suffix(".tmp")
        fresh.write_text(text.replace(old, new))
        fresh.replace(self.config)

    def python_run(self, *command: str) -> str:
        """What a command says; fails the check where it fails."""
        done = subprocess.run(
            [self.python, *command], cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=120
        )
        expect(done.returncode == 0, f"{' '.join(command)}: {done.stdout[-500:]}{done.stderr[-1500:]}")
        return done.stdout + done.stderr

    def prepare(self) -> None:
        """README.md's commands before the servers."""
        self.python_run("rotate_secret.py")
        self.python_run("manage.py", "migrate", "--verbosity=0")
        self.python_run("manage.py", "createsuperuser", "--noinput", "--username", USER, "--email", "a@example.com")
        self.python_run("manage.py", "collectstatic", "--noinput", "--verbosity=0")

    def start_app(self) -> None:
        command = [str(self.python), "-m", "gunicorn", "--access-logfile", str(self.app_access)]
        self.app = Child("gunicorn", command, self.folder, self.logs, self.environment)
        direct = Target(str(self.folder / "gunicorn.sock"), "127.0.0.1")
        wait_until(lambda: self.app.running() and direct.get("/").status == 200, 30, "gunicorn answers")

    def start_gateway(self) -> None:
        command = [str(self.gateway_binary), "run", "-c", str(self.config)]
        self.gateway = Child("gateway", command, self.folder, self.logs, self.environment)

        def ready() -> bool:
            expect(self.gateway.running(), f"it ended with status {self.gateway.process.returncode}")
            return self.target.get("/").status == 200

        wait_until(ready, 15, "the gateway answers")

    def stop(self) -> None:
        for child in (self.gateway, self.app):
            if child:
                child.stop(5)

    def secret(self, name: str = "secret.key") -> str:
        return (self.folder / name).read_text()

    def gateway_says(self, since: int = 0) -> str:
        """The gateway's log, from a place in it that `len(gateway_says())` told before."""
        return self.gateway.err.read_text(errors="replace")[since:]


class Browser:
    """Keeps cookies and sends Origin and Referer, as far as Django's admin needs it."""

    def __init__(self, target: Target):
        self.target = target
        self.cookies: dict[str, str] = {}

    def send(self, method: str, path: str, form: dict | None = None, origin: str | None = None):
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}
        if form is not None:
            origin = origin or self.target.origin
            headers |= {"Origin": origin, "Referer": f"{origin}{path}",
                        "Content-Type": "application/x-www-form-urlencoded"}
        body = urlencode(form).encode() if form is not None else None
        answer = self.target.request(method, path, body=body, headers=headers)
        for line in answer.headers.get_all("Set-Cookie", []):
            for name, morsel in http.cookies.SimpleCookie(line).items():
                self.cookies[name] = morsel.value
        return answer

    def get(self, path: str):
        return self.send("GET", path)

    def admin_login(self, origin: str | None = None):
        page = self.get("/admin/login/")
        field = re.search(rb'name="csrfmiddlewaretoken" value="([^"]+)"', page.body)
        expect(page.status == 200 and field, f"no login form: {page.brief()}")
        form = {"csrfmiddlewaretoken": field[1].decode(), "username": USER, "password": PASSWORD, "next": "/admin/"}
        return self.send("POST", "/admin/login/?next=/admin/", form, origin)
