"""What is measured of a server: CPU time per request, memory per idle connection, latency at a fixed rate."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import configs.portcullis
from load import HERE
from system import Failure, children_of, cpu_between, memory, snapshot

SCALES = {"us": 1e6, "ms": 1e3}
RELOAD_EVERY = 0.1
MANY = 3  # seconds until each of thousands of connections or tokens was used
SETTLE = 15  # seconds for a server to release what an idle connection does not need


def cpu(bench, scenario, _process, pid):
    """(CPU time per request, GiB, connection or message; the expected number of log lines)."""
    tokens, options = bench.site.tokens, bench.options
    if max(scenario.routes, scenario.names) > 1000:
        rest(pid)
    least = MANY if scenario.tokens > 1 or scenario.connections > 1000 else 1
    warm = bench.loads(scenario, tokens, max(options.warmup, least), warm=True)
    before = snapshot(pid)
    work = bench.loads(scenario, tokens, max(options.seconds, least))
    seconds, user, waiting, exact = cpu_between(before, snapshot(pid))
    units = work.requests * scenario.size / (1 << 30) if scenario.unit.endswith("/GiB") else work.requests
    figure = seconds / units * SCALES[scenario.unit[:2]]
    return {
        "figure": figure, "user": figure * user, "kernel": figure * (1 - user), "rate": units / work.seconds,
        "busy": seconds / work.seconds, "waiting": waiting / work.seconds, "exact": exact,
    }, warm.answered + work.answered


def rest(pid):
    """Waits until a server has finished its start: Portcullis compiles its configuration once more, 2 s later, and with
    very many routes that takes seconds."""
    time.sleep(3)
    for _ in range(15):
        before = snapshot(pid)
        time.sleep(1)
        if cpu_between(before, snapshot(pid))[0] < 0.05:
            return
    raise Failure("the server does not come to rest")


def idle(bench, scenario, _process, pid):
    """The memory of connections that have made one request and are now idle."""
    before = memory(pid)
    command = [sys.executable, "-B", HERE / "clients.py", "idle", bench.loads.order(scenario, 0)]
    client = bench.processes.start("clients.py", command, bench.options.load_cpu, subprocess.PIPE, subprocess.PIPE)
    try:
        if not client.stdout.readline():
            raise Failure(f"{scenario.connections} connections could not be opened and used")
        time.sleep(SETTLE)
        after = memory(pid)
        said = json.loads(client.communicate(b"", timeout=60)[0] or b"{}")
    finally:
        if client.poll() is None:
            client.kill()
        client.wait()
        bench.processes.running.remove(client)
    if said.get("ended") != 0:
        raise Failure(f"the server closed {said.get('ended')} of {scenario.connections} idle connections")
    return {
        "figure": (after - before) / 1024 / scenario.connections, "before": before / 2**20, "after": after / 2**20,
    }, scenario.connections


def paced(bench, scenario, process, pid):
    """Latency at a fixed rate of requests, optionally during reloads."""
    seconds = max(bench.options.seconds, scenario.reloads_in)
    order = {
        "port": bench.site.port, "path": scenario.path, "rate": scenario.rate, "connections": scenario.connections,
    }

    def load(seconds):
        command = [sys.executable, "-B", HERE / "paced.py", json.dumps({**order, "seconds": seconds})]
        return json.loads(bench.loads.said_by("paced.py", command))

    warm = load(bench.options.warmup)
    stop = threading.Event()
    reloads = threading.Thread(target=reload_again, args=(bench, scenario, process.pid, stop))
    before = snapshot(pid)
    if scenario.reloads:
        reloads.start()
    try:
        found = load(seconds)
    finally:
        stop.set()
        if scenario.reloads:
            reloads.join()
    on_cpu, _, waiting, exact = cpu_between(before, snapshot(pid))
    if warm["failed"] or found["failed"]:
        raise Failure(f"{warm['failed'] + found['failed']} requests failed")
    done = process.said_path.read_text(errors="replace").count("configuration reloaded")
    if done < scenario.reloads:
        raise Failure(f"{done} reloads instead of {scenario.reloads}")
    which = scenario.unit.split()[0]
    return {
        "figure": found[which], **{key: found[key] for key in ("p50", "p99", "p99.9", "most", "late")},
        "us": on_cpu / found["requests"] * 1e6, "waiting": waiting / seconds, "exact": exact,
    }, warm["requests"] + found["requests"]


def reload_again(bench, scenario, pid, stop):
    """Repeatedly gives Portcullis a different configuration."""
    begun = time.monotonic()
    for number in range(scenario.reloads):
        path = bench.site.write("gateway.new", configs.portcullis.text(bench.site, scenario, marker=str(number + 1)))
        os.replace(path, bench.folder / "gateway.yaml")
        os.kill(pid, signal.SIGHUP)
        if stop.wait(max(0, begun + (number + 1) * RELOAD_EVERY - time.monotonic())):
            return


def names(_bench, _scenario, process, _pid):
    """The memory of a server with many certificates, all its processes together, and how long it took to listen."""
    time.sleep(SETTLE)
    held = sum(memory(each) for each in (process.pid, *children_of(process.pid)))
    return {"figure": held / 2**20, "start": process.listens_after}, 0


MEASURES = {"idle": idle, "paced": paced, "names": names}
