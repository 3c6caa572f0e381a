#!/usr/bin/env python3
"""CPU time per request of Portcullis, nginx and HAProxy, side by side in one run.

Python 3.11's standard library only, Linux only. README.md beside this file says how to read the figures.
It measures time on the CPU, not latency; it is not a functional test of any of the three.
"""

import argparse
import os
import re
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.dont_write_bytecode = True

from servers import PATHS, Bench, lines_of  # noqa: E402
from system import PACKAGES, Failure, Processes, find_tool, install, version  # noqa: E402

CASES = tuple(PATHS)


def spread(values, digits=2):
    """`median (min..max)`."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}..{max(values):.{digits}f})"


def ratios(rounds, other):
    """Portcullis over another line, both of the same round."""
    return [found["portcullis"]["us"] / found[other]["us"] for found in rounds if "portcullis" in found]


def best_nginx(lines, rounds):
    """The nginx line with the lowest median, or None."""
    names = [line.name for line in lines if line.server == "nginx"]
    return min(names, key=lambda name: statistics.median(one[name]["us"] for one in rounds), default=None)


def print_table(case, lines, rounds):
    titles = {"proxy": "proxy, 1 KiB", "jwt": "proxy with an HS256 token, 1 KiB", "static": "static file, 1 KiB"}
    print(f"\n## {titles[case]}\n")
    print("| server | CPU us/request (min..max) | user | kernel | req/s | busy | waited | portcullis / this |")
    print("|---|---|---|---|---|---|---|---|")
    for line in lines:
        runs = [found[line.name] for found in rounds]

        def middle(key):
            return statistics.median(run[key] for run in runs)

        compared = ratios(rounds, line.name) if line.name != "portcullis" else []
        inexact = "" if all(run["exact"] for run in runs) else " (ticks)"
        print(
            f"| {line.name} | {spread([run['us'] for run in runs])}{inexact} | {middle('user'):.2f} | "
            f"{middle('kernel'):.2f} | {middle('rate'):,.0f} | {middle('busy'):.0%} | {middle('waiting'):.0%} | "
            f"{spread(compared) if compared else '-'} |"
        )
    present = {line.server for line in lines}
    for server, why in {
        "jwt": {"nginx": "Debian's nginx cannot check a JWT"},
        "static": {"haproxy": "HAProxy serves no files"},
    }.get(case, {}).items():
        if server not in present:
            print(f"| {server} | - ({why}) | - | - | - | - | - | - |")
    if any(run["waiting"] > 0.05 for found in rounds for run in found.values()):
        print("\nThe measured CPU was not free: a server waited for it more than 5 % of the time in some run.")


def print_summary(results):
    print("\n## portcullis / peer, CPU per request: median of the ratios of the same round (min..max)\n")
    print("| case | / nginx (its best line) | / haproxy |")
    print("|---|---|---|")
    for case, (lines, rounds) in results.items():
        cells = []
        for name in (best_nginx(lines, rounds), "haproxy" if "haproxy" in rounds[0] else None):
            compared = ratios(rounds, name) if name else []
            label = f", {name}" if compared and name not in ("nginx", "haproxy") else ""
            cells.append(f"{spread(compared)}{label}" if compared else "-")
        print(f"| {case} | {' | '.join(cells)} |")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    gateway = "target/release/portcullis"
    parser.add_argument("--gateway", metavar="PATH", default=gateway, help="or none (default %(default)s)")
    parser.add_argument("--only", default=",".join(CASES), help="cases, comma-separated (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="measured, a run (default %(default)s)")
    parser.add_argument("--warmup", type=int, default=1, help="seconds before that (default %(default)s)")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--cpu", type=int, default=0, help="the CPU of the measured server (default %(default)s)")
    parser.add_argument("--load-cpu", type=int, default=1, help="the CPU of wrk and the origin (default %(default)s)")
    parser.add_argument("--no-install", action="store_true", help="a peer that is missing is left out")
    parser.add_argument("--perf", metavar="CASE", choices=CASES, help="only profile Portcullis in this case")
    options = parser.parse_args()
    options.cases = [case for case in options.only.split(",") if case]
    if not options.cases or not set(options.cases) <= set(CASES):
        parser.error(f"--only takes {','.join(CASES)}")
    if min(options.rounds, options.seconds, options.warmup, options.connections) < 1:
        parser.error("--rounds, --seconds, --warmup and --connections are at least 1")
    if options.cpu == options.load_cpu or not {options.cpu, options.load_cpu} <= os.sched_getaffinity(0):
        parser.error("--cpu and --load-cpu must be two different CPUs that this process may use")
    return options


def find_tools(options):
    """The paths of what is there; installs what is missing, unless told not to."""
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
    return tools


def print_setting(options, tools):
    names = {"nginx": "-v", "haproxy": "-v", "wrk": "-v", "portcullis": "--version"}
    model = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    print("# CPU time per request\n")
    print(f"- {time.strftime('%Y-%m-%d %H:%M')}, {model[1] if model else '?'}, Linux {os.uname().release}")
    for name, flag in names.items():
        if name in tools:
            print(f"- {name}: {version(tools[name], flag)}")
    print(
        f"- {options.rounds} rounds of {options.seconds} s after {options.warmup} s of warm-up, "
        f"{options.connections} connections; one thread on CPU {options.cpu}, wrk and origin on CPU {options.load_cpu}"
    )
    print("- access log on: nginx combined, buffer=32k; HAProxy httplog, ring to TCP; Portcullis JSON, file")
    load = os.getloadavg()[0]
    warning = " (NOT idle: do not trust this run)" if load > 0.7 else ""
    print(f"- load average before the start: {load:.2f}{warning}", flush=True)


def run(options, folder, processes):
    tools = find_tools(options)
    bench = Bench(options, folder, processes, tools)
    os.sched_setaffinity(0, {options.load_cpu})
    print_setting(options, tools)
    bench.start_origin()
    if options.perf:
        bench.profile(options.perf)
        return
    results = {}
    for case in options.cases:
        lines = lines_of(case, tools)
        if not lines:
            continue
        rounds = []
        for number in range(options.rounds):
            found = {}
            for line in lines if number % 2 == 0 else lines[::-1]:
                found[line.name] = bench.measure(case, line)
                said = f"{case} {number + 1}/{options.rounds} {line.name}: {found[line.name]['us']:.2f} us"
                print(said, file=sys.stderr)
            rounds.append(found)
        results[case] = (lines, rounds)
        print_table(case, lines, rounds)
        sys.stdout.flush()
    if "portcullis" in tools:
        print_summary(results)


def main():
    options = parse_arguments()
    with tempfile.TemporaryDirectory(prefix="portcullis-bench-") as name:
        processes = Processes(Path(name))
        try:
            run(options, Path(name), processes)
        except Failure as failure:
            print(f"run.py: {failure}", file=sys.stderr)
            return 1
        finally:
            processes.stop_all()
    return 0


if __name__ == "__main__":
    sys.exit(main())
