#!/usr/bin/env python3
"""The Debian package on a clean Debian root: lintian, installed, started as its unit starts it, upgraded, removed, purged.

Needs root, and Debian's lintian, mmdebstrap, dpkg-dev, systemd and util-linux. The root comes from the machine's own
sources of packages. Process 1 is no systemd there: the commands of the unit are run with the user and the capability
that it gives them, on a network of their own.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

sys.dont_write_bytecode = True

from harness import Checks, TimeLimit, expect, limit_run  # noqa: E402

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILT = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
OVERALL_SECONDS = 600
UNIT = "lib/systemd/system/portcullis.service"
# What a package may leave: what dpkg, the users' database and ldconfig keep for themselves.
KEPT_BY_OTHERS = re.compile(r"^(var/(lib/dpkg|log|cache|backups)|etc/(passwd|group|g?shadow|subuid|subgid)-?$|dev/|proc/|run/)")

# The unit's commands as its user, with its one capability, where port 80 is free.
SERVED = """
set -eu
ip link set lo up
as_unit="setpriv --reuid=portcullis --regid=portcullis --clear-groups --no-new-privs --inh-caps=-all,+net_bind_service
    --ambient-caps=-all,+net_bind_service --bounding-set=-all,+net_bind_service"
in_root() { chroot "$ROOT" sh -c "cd /etc/portcullis && exec $as_unit $1" | tr -d '\\0'; }
as_unit=$(echo $as_unit)
in_root "/usr/bin/portcullis check"
chroot "$ROOT" sh -c "cd /etc/portcullis && exec $as_unit /usr/bin/portcullis run" >"$ROOT/../run.log" 2>&1 &
gateway=$!
trap 'kill $gateway; wait $gateway || true' EXIT
for _ in $(seq 100); do
    if curl -s -o "$ROOT/../page" -w '%{http_code} %{content_type}\\n' http://127.0.0.1/; then break; fi
    sleep 0.1
