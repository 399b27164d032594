"""System tests: the real daemons, on a run so small that it ends in a minute.

A Cluster owns a run directory under a short path, starts the daemons one by one (each with --die-with-parent) and starts again what
dies, as `gantry up` does; `cluster.up()` leaves that to `gantry up` itself. Nothing waits by sleeping a guessed time: until(...) asks
the coordinator's status socket until a condition holds, and fails with the end of every log when it does not.

GANTRY_BIN: the directory with the programs; GANTRY_SANITIZED: those of a build with a sanitizer, whose reports fail the test
(sanitized.py); GANTRY_TEST_PATIENCE: seconds until a condition counts as never.
"""
import contextlib
import copy
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
import sanitized

TOP = Path(__file__).resolve().parents[2]
BIN = Path(os.environ.get("GANTRY_BIN", TOP / "build" / sanitized.BUILD / "bin" if sanitized.BUILD else TOP / "bin"))
ROLES = ["coordinator", "learner", "actor", "prm-server", "env-worker"]
PATIENCE = float(os.environ.get("GANTRY_TEST_PATIENCE", "400" if sanitized.BUILD else "150"))
if sanitized.BUILD:
    sanitized.prepare()

TINY = {
    "run": {"name": "tiny", "seed": 11, "numerics": "strict"},
    "suite": {"name": "tabletop", "tasks": ["pick_up_object"], "image": 64},
    "policy": {"train": "full"},
    "stages": [
        {"demos": {"episodes": 6, "style": "clean"}},
        {"sft": {"steps": 3, "batch": 8, "warmup": 1}},
        {"rollouts": {"episodes": 20}},
        {"prm": {"steps": 3, "batch": 8, "holdout": 0.3, "force": True}},
        {"rl": {"iterations": 3, "episodes": 4, "preset": "tabletop", "eval_every": 0, "critic_warmup": 1}},
        {"eval": {"episodes": 2, "policies": ["sft", "last"], "temperatures": [1.0], "val_episodes": 2}},
    ],
    "cluster": {"env_workers": 1, "slots": 4, "actors": [{"device": "cpu"}], "prm_servers": [{"device": "cpu"}],
                "learners": [{"device": "cpu"}]},
    "timing": {"heartbeat_ms": 200, "lease_ttl_ms": 10000, "first_step_ms": 60000},
}


LONGEST = ["test_systemd.py", "test_slurm.py", "test_eval.py", "test_ablate.py"]


def pytest_collection_modifyitems(items):
    """The longest files first: where files run side by side, the last to begin should not be one of them."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


def scratch():
    """A new directory with a short path: UNIX socket paths have 107 bytes. As tests/harness/scratch.h has them: locked as long as this process
    lives, and those that nobody holds any more are removed first."""
    def lock(path):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            raise
        return fd

    for old in Path("/tmp").glob("gantry-t.*"):
        try:
            fd = lock(old)
        except OSError:
            continue
        shutil.rmtree(old, ignore_errors=True)
        os.close(fd)
    while True:
        path = Path(tempfile.mkdtemp(prefix="gantry-t.", dir="/tmp"))
        try:
            fd = lock(path)                 # stays open: it is ours until we end
            if os.fstat(fd).st_ino == path.stat().st_ino:
                return path
        except OSError:
            pass                            # another took it for litter before it was locked


def merged(base, changes):
    """base with changes laid over it, map by map."""
    if not isinstance(base, dict) or not isinstance(changes, dict):
        return changes
    return {**base, **{k: merged(base.get(k, {}), v) if isinstance(v, dict) else v for k, v in changes.items()}}


def admin(path, command, timeout=60):
    """One command on an admin socket; the text after "ok"."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(timeout)
        s.connect(str(path))
        s.sendall(command.encode() + b"\n")
        text = b""
        while not (text.endswith(b"\n\n") or text == b"\n"):
            more = s.recv(1 << 16)
            if not more:
                break
            text += more
    head, _, rest = text.decode().partition("\n")
    if not head.startswith("ok"):
        raise RuntimeError(head)
    return rest.strip()


