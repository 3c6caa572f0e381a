#!/usr/bin/env python3
"""What a request costs in Portcullis and in other gateways, measured side by side in one run.
Python 3.11's standard library only, Linux only. README.md in this directory explains the figures.
It is not a functional test of any of the servers.
"""

import argparse
import os
import re
import sys
import tempfile
import time
from fnmatch import fnmatch
from pathlib import Path

sys.dont_write_bytecode = True

from bench import Bench  # noqa: E402
from report import Results, print_summary, print_table  # noqa: E402
from scenarios import ALL, NAMES  # noqa: E402
from system import Failure, Processes  # noqa: E402
from tools import find_tools, print_versions  # noqa: E402

TARGET = Path(os.environ.get("CARGO_TARGET_DIR", "target"))


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    gateway = TARGET / "release" / "portcullis"
    parser.add_argument("--gateway", metavar="PATH", default=str(gateway), help="or none (default %(default)s)")
    parser.add_argument("--only", default="*", help="scenarios or patterns, comma-separated (default all; see --list)")
    parser.add_argument("--peers", default="*", help="servers or patterns, comma-separated (default all)")
    parser.add_argument("--list", action="store_true", help="only say which scenarios there are")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3, help="measured, a run (default %(default)s)")
    parser.add_argument("--warmup", type=int, default=1, help="seconds before that (default %(default)s)")
    parser.add_argument("--connections", type=int, default=64, help="where the scenario does not say (default 64)")
    parser.add_argument("--cpu", type=int, default=0, help="the CPU of the measured server (default %(default)s)")
    parser.add_argument("--load-cpu", type=int, default=1, help="the CPU of client and origin (default %(default)s)")
    parser.add_argument("--tools", type=Path, default=TARGET / "tools" / "peers", metavar="FOLDER",
                        help="where what is not Debian's is installed (default %(default)s)")
    parser.add_argument("--no-install", action="store_true", help="what is missing is left out")
    parser.add_argument("--perf", metavar="SCENARIO", choices=NAMES, help="only profile Portcullis in this scenario")
    options = parser.parse_args()
    wanted = options.perf or options.only
    options.scenarios = [one for one in ALL if any(fnmatch(one.name, each) for each in wanted.split(","))]
    unknown = [each for each in wanted.split(",") if not any(fnmatch(name, each) for name in NAMES)]
    if unknown or not options.scenarios:
        parser.error(f"--only takes some of {', '.join(NAMES)}, not {', '.join(unknown)}")
    if min(options.rounds, options.seconds, options.warmup, options.connections) < 1:
        parser.error("--rounds, --seconds, --warmup and --connections are at least 1")
    if options.cpu == options.load_cpu or not {options.cpu, options.load_cpu} <= os.sched_getaffinity(0):
        parser.error("--cpu and --load-cpu must be two different CPUs that this process may use")
    options.tools = options.tools.absolute()
    options.takes = lambda server: any(fnmatch(server, each) for each in options.peers.split(","))
    return options


def print_setting(options, tools):
    model = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    print("# Cost per request\n")
    print(f"- {time.strftime('%Y-%m-%d %H:%M')}, {model[1] if model else '?'}, Linux {os.uname().release}")
    print_versions(tools)
    print(
        f"- {options.rounds} rounds of {options.seconds} s after {options.warmup} s of warm-up, {options.connections} "
        f"connections; one worker on CPU {options.cpu}, client and origin on CPU {options.load_cpu}"
    )
    load = os.getloadavg()[0]
    warning = " (NOT idle: do not trust this run)" if load > 0.7 else ""
    print(f"- load average before the start: {load:.2f}{warning}", flush=True)


def measure(bench, scenario, options, tools):
    """Measures all lines in every round, in reverse order every other round. A line that fails once is dropped."""
    results = Results(scenario)
    for line in scenario.lines:
        if line.server != "portcullis" and not options.takes(line.server):
            results.refused[line.name] = "not asked for"
        elif line.server not in tools:
            results.refused[line.name] = "not installed"
    for number in range(options.rounds):
        found = {}
        results.rounds.append(found)
        for line in scenario.lines[::-1] if number % 2 else scenario.lines:
            if line.name in results.refused:
                continue
            said = f"{scenario.name} {number + 1}/{options.rounds} {line.name}"
            try:
                found[line.name] = bench.measure(scenario, line)
                print(f"{said}: {found[line.name]['figure']:.2f} {scenario.unit}", file=sys.stderr)
            except Failure as failure:
                results.refused[line.name] = f"refused: {failure}"
                print(f"{said} refused: {failure}", file=sys.stderr)
    return results


def run(options, folder, processes):
    tools = find_tools(options, options.scenarios)
    os.sched_setaffinity(0, {options.load_cpu})
    print_setting(options, tools)
    bench = Bench(options, folder, processes, tools, options.scenarios)
    bench.start_origins(options.scenarios)
    if options.perf:
        bench.profile(options.scenarios[0])
        return 0
    all_results = []
    for scenario in options.scenarios:
        results = measure(bench, scenario, options, tools)
        if results.lines() or results.failed():
            print_table(results)
            sys.stdout.flush()
        all_results.append(results)
    if "portcullis" in tools:
        print_summary(all_results)
    return int(any(results.failed() for results in all_results))


def main():
    options = parse_arguments()
    if options.list:
        print("\n".join(f"{scenario.name:16} {scenario.title}" for scenario in ALL))
        return 0
    with tempfile.TemporaryDirectory(prefix="portcullis-bench-") as name:
        processes = Processes(Path(name))
        try:
            return run(options, Path(name), processes)
        except Failure as failure:
            print(f"run.py: {failure}", file=sys.stderr)
            return 1
        finally:
            processes.stop_all()


if __name__ == "__main__":
    sys.exit(main())
