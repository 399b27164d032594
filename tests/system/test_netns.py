"""Two hosts with a cable between them: network namespaces, as root. Cuts of the cable cost time and nothing else."""
import os
import shutil
import subprocess

import pytest
from conftest import Process
from test_tcp import Host

A, B = "10.77.0.1", "10.77.0.2"


def ip(*args, check=True):
    return subprocess.run(["ip", *args], capture_output=True, text=True, check=check)


def why_not():
    if os.geteuid() != 0:
        return "not root"
    if not shutil.which("ip"):
        return "no ip command: deploy/setup.sh cluster installs it (iproute2)"
    name = f"gantry-probe-{os.getpid()}"
    r = ip("netns", "add", name, check=False)
    if r.returncode:
        return f"no network namespaces: {r.stderr.strip()}"
    r = ip("-n", name, "link", "add", "probe0", "type", "veth", "peer", "name", "probe1", check=False)
    ip("netns", "del", name, check=False)
    return f"no veth pairs: {r.stderr.strip()}" if r.returncode else None


REASON = why_not()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))


class Namespaces:
    """Two namespaces with a veth pair between them; nothing of it is seen in the host's own network."""

    def __init__(self):
        self.names = [f"gantry-{os.getpid()}-{x}" for x in "ab"]
        for name in self.names:
            ip("netns", "add", name)
            ip("-n", name, "link", "set", "lo", "up")
        a, b = self.names
        ip("-n", a, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", b)
        for name, address in ((a, A), (b, B)):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")

    def cable(self, state):
        ip("-n", self.names[0], "link", "set", "eth0", state)

    def close(self):
        for name in self.names:
            ip("netns", "del", name, check=False)


class Inside(Process):
    """A daemon in one of the namespaces. hide: a directory that is empty there, as on a host that does not share it."""

    def __init__(self, namespace, hide, *args):
        self.namespace, self.hide = namespace, hide
        super().__init__(*args)

    def program(self):
        hidden = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(self.hide)] if self.hide else []
        return ["ip", "netns", "exec", self.namespace, *hidden, *super().program()]


@pytest.fixture
def two_hosts(make_cluster):
    made = []

    def make(stages):
        cluster = make_cluster({"cluster": {"listen": f"tcp://{A}:5555"}}, stages=stages)
        spaces = Namespaces()
        made.append(spaces)
        cluster.run.mkdir()
        b = Host(cluster)

        def spawn(where, role, name, *args):
            cluster.processes.append(Inside(spaces.names[where], cluster.run if where == 1 else None, cluster, role, name, list(args)))
            return cluster.processes[-1]
        join = f"tcp://{A}:5555"
        spawn(0, "coordinator", "coordinator", "--config", cluster.config, "--run-dir", cluster.run)
        cluster.until(lambda s: s, "the coordinator")
        spawn(0, "learner", "learner", "--run-dir", cluster.run, "--join", cluster.coordinator, "--threads", 1, "--key", b.key("learner"),
              "--listen", f"tcp://{A}:*")
        spawn(1, "actor", "actor", "--join", join, "--key", b.key("actor"), "--listen", f"tcp://{B}:*", "--cache", b.dir / "cache")
        spawn(1, "env-worker", "worker", "--join", join, "--key", b.key("env_worker"), "--slots", 4)
        return cluster, spaces
    yield make
    for spaces in made:
        spaces.close()


STAGES = [{"demos": {"episodes": 40, "style": "clean"}}, {"sft": {"steps": 2, "batch": 8, "warmup": 1}}, {"rollouts": {"episodes": 24}}]


def test_two_hosts(two_hosts):
    """The second sees nothing of the run's directory: its actor has the weights from the learner."""
    cluster, _ = two_hosts(STAGES)
    cluster.until_finished()
    assert " 0 failed" in cluster.history()
    assert "version brought over" in next(p for p in cluster.processes if p.role == "actor").log.read_text()


def test_the_cable_is_cut_again_and_again(two_hosts):
    """Cuts shorter and longer than the silence after which the other side counts as gone; each ends when the run has noticed."""
    cluster, spaces = two_hosts([{"demos": {"episodes": 80, "style": "clean"}}] + STAGES[1:])

    def worker(status):
        return next((m for m in (status or {}).get("members", []) if m["role"] == "env_worker" and m["state"] == "alive"), None)
    cluster.until(lambda s: worker(s) and worker(s)["delivered"] >= 2, "the first episodes")
    for silent_ms in (500, 1500, 0):                    # 0: until the coordinator has given it up
        before = cluster.status()["episodes"]["journaled"]
        spaces.cable("down")
        cluster.until(lambda s: s and (not worker(s) if silent_ms == 0 else not worker(s) or worker(s)["heard_ms_ago"] > silent_ms),
                      f"{silent_ms} ms of silence")
        spaces.cable("up")
        cluster.until(lambda s: s and (s["stage_number"] > 0 or s["state"] == "finished" or s["episodes"]["journaled"] > before), "progress")
    cluster.until_finished()
    assert " 0 failed" in cluster.history()


def test_a_host_goes_away_without_a_word(two_hosts):
    """Its cable is cut for good and its daemons die behind it: no FIN, no RST ever comes. Its members count as lost, their leases end, the connections
    are closed here, and others from there take their place."""
    cluster, spaces = two_hosts(STAGES[:2] + [{"rollouts": {"episodes": 60}}])
    there = [p for p in cluster.processes if p.role in ("actor", "env-worker")]

    def connections():
        listed = subprocess.run(["ip", "netns", "exec", spaces.names[0], "ss", "-tnH", "state", "established", "dst", B], capture_output=True, text=True,
                                check=True)
        return len(listed.stdout.splitlines())

    def alive(status):
        return [m["role"] for m in (status or {}).get("members", []) if m["state"] == "alive"]
    cluster.until_stage("rollouts")
    cluster.until(lambda s: s and s["episodes"]["leased"] and s["episodes"]["journaled"] >= 2, "an episode to be played by the policy")
    assert connections() >= 3               # the worker's to coordinator and learner, the actor's to the coordinator
    spaces.cable("down")
    for process in there:
        process.wanted = False
        process.kill()
    cluster.until(lambda s: alive(s) == ["learner"], "the coordinator to miss them")
    cluster.until(lambda _: connections() == 0, "the connections to be closed")
    cluster.until(lambda s: s and s["episodes"]["leased"] == 0, "their leases to end")
    spaces.cable("up")
    for process in there:
        process.wanted = True
        process.start()
    cluster.until_finished()
    assert " 0 failed" in cluster.history()
