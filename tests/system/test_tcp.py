"""Members on other hosts: TCP with keys. The other host is a directory of its own here, which has nothing but what is copied to it.
tests/system/test_netns.py puts real network namespaces between the same daemons."""
import fcntl
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest
from conftest import BIN, gantry

SHORT = [{"demos": {"episodes": 24, "style": "clean"}}, {"sft": {"steps": 2, "batch": 8, "warmup": 1}}, {"rollouts": {"episodes": 16}}]
LISTEN = "tcp://127.0.0.1:*"


class Host:
    """What another host has: its keys, and the coordinator's public one."""

    def __init__(self, cluster, name="b"):
        self.cluster, self.dir = cluster, cluster.root / name
        self.dir.mkdir()
        cluster.run.mkdir(exist_ok=True)
        assert gantry("keys", "init", cluster.run).returncode == 0
        shutil.copy(cluster.run / "keys" / "coordinator.pub", self.dir)

    def key(self, role, name=None):
        name = name or f"b.{role}"
        r = gantry("keys", "add", self.cluster.run, role, name)
        assert r.returncode == 0, r.stderr
        shutil.move(self.cluster.run / "keys" / f"{name}.key", self.dir)
        return self.dir / f"{name}.key"

    def address(self):
        return (self.cluster.run / "endpoints" / "coordinator").read_text().split()[0]

    def spawn(self, program, name, key, *args, run_dir=False):
        where = ["--run-dir", self.cluster.run] if run_dir else []
        return self.cluster.spawn_bare(program, name, "--join", self.address(), "--key", key, *where, *args)


@pytest.fixture
def tcp_cluster(make_cluster):
    def make():
        cluster = make_cluster({"cluster": {"listen": LISTEN}}, stages=SHORT)
        host = Host(cluster)
        cluster.spawn("coordinator")
        cluster.until(lambda s: s, "the coordinator")
        return cluster, host
    return make


def wait_end(process, timeout=60):
    process.wanted = False
    return process.popen.wait(timeout)


def test_every_member_over_tcp(tcp_cluster):
    """Learner, actor, PRM server and worker, each with its own key; a worker's host has no run directory."""
    cluster, b = tcp_cluster()
    b.spawn("learner", "learner", b.key("learner"), "--threads", 1, "--listen", LISTEN, run_dir=True)
    b.spawn("actor", "actor", b.key("actor"), "--listen", LISTEN, run_dir=True)
    b.spawn("env-worker", "worker", b.key("env_worker"), "--slots", 4)
    cluster.until_finished()
    assert " 0 failed" in cluster.history()
    listed = gantry("keys", "list", cluster.run).stdout.split()
    assert {"learner", "actor", "env_worker"} <= set(listed)


def test_up_serves_members_on_other_hosts(make_cluster):
    """`gantry up` with `listen`: its own daemons get keys by themselves, and a worker elsewhere joins in."""
    cluster = make_cluster({"cluster": {"listen": LISTEN, "prm_servers": []}},
                           stages=[{"demos": {"episodes": 4000, "style": "clean"}}])
    b = Host(cluster)
    key = b.key("env_worker")
    cluster.up()
    cluster.until(lambda s: s and s["episodes"]["journaled"] >= 1, "the first episode")
    worker = b.spawn("env-worker", "worker", key, "--slots", 2)
    cluster.until(lambda s: s and any(m["pid"] == worker.popen.pid and m["delivered"] for m in s["members"]), "its first delivery")
    assert gantry("drain", cluster.run).returncode == 0
    cluster.until(lambda _: cluster.supervisor.poll() == 0, "the run to drain")
    assert " 0 failed" in cluster.history()


def test_strangers_stay_out(tcp_cluster):
    """No key, a key that was never let in, a key of another role, a coordinator that is somebody else, a key file that is missing, none, or
    open to all: one line each, and an end that no supervisor follows by another start."""
    cluster, b = tcp_cluster()
    good = b.key("env_worker")

    def refused(name, *args, role="env-worker"):
        process = cluster.spawn_bare(role, name, "--join", b.address(), *args)
        assert wait_end(process) == 78, process.log.read_text()
        return process.log.read_text()
    assert "tcp needs a key: give --key FILE" in refused("none")
    c = Host(cluster, "c")
    gantry("keys", "init", c.dir)                       # any pair that nobody let in
    shutil.copy(c.dir / "keys" / "coordinator.key", c.dir / "stranger.key")
    assert "not let in" in refused("stranger", "--key", c.dir / "stranger.key")
    assert "let in as actor, not as env_worker" in refused("role", "--key", b.key("actor"))
    shutil.copy(good, c.dir / "worker.key")
    shutil.copy(c.dir / "keys" / "coordinator.pub", c.dir / "coordinator.pub")
    assert "compare coordinator.pub" in refused("impostor", "--key", c.dir / "worker.key")
    (c.dir / "worker.key").chmod(0o644)
    said = refused("open", "--key", c.dir / "worker.key")
    assert "is open to everybody on this host (mode 0644): chmod 600" in said and said.count("level=error") == 1, said
    (c.dir / "worker.key").chmod(0o640)
    (c.dir / "coordinator.pub").unlink()
    assert "copy RUN/keys/coordinator.pub there" in refused("nopub", "--key", c.dir / "worker.key")
    (c.dir / "worker.key").write_text("no key\n")
    assert "holds no Z85 key" in refused("malformed", "--key", c.dir / "worker.key")
    for role in ("learner", "actor", "prm-server"):
        assert "none.key: No such file" in refused(f"{role}-none", "--key", c.dir / "none.key", "--listen", LISTEN, "--run-dir", cluster.run, role=role)
    actor = cluster.spawn_bare("actor", "bare", "--join", cluster.coordinator, "--listen", LISTEN, "--run-dir", cluster.run)
    assert wait_end(actor) == 78 and "tcp needs a key" in actor.log.read_text()
    (b.dir / "run").mkdir()
    shutil.copytree(cluster.run / "keys", b.dir / "run" / "keys")
    (b.dir / "run" / "keys" / "coordinator.key").chmod(0o644)
    open_key = cluster.spawn_bare("coordinator", "open-key", "--config", cluster.config, "--run-dir", b.dir / "run")
    assert wait_end(open_key) == 78 and "is open to everybody" in open_key.log.read_text()
    assert not [m for m in cluster.status()["members"] if m["state"] == "alive"]


