"""Env workers come and go: joined by hand, stopped, killed, broken. Nothing is lost and nothing is counted twice."""
import json
import signal

from conftest import ROLES, gantry

EPISODES = 360
DEMOS = [{"demos": {"episodes": EPISODES, "style": "slow"}}]      # needs no actor: some seconds of pure playing


def workers(status):
    return [m for m in status["members"] if m["role"] == "env_worker" and m["state"] == "alive"] if status else []


def delivered(status, pid):
    return sum(m["delivered"] for m in workers(status) if m["pid"] == pid)


def log_of(process):
    return process.log.read_text(errors="replace")


def check_complete(cluster, episodes):
    summary = cluster.until_finished()
    text = cluster.history()
    assert summary["episodes"]["kept"] == episodes, json.dumps(summary["episodes"])
    assert summary["episodes"]["failed"] == 0 and summary["episodes"]["open"] == 0, text


def test_joins_by_hand_and_leaves(make_cluster):
    cluster = make_cluster(stages=DEMOS)
    cluster.faults["env-worker-0"] = "sim.step=stop@200"       # or it might have played all before anybody has joined
    cluster.start()
    first = cluster.of("env-worker")[0]
    cluster.until(lambda s: s and s["episodes"]["journaled"] and first.stands_still(), "the first worker to deliver")
    second = cluster.spawn("env-worker")
    cluster.until(lambda s: delivered(s, second.popen.pid) > 0, "the worker that joined to deliver")
    first.go_on()
    assert second.stop() == 0, log_of(second)
    assert 'msg="draining"' in log_of(second)
    check_complete(cluster, EPISODES)


def test_killed_in_the_middle(make_cluster):
    cluster = make_cluster(stages=DEMOS)
    cluster.faults["env-worker-0"] = [f"sim.step=abort@{step}" for step in (1, 100, 400)]       # kill -9 in each of its first lives
    cluster.start()
    cluster.until(lambda _: cluster.of("env-worker")[0].starts == 3, "its third life")
    cluster.spawn("env-worker")         # not before: a quick one would have played all that is there to die for
    check_complete(cluster, EPISODES)
    assert [p.starts for p in cluster.of("env-worker")] == [4, 1], cluster.logs()


def test_simulator_error_is_played_again(make_cluster):
    cluster = make_cluster(stages=[{"demos": {"episodes": 60, "style": "clean"}}])
    cluster.faults["env-worker-0"] = "sim.step=eio@100"
    cluster.start()
    check_complete(cluster, 60)
    assert "fault=simulator" in log_of(cluster.processes[-1])


def test_a_worker_that_reaches_no_actor_comes_second(make_cluster):
    """It asks soonest, as what it held has just been taken from it: all that is left of the pass. Another wants work and gets it."""
    cluster = make_cluster({"timing": {"lease_ttl_ms": 8000, "first_step_ms": 8000}}, stages=[{"demos": {"episodes": 4, "style": "clean"}}, {"sft": {"steps": 2, "batch": 8, "warmup": 1}},
                                   {"rollouts": {"episodes": 4}}])
    cluster.always["mute"] = "act.send=drop@1+,ping.send=drop@1+"       # demonstrations need no actor
    cluster.run.mkdir()
    cluster.spawn("coordinator")
    cluster.spawn("env-worker", "other")
    cluster.until(lambda s: workers(s), "another worker")
    assert gantry("cordon", cluster.run, "other").returncode == 0       # it is there, and takes nothing before the mute one has all
    for role in ROLES[1:-1]:
        cluster.spawn(role)
    cluster.spawn("env-worker", "mute")

    def holds_all(status):
        return status and status["stage"] == "rollouts" and next((w["member"] for w in status["members"] if w["name"] == "mute" and w["leases"] == 4), None)
    mute = cluster.until(holds_all, "it to hold the whole pass")
    assert gantry("cordon", "--undo", cluster.run, "other").returncode == 0
    summary = cluster.until_finished()
    assert summary["episodes"]["failed"] == 0, cluster.history()
    events = [json.loads(line) for line in gantry("history", cluster.run).stdout.splitlines()]
    taken = [e["text"] for e in events if e["kind"] == "lease_expired"]
    assert sum(text.startswith(f"member {mute}, ") for text in taken) == 4, taken       # each once
    assert "others that want work come first" in log_of(cluster.of("coordinator")[0])


def test_frozen_worker_loses_its_leases(make_cluster):
    """A worker that hangs (SIGSTOP) stops renewing; others play its episodes; what it delivers late changes nothing."""
    cluster = make_cluster({"cluster": {"env_workers": 2}, "timing": {"lease_ttl_ms": 1500, "first_step_ms": 1500}}, stages=DEMOS)
    cluster.start()
    victim = cluster.of("env-worker")[0]
    cluster.until(lambda s: any(m["leases"] for m in workers(s) if m["pid"] == victim.popen.pid), "the victim to hold leases")
    victim.kill(signal.SIGSTOP)
    cluster.until(lambda s: s and (s["state"] == "finished" or not any(m["leases"] for m in s["members"] if m["pid"] == victim.popen.pid)),
                  "its leases to end")
    victim.kill(signal.SIGCONT)
    check_complete(cluster, EPISODES)


def test_two_workers_play_what_one_plays(make_cluster):
    """Who plays an episode does not matter: the same run takes the same number of steps."""
    def outcomes(n):
        cluster = make_cluster({"cluster": {"env_workers": n}}, stages=[{"demos": {"episodes": 80, "style": "slow"}}])
        cluster.start()
        summary = cluster.until_finished()
        cluster.history()
        return summary["env_steps"], summary["episodes"]

    assert outcomes(1) == outcomes(2)


def test_no_renderer_is_said_once(make_cluster, monkeypatch):
    """Without EGL a worker cannot help: it says what is missing and is not started again and again."""
    monkeypatch.setenv("__EGL_VENDOR_LIBRARY_DIRS", "/nonexistent")
    cluster = make_cluster(stages=DEMOS)
    cluster.start()
    worker = cluster.of("env-worker")[0]
    worker.wanted = False
    assert worker.popen.wait(60) == 78          # EX_CONFIG
    assert "libegl" in log_of(worker).lower(), log_of(worker)


def test_a_slow_actor_costs_no_lease(make_cluster):
    """A step whose answer takes longer than a lease lasts: its worker waits for it, and so would any other."""
    cluster = make_cluster({"timing": {"heartbeat_ms": 100, "lease_ttl_ms": 2000}}, stages=[{"rollouts": {"episodes": 4}}])
    cluster.faults["actor-0"] = "act.reply=delay:1000@9-12"         # one after the other: the last comes after four seconds
    cluster.start()
    cluster.until_finished()
    assert cluster.unfired(["act.reply"]) == set()
    log = (cluster.root / "coordinator-0.log").read_text()
    assert "kind=lease_expired" not in log, log
    assert " 0 failed" in cluster.history()