done
grep -E '^(Uid|CapEff|NoNewPrivs)' "/proc/$gateway/status"
"""


def run(*command: object, **more: object) -> str:
    """What a command prints that must succeed."""
    done = subprocess.run([str(it) for it in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **more)
    expect(done.returncode == 0, f"{' '.join(map(str, command))}: {done.returncode}\n{done.stdout}")
    return done.stdout


class Package:
    """One root, and two versions of the package."""

    def __init__(self, folder: Path, gateway: Path) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.gateway = gateway
        self.package = self.newer = Path()
        self.before: set[str] = set()

    def build(self, version: str | None = None) -> Path:
        out = self.folder / (version or "first")
        more = ["--version", version] if version else []
        said = run(sys.executable, ROOT / "packaging/deb/build.py", "--gateway", self.gateway, "--out", out, *more)
        return Path(said.splitlines()[-1])

    def built(self) -> str:
        self.package = self.build()
        again = self.folder / "again"
        run(sys.executable, ROOT / "packaging/deb/build.py", "--gateway", self.gateway, "--out", again)
        same = (again / self.package.name).read_bytes() == self.package.read_bytes()
        expect(same, "two builds of one program differ")
        said = run("lintian", "--fail-on", "error,warning", "--allow-root", self.package)
        expect(not re.search("^[EW]:", said, re.M), said)
        return f"{self.package.name}, {self.package.stat().st_size >> 10} KiB"

    def scored(self) -> str:
        unit = ROOT / "packaging/portcullis.service"
        said = run("systemd-analyze", "security", "--offline=true", unit)
        score = float(re.search(r"Overall exposure level.*?: ([0-9.]+)", said)[1])
        expect(score <= 2.0, f"the unit's exposure is {score}")
        return f"exposure {score}"

    def installed(self) -> None:
        run("mmdebstrap", "--quiet", "--variant=apt", "--include=adduser,init-system-helpers", "bookworm", self.root)
        self.before = self.files()
        self.put(self.package)
        expect((self.root / "etc/systemd/system/multi-user.target.wants/portcullis.service").is_symlink(), "not enabled")
        user = run("chroot", self.root, "id", "portcullis")
        expect(re.fullmatch(r"uid=(\d+)\(portcullis\) gid=(\d+)\(portcullis\) groups=\2\(portcullis\)\s*", user), user)
        state = self.root / "var/lib/portcullis"
        expect(state.stat().st_mode & 0o777 == 0o700 and state.stat().st_uid != 0, "the state belongs to others, too")
        for shown in ("usr/share/man/man1/portcullis-run.1.gz", "usr/share/bash-completion/completions/portcullis"):
            expect((self.root / shown).is_file(), f"no {shown}")
        expect("ExecStart=/usr/bin/portcullis run" in (self.root / UNIT).read_text(), "the unit starts something else")

    def files(self) -> set[str]:
        every = (str(it.relative_to(self.root)) for it in self.root.rglob("*"))
        return {it for it in every if not KEPT_BY_OTHERS.search(it)}

    def put(self, package: Path) -> str:
        shutil.copy(package, self.root / "tmp/it.deb")
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        said = run("chroot", self.root, "dpkg", "--force-confdef", "--force-confold", "-i", "/tmp/it.deb", env=environment)
        (self.root / "tmp/it.deb").unlink()
        return said

    def served(self) -> str:
        said = run("unshare", "--net", "sh", "-c", SERVED, env={**os.environ, "ROOT": str(self.root)})
        expect("200 text/html" in said, said + (self.folder / "run.log").read_text())
        expect("It works" in (self.folder / "page").read_text(), "the page is another")
        expect(re.search(r"CapEff:\s+0{13}400$", said, re.M), f"more than the one capability: {said}")
        expect(re.search(r"NoNewPrivs:\s+1", said) and not re.search(r"Uid:.*\b0\b", said), said)
        return said.strip().splitlines()[0]

    def upgraded(self) -> None:
        config = self.root / "etc/portcullis/gateway.yaml"
        config.write_text(config.read_text() + "# mine\n")
        (self.root / "var/lib/portcullis/kept").write_text("state")
        self.newer = self.build("99.1")
        self.put(self.newer)
        expect("Version: 99.1" in run("chroot", self.root, "dpkg", "-s", "portcullis"), "it is the old one")
        expect(config.read_text().endswith("# mine\n"), "the configuration is another")
        self.served()

    def gone(self) -> None:
        run("chroot", self.root, "dpkg", "-r", "portcullis")
        expect((self.root / "var/lib/portcullis/kept").is_file(), "removal took the state")
        expect((self.root / "etc/portcullis/gateway.yaml").is_file(), "removal took the configuration")
        expect(not (self.root / "usr/bin/portcullis").exists(), "the program is there still")
        run("chroot", self.root, "dpkg", "-P", "portcullis")
        left = self.files() - self.before
        expect(not left, f"purge leaves {sorted(left)}")
        expect("portcullis" not in (self.root / "etc/passwd").read_text(), "purge leaves the user")


def main() -> int:
    parser = argparse.ArgumentParser(description="The Debian package on a clean root.")
    parser.add_argument("--gateway", type=Path, default=BUILT / "release" / "portcullis", help="the program to package")
    parser.add_argument("--only", help="run the checks whose name has these words")
    parser.add_argument("--keep", action="store_true", help="leave the temporary folder, and say where")
    options = parser.parse_args()
    gateway = options.gateway.resolve()
    if not gateway.is_file():
        print(f"FAIL no gateway at {options.gateway}: build it, or name it with --gateway")
        return 1
    tools = ("lintian", "mmdebstrap", "dpkg-shlibdeps", "systemd-analyze", "setpriv", "unshare", "ip", "curl")
    absent = [name for name in tools if not shutil.which(name)]
    if absent or os.geteuid() != 0:
        print(f"FAIL not installed: {', '.join(absent)}" if absent else "FAIL this needs root, for a Debian root of its own")
        return 1
    limit_run(OVERALL_SECONDS)
    checks = Checks(options.only)
    folder = Path(tempfile.mkdtemp(prefix="portcullis-"))
    story = Package(folder, gateway)
    try:
        checks.run("lintian has nothing to say, and the same program makes the same package", story.built, always=True)
        checks.run("the unit's exposure", story.scored)
        checks.run("installed on a clean root: user, state, unit, pages", story.installed, always=True)
        checks.run("started as the unit starts it: the welcome page, on port 80, without root", story.served)
        checks.run("upgraded: configuration and state stay", story.upgraded)
        checks.run("removed: they stay; purged: nothing does", story.gone)
    except TimeLimit as limit:
        checks.fail("the whole run", str(limit))
    finally:
        signal.alarm(0)
        if options.keep:
            print(f"files: {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    print(f"{checks.passed} passed, {checks.failed} failed")
    return 1 if checks.failed or not checks.passed else 0


if __name__ == "__main__":
    sys.exit(main())
