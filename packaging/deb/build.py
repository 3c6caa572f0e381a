#!/usr/bin/env python3
"""Makes the Debian package of a release build: packaging/deb/build.py [--gateway FILE] [--out FOLDER]
[--version VERSION].

Needs Debian's dpkg-dev and binutils. Python 3.11's standard library only. It builds no program: `cargo build --release
--locked` or benches/pgo/build.py does.
"""

from __future__ import annotations

import argparse
import gzip
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()

CONTROL = """Package: portcullis
Version: {version}
Section: httpd
Priority: optional
Architecture: {architecture}
Depends: {depends}
Recommends: ca-certificates
Provides: httpd
Maintainer: Portcullis maintainers <maintainers@portcullis.invalid>
Installed-Size: {kilobytes}
Description: HTTP gateway that checks tokens
 Portcullis stands in front of an app, as nginx does: it serves static files,
 checks the bearer token (JWT) of each request to the API, and forwards the
 authorised ones. One YAML file configures it, which is reloaded when it
 changes, without dropping a request.
 .
 It orders and renews TLS certificates by ACME, and can issue tokens itself
 where there is no identity provider.
"""

COPYRIGHT = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: portcullis

Files: *
Copyright: 2026 The Portcullis maintainers
License: Apache-2.0

License: Apache-2.0
 On Debian systems, the full text of the Apache License, version 2.0, is in
 /usr/share/common-licenses/Apache-2.0.
"""

# Lintian finds libyaml by its messages. It is its translation into Rust, which serde_yaml is made of: Debian has no shared one.
OVERRIDES = "portcullis: embedded-library *libyaml*\n"

CHANGELOG = """portcullis ({version}) unstable; urgency=medium

  * Packaged from the sources of this version; CHANGELOG.md says what changed.

 -- Portcullis maintainers <maintainers@portcullis.invalid>  {date}
"""


def run(*command: object, **more: object) -> str:
    """The output of a command that must succeed."""
    return subprocess.run([str(it) for it in command], check=True, stdout=subprocess.PIPE, text=True, **more).stdout


def put(path: Path, content: str | bytes, mode: int = 0o644) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(mode)
    return path


def packed(path: Path, content: str | bytes) -> None:
    """The same bytes for the same content: no name, no time."""
    content = content.encode() if isinstance(content, str) else content
    put(path, gzip.compress(content, 9, mtime=0))


def date() -> str:
    """SOURCE_DATE_EPOCH, else the time of the last commit, else now."""
    seconds = os.environ.get("SOURCE_DATE_EPOCH")
    if seconds is None:
        asked = subprocess.run(["git", "-C", ROOT, "log", "-1", "--format=%ct"], capture_output=True, text=True)
        seconds = asked.stdout.strip() or str(int(time.time()))
    os.environ["SOURCE_DATE_EPOCH"] = seconds
    return time.strftime("%a, %d %b %Y %H:%M:%S +0000", time.gmtime(int(seconds)))


def depends(program: Path) -> str:
    """The libraries of the program, as dpkg-shlibdeps finds them, and what the scripts call."""
    with tempfile.TemporaryDirectory() as folder:
        put(Path(folder) / "debian" / "control", "Source: portcullis\n\nPackage: portcullis\nArchitecture: any\n")
        said = run("dpkg-shlibdeps", "-O", program, cwd=folder, stderr=subprocess.DEVNULL)
    libraries = re.search(r"shlibs:Depends=(.*)", said)
    if libraries is None:
        sys.exit("dpkg-shlibdeps found no library, not even libc")
    return f"{libraries[1]}, adduser, init-system-helpers (>= 1.54~)"


def build(gateway: Path, out: Path, version: str | None) -> Path:
    version = version or re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.M)[1]
    when = date()
    architecture = run("dpkg", "--print-architecture").strip()
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        program = tree / "usr/bin/portcullis"
        program.parent.mkdir(parents=True)
        run("strip", "--strip-unneeded", "-o", program, gateway)
        program.chmod(0o755)
        put(tree / "etc/portcullis/gateway.yaml", (HERE / "gateway.yaml").read_bytes())
        put(tree / "lib/systemd/system/portcullis.service", (HERE.parent / "portcullis.service").read_bytes())
        put(tree / "usr/share/portcullis/welcome/index.html", (HERE.parent / "welcome/index.html").read_bytes())
        put(tree / "usr/share/portcullis/gateway.schema.json", run(gateway, "schema"))
        put(tree / "usr/share/doc/portcullis/copyright", COPYRIGHT)
        packed(tree / "usr/share/doc/portcullis/changelog.gz", CHANGELOG.format(version=version, date=when))
        put(tree / "usr/share/lintian/overrides/portcullis", OVERRIDES)
        for shell, place in {
            "bash": "bash-completion/completions/portcullis",
            "zsh": "zsh/vendor-completions/_portcullis",
            "fish": "fish/vendor_completions.d/portcullis.fish",
        }.items():
            put(tree / "usr/share" / place, run(gateway, "completions", shell))
        pages = Path(folder) / "pages"
        run(gateway, "man", pages)
        for page in sorted(pages.iterdir()):
            packed(tree / "usr/share/man/man1" / f"{page.name}.gz", page.read_bytes())
        bytes_in = sum(it.stat().st_size for it in tree.rglob("*") if it.is_file())
        control = CONTROL.format(
            version=version, architecture=architecture, depends=depends(program), kilobytes=bytes_in // 1024 + 1,
        )
        put(tree / "DEBIAN/control", control)
        put(tree / "DEBIAN/conffiles", "/etc/portcullis/gateway.yaml\n")
        for script in ("postinst", "prerm", "postrm"):
            put(tree / "DEBIAN" / script, (HERE / script).read_bytes(), 0o755)
        for directory in [tree, *(it for it in tree.rglob("*") if it.is_dir())]:
            directory.chmod(0o755)
        sums = [
            f"{run('md5sum', it).split()[0]}  {it.relative_to(tree)}\n"
            for it in sorted(tree.rglob("*"))
            if it.is_file() and "DEBIAN" not in it.parts
        ]
        put(tree / "DEBIAN/md5sums", "".join(sums))
        out.mkdir(parents=True, exist_ok=True)
        package = out / f"portcullis_{version}_{architecture}.deb"
        run("dpkg-deb", "--root-owner-group", "-Zxz", "--build", tree, package)
    return package


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gateway", type=Path, default=TARGET / "release" / "portcullis", help="default %(default)s")
    parser.add_argument("--out", type=Path, default=TARGET / "debian", help="default %(default)s")
    parser.add_argument("--version", help="default: that of Cargo.toml")
    options = parser.parse_args()
    for tool in ("dpkg-deb", "dpkg-shlibdeps", "strip"):
        if not shutil.which(tool):
            sys.exit(f"{tool} is needed: apt-get install dpkg-dev binutils")
    if not os.access(options.gateway, os.X_OK):
        sys.exit(f"no program at {options.gateway}: `cargo build --release --locked` first, or --gateway FILE")
    print(build(options.gateway.resolve(), options.out, options.version))


if __name__ == "__main__":
    main()