def test_keys_of_a_host_are_let_in_before_they_are_used(tmp_path):
    """Several tasks of an array begin on one host: one makes the keys, and the others wait until they are in the list."""
    run, host = tmp_path / "run", socket.gethostname()[:39]
    assert gantry("keys", "init", run).returncode == 0
    with open(run / "keys" / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for role in ("env_worker", "actor", "prm_server", "learner"):
            shutil.copy(run / "keys" / "coordinator.key", run / "keys" / f"{host}-{role}.key")
        other = subprocess.Popen([BIN / "gantry", "keys", "local", run])

        def waits():
            return any("->" in line and f" {other.pid} " in line for line in Path("/proc/locks").read_text().splitlines())
        deadline = time.monotonic() + 60
        while other.poll() is None and not waits() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert other.poll() is None, "it takes a key that is not let in yet"
    assert other.wait(60) == 0


def test_revoked_with_the_next_message(tcp_cluster):
    """A worker plays; its key is taken out: it is shut out at once and says why. The others finish the run, nothing is lost."""
    cluster, b = tcp_cluster()
    b.spawn("learner", "learner", b.key("learner"), "--threads", 1, "--listen", LISTEN, run_dir=True)
    b.spawn("actor", "actor", b.key("actor"), "--listen", LISTEN)       # this one is told the list of keys by the coordinator
    first = b.spawn("env-worker", "first", b.key("env_worker", "first"), "--slots", 2)
    cluster.until(lambda s: s and any(m["delivered"] for m in s["members"]), "the first episodes")
    r = gantry("keys", "revoke", cluster.run, "first")
    assert r.returncode == 0, r.stderr
    assert wait_end(first) != 0
    assert "not let in" in first.log.read_text()
    assert gantry("keys", "revoke", cluster.run, "first").returncode != 0
    b.spawn("env-worker", "second", b.key("env_worker", "second"), "--slots", 4)
    b.spawn("actor", "actor-2", b.key("actor", "actor-2"), "--listen", LISTEN, run_dir=True)
    cluster.until_finished()
    assert " 0 failed" in cluster.history()


def test_a_learner_elsewhere_must_see_the_run(tcp_cluster):
    """With a directory that is not the run's it would begin a second journal."""
    cluster, b = tcp_cluster()
    other = cluster.root / "other"
    other.mkdir()
    args = ["--join", b.address(), "--key", b.key("learner"), "--listen", LISTEN, "--run-dir", other]
    empty = cluster.spawn_bare("learner", "empty", *args)
    assert wait_end(empty) == 78 and "where this host sees the run's directory" in empty.log.read_text()
    (other / "config.yaml").write_text("run: {name: other}\n")
    foreign = cluster.spawn_bare("learner", "foreign", *args)
    assert wait_end(foreign) == 78 and "of another run" in foreign.log.read_text()
    assert not (other / "journal").exists()
    actor = cluster.spawn_bare("actor", "actor", "--join", b.address(), "--key", b.key("actor"), "--listen", LISTEN, "--run-dir", other, "--cache", "/proc/none")
    assert wait_end(actor) == 78 and "(--run-dir), and versions cannot be brought over: /proc/none" in actor.log.read_text()


def test_coordinator_comes_back_elsewhere(tcp_cluster):
    """Members that join by the run directory's endpoint file follow the coordinator to its new port."""
    cluster, b = tcp_cluster()
    learner = cluster.spawn_bare("learner", "learner", "--join", cluster.run, "--run-dir", cluster.run, "--threads", 1, "--listen", LISTEN,
                                 "--key", b.key("learner"))
    cluster.until(lambda s: s and len(s["members"]) == 1, "the learner")
    before = b.address()
    cluster.of("coordinator")[0].kill(signal.SIGKILL)
    cluster.until(lambda s: s and s["epoch"] >= 2 and any(m["state"] == "alive" for m in s["members"]), "the learner, again")
    assert b.address() != before
    assert learner.running() and learner.starts == 1