class Process:
    """One daemon: its log, and how to start it again."""

    def __init__(self, cluster, role, name, args):
        self.cluster, self.role, self.name, self.args = cluster, role, name, args
        self.log = cluster.root / f"{name}.log"
        self.starts, self.wanted, self.popen = 0, True, None
        self.start()

    def start(self):
        self.starts += 1
        faults = self.cluster.faults.get(self.name, "")
        if isinstance(faults, list):        # one for each start
            faults = faults.pop(0) if faults else ""
        else:
            self.cluster.faults.pop(self.name, None)
        env = dict(os.environ, GANTRY_FAULTS=faults or self.cluster.always.get(self.name, ""))
        if env["GANTRY_FAULTS"]:
            env["GANTRY_LOG_LEVEL"] = "debug"       # for fired()
        else:
            del env["GANTRY_FAULTS"]
        with open(self.log, "ab") as log:
            self.popen = subprocess.Popen([*self.program(), *map(str, self.args), "--die-with-parent"],
                                          stdout=log, stderr=log, cwd=TOP, env=env)

    def fired(self):
        """The places at which its faults have happened, in any of its lives."""
        return set(re.findall(r'msg="fault" place=(\S+)', self.log.read_text(errors="replace")))

    def program(self):
        return [BIN / f"gantry-{self.role}"]

    def running(self):
        return self.popen.poll() is None

    def stands_still(self):
        """Stopped by SIGSTOP, as the fault `stop` does it: a test that has to look while something lasts makes it last until go_on()."""
        return Path(f"/proc/{self.popen.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"

    def go_on(self):
        self.popen.send_signal(signal.SIGCONT)

    def kill(self, number=signal.SIGKILL):
        self.popen.send_signal(number)
        if number == signal.SIGKILL:
            self.popen.wait()

    def stop(self, timeout=60):
        """TERM, and do not start it again; its exit status."""
        self.wanted = False
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(timeout)


class Cluster:
    def __init__(self, root, config):
        self.root = root
        self.run = root / "run"
        self.config = root / "run.yaml"
        config["run"]["dir"] = str(self.run)
        self.settings = config
        self.write_config()
        self.processes, self.supervisor = [], None
        self.faults, self.always = {}, {}       # GANTRY_FAULTS by name of process: of its first start, of every start

    def write_config(self):
        self.config.write_text(json.dumps(self.settings, indent=1))         # JSON is YAML

    # ---- processes ----

    def spawn(self, role, name=None, *args):
        name = name or f"{role}-{sum(p.role == role for p in self.processes)}"
        base = ["--config", self.config, "--run-dir", self.run] if role == "coordinator" else ["--run-dir", self.run, "--join", self.coordinator]
        if role == "env-worker":
            base += ["--slots", self.settings["cluster"]["slots"], "--name", name]
        elif role in ("actor", "prm-server"):
            base += ["--threads", 1, "--name", name]
        elif role == "learner":
            base += ["--threads", 1]
        process = Process(self, role, name, base + list(args))
        self.processes.append(process)
        return process

    def spawn_bare(self, role, name, *args):
        """A daemon with these arguments and no others."""
        process = Process(self, role, name, list(args))
        self.processes.append(process)
        return process

    @property
    def coordinator(self):
        return f"ipc://{self.run}/sock/coordinator.ipc"

    def start(self):
        """All daemons, each a child of the test."""
        self.run.mkdir(exist_ok=True)
        for role in ROLES:
            for _ in range(self.settings["cluster"]["env_workers"] if role == "env-worker" else 1):
                self.spawn(role)
        return self

    def up(self, *args):
        """The same by `gantry up`."""
        log = open(self.root / "up.log", "ab")
        self.supervisor = subprocess.Popen([BIN / "gantry", "up", *args, self.config],
                                           stdout=log, stderr=log, cwd=TOP)
        return self.supervisor

    def of(self, role):
        return [p for p in self.processes if p.role == role and p.wanted]

    def supervise(self):
        """Start again what died but should live (one turn)."""
        for p in self.processes:
            if p.wanted and not p.running() and p.popen.returncode not in (0, 79):       # 79: drained by hand
                p.start()

    def pids(self, role):
        """Of a cluster under `gantry up`: as the coordinator knows them."""
        if role == "coordinator":
            return [pid for pid in children(self.supervisor.pid) if "gantry-coordinator" in command(pid)]
        return [m["pid"] for m in self.status()["members"] if m["role"] == role.replace("-", "_") and m["state"] == "alive"]

    # ---- looking ----

    def status(self, timeout=60):
        return json.loads(admin(self.run / "sock" / "status.sock", "status", timeout))

    def until(self, condition, what, patience=PATIENCE):
        """Turn until condition(status) is true; status is None while nobody answers. Returns its value."""
        end = time.monotonic() + patience
        while True:
            self.supervise()
            try:
                status = self.status(5)
            except (OSError, RuntimeError, ValueError):
                status = None
            value = condition(status)
            if value:
                return value
            if time.monotonic() > end:
                pytest.fail(f"waited {patience:.0f} s for {what}; last status: {json.dumps(status)[:1500]}\n{self.logs()}")
            time.sleep(0.05)        # between two questions, not instead of one

    def until_stage(self, stage, patience=PATIENCE):
        """The run is in that stage, or past it."""
        names = [s for entry in self.settings["stages"] for s in entry]
        return self.until(lambda s: s and (s["stage_number"] >= names.index(stage) or s["state"] == "finished"), f"stage {stage}", patience)

    def until_finished(self, patience=PATIENCE):
        """The coordinator (or `gantry up`) has ended the run and left with 0. Returns summary.json."""
        def finished(_):
            if self.supervisor:
                assert not self.supervisor.poll(), f"`gantry up` has ended with {self.supervisor.poll()}\n{self.logs()}"
                return self.supervisor.poll() == 0
            coordinator = self.of("coordinator")[0]
            return not coordinator.running() and coordinator.popen.returncode == 0
        self.until(finished, "the run to finish", patience)
        return json.loads((self.run / "summary.json").read_text())

    def unfired(self, places):
        """Those of the places at which no fault has happened, in any process: what was not reached proves nothing."""
        return set(places).difference(*(p.fired() for p in self.processes))

    def drain(self):
        """Ends a run that would go on for longer than the test."""
        assert gantry("drain", self.run).returncode == 0
        self.until(lambda _: not self.of("coordinator")[0].running(), "the run to drain")

    def history(self):
        """`gantry history check` on the run directory; fails the test on a contradiction."""
        r = gantry("history", "check", self.run)
        assert r.returncode == 0, r.stdout + r.stderr
        return r.stdout

    def logs(self, lines=25):
        out = []
        for log in sorted(self.root.glob("*.log")):
            out.append(f"---- {log.name}\n" + "\n".join(log.read_text(errors="replace").splitlines()[-lines:]))
        return "\n".join(out)

    def close(self):
        for p in self.processes:
            p.wanted = False
        if sanitized.BUILD:
            sanitized.leave([p.popen for p in self.processes])
        for p in self.processes:
            if p.running():
                p.kill()
        if self.supervisor and self.supervisor.poll() is None:
            self.supervisor.terminate()
            try:
                self.supervisor.wait(20)
            except subprocess.TimeoutExpired:
                self.supervisor.kill()
                self.supervisor.wait()


def children(pid):
    try:
        return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def command(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def listens_at(pid):
    """The TCP port of a process that was told to take any (port 0): one found free beforehand may be another's by then. None: not yet."""
    held = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):        # closed meanwhile
            held.add(os.readlink(fd))
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        _, local, _, state, *_, inode = line.split()[:10]
        if state == "0A" and f"socket:[{inode}]" in held:
            return int(local.split(":")[1], 16)
    return None


def gantry(*args, timeout=PATIENCE):
    return subprocess.run([BIN / "gantry", *map(str, args)], capture_output=True, text=True, timeout=timeout, cwd=TOP)


def libero_is_missing():
    """Why nothing of LIBERO can be played here; empty: it can."""
    said = gantry("sim", "play", "--suite", "libero_goal", "--task", "none").stderr.strip()
    return "" if "has no task 'none'" in said else said


def has_command(name):
    return re.search(rf"^\s+{name}\s", gantry("help").stdout, re.M) is not None


@pytest.fixture(autouse=True)
def no_reports():
    """Set up before any cluster, so looked at when all of them are closed."""
    yield
    found = sanitized.reports()
    assert not found, found


@pytest.fixture(scope="session")
def model():
    """The demo's starting policy: it succeeds often enough for a reward model to have something to learn from."""
    return TOP / "models" / "tiny"


@pytest.fixture
def make_cluster(model):
    made = []

    def make(changes=None, stages=None):
        config = merged(merged(copy.deepcopy(TINY), {"policy": {"init": str(model)}}), changes or {})
        if stages is not None:
            config["stages"] = stages
        made.append(Cluster(scratch(), config))
        return made[-1]

    yield make
    for cluster in made:
        cluster.close()
        shutil.rmtree(cluster.root, ignore_errors=True)


@pytest.fixture
def cluster(make_cluster):
    return make_cluster()
