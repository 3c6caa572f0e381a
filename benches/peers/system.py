"""What the benchmark needs from the machine: programs, processes ended by id, ports, CPU time.

It knows nothing about the measured servers and scenarios.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
PACKAGES = {"nginx": "nginx", "haproxy": "haproxy", "wrk": "wrk", "h2load": "nghttp2-client", "openssl": "openssl"}
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Failure(Exception):
    """A reason to stop, reported to the user without a traceback."""


def find_tool(name):
    """The path of a program, or None. Debian installs daemons outside a user's PATH."""
    return shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/local/sbin")


def install(names, known=PACKAGES):
    """Installs the Debian packages of programs, without starting their daemons."""
    packages = [known[name] for name in names]
    command = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    if not shutil.which("apt-get") or os.geteuid() != 0:
        raise Failure(f"missing: {', '.join(names)}. As root: {' '.join(command)}")
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for step in (["apt-get", "update"], command):
            done = subprocess.run(step, env=environment, capture_output=True, text=True)
            if done.returncode != 0:
                raise Failure(f"{' '.join(step)} failed:\n{done.stderr[-2000:]}")
    finally:
        if ours:
            policy.unlink()


def version(path, *flags):
    """The first line of a program's version output."""
    done = subprocess.run([path, *flags], capture_output=True, text=True)
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0] if lines else "?"


def children_of(pid):
    """The ids of a process's direct children."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


class Processes:
    """Every process that this script started. All are ended by id, however the script ends."""

    def __init__(self, folder):
        self.folder = folder
        self.running = []
        self.starting = False
        self.ending = False
        self.signal = None
        for number in SIGNALS:
            signal.signal(number, self.on_signal)

    def on_signal(self, number, _frame):
        """Ends the script at the first signal, but not between a process's start and its entry in the list."""
        if self.starting:
            self.signal = number
        elif not self.ending:
            self.ending = True
            raise SystemExit(128 + number)

    def start(self, name, command, cpu, stdout=None, stdin=subprocess.DEVNULL):
        """Starts `command` pinned to `cpu`. Its output goes to NAME.out, unless `stdout` is given."""
        said_path = self.folder / f"{name}.out"
        self.starting = True
        try:
            with open(said_path, "wb") as said:
                process = subprocess.Popen(
                    ["taskset", "-c", str(cpu), *map(str, command)], stdin=stdin,
                    stdout=stdout or said, stderr=subprocess.STDOUT if stdout else said, start_new_session=True,
                )
            process.label = name
            process.said_path = said_path
            self.running.append(process)
        finally:
            self.starting = False
        if self.signal:
            self.on_signal(self.signal, None)
        return process

    def stop(self, process):
        """SIGTERM; after 5 s SIGKILL, for its children (nginx's worker) too."""
        children = children_of(process.pid)
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                for pid in (*children, process.pid):
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except ProcessLookupError:
                        pass
                process.wait()
        self.running.remove(process)

    def stop_all(self):
        for process in reversed(self.running.copy()):
            self.stop(process)


def free_ports(count):
    """Distinct unused TCP ports of 127.0.0.1."""
    sockets = []
    for _ in range(count):
        opened = socket.socket()
        opened.bind(("127.0.0.1", 0))
        sockets.append(opened)
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


def wait_for_port(process, port):
    """Returns once the port accepts connections; fails if the process has exited or 30 s have passed."""
    limit = time.monotonic() + 30
    while time.monotonic() < limit:
        if process.poll() is not None:
            break
        with socket.socket() as probe:
            probe.settimeout(1)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    said = process.said_path.read_text(errors="replace")[-2000:]
    raise Failure(f"{process.label} does not listen on port {port}. It said:\n{said}")


class LogSink:
    """Receives log lines over TCP and appends them to a file: HAProxy's log server, on the load's CPU."""

    def __init__(self, path):
        self.path = path
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self.copy, args=(connection,), daemon=True).start()

    def copy(self, connection):
        with connection, open(self.path, "ab", buffering=0) as log:
            while block := connection.recv(1 << 18):
                log.write(block)


def count_lines(path):
    """The number of line ends in a file, 0 where there is none."""
    try:
        with open(path, "rb") as opened:
            return sum(block.count(b"\n") for block in iter(lambda: opened.read(1 << 20), b""))
    except FileNotFoundError:
        return 0


def threads_time(pid):
    """{thread id: (ns on the CPU, ns waiting for it)}, or None where the kernel has no schedstat."""
    threads = {}
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            on_cpu, waiting, _ = Path(f"/proc/{pid}/task/{task}/schedstat").read_text().split()
            threads[task] = (int(on_cpu), int(waiting))
    except (OSError, ValueError):
        return None
    return threads if any(on_cpu for on_cpu, _ in threads.values()) else None


def ticks(pid):
    """(user, system) clock ticks of the whole process, including ended threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]), int(fields[12])


def memory(pid):
    """The memory of a process in bytes, with shared pages divided among their users (PSS)."""
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    return int(found[1]) * 1024


def snapshot(pid):
    return threads_time(pid), ticks(pid)


def cpu_between(before, after):
    """(seconds on the CPU, share of it in user mode, seconds waiting for the CPU, exact?).

    The sum is exact to the nanosecond with schedstat; the user share always comes from the ticks. If a thread has
    ended in between, schedstat has lost its time, so the sum comes from the ticks too.
    """
    user = (after[1][0] - before[1][0]) / TICK
    system = (after[1][1] - before[1][1]) / TICK
    share = user / (user + system) if user + system else 0.0
    old, new = before[0], after[0]
    if old is None or new is None or not old.keys() <= new.keys():
        return user + system, share, 0.0, False
    on_cpu = sum(new[task][0] - old.get(task, (0, 0))[0] for task in new) / 1e9
    waiting = sum(new[task][1] - old.get(task, (0, 0))[1] for task in new) / 1e9
    return on_cpu, share, waiting, True
