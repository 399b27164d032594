"""Workers come and go by hand while the run is on; nothing is lost."""
import re
import signal
import subprocess
import time

import pytest

from conftest import BIN, gantry


def test_second_worker_joins_and_leaves(make_cluster):
    cluster = make_cluster(stages=[{"demos": {"episodes": 4, "style": "clean"}}, {"sft": {"steps": 2, "batch": 8, "warmup": 1}},
                                   {"rollouts": {"episodes": 100000}}])
    cluster.start()
    cluster.until_stage("rollouts")
    second = cluster.spawn("env-worker")

    def delivered(status):
        workers = [m for m in (status or {}).get("members", []) if m["role"] == "env_worker"]
        return len(workers) == 2 and all(m["delivered"] > 0 for m in workers)
    cluster.until(delivered, "both workers to have delivered")
    assert second.stop() == 0, cluster.logs()
    third = cluster.spawn("env-worker")
    cluster.until(lambda s: s and any(m["pid"] == third.popen.pid for m in s["members"]), "the third worker")
    third.wanted = False
    third.kill()                        # this one without a word
    cluster.drain()
    assert " 0 failed" in cluster.history()


def test_actor_is_replaced(make_cluster):
    """A second actor joins, the first leaves: requests go on at the other, none fails."""
    cluster = make_cluster(stages=[{"demos": {"episodes": 4, "style": "clean"}}, {"sft": {"steps": 2, "batch": 8, "warmup": 1}},
                                   {"rollouts": {"episodes": 100000}}])
    cluster.start()
    cluster.until_stage("rollouts")
    second = cluster.spawn("actor")
    cluster.until(lambda s: s and any(m["pid"] == second.popen.pid and m["versions"] for m in s["members"]), "the second actor to be ready")
    assert cluster.of("actor")[0].stop() == 0, cluster.logs()
    cluster.drain()
    assert " 0 failed" in cluster.history()


def test_frozen_actor(make_cluster):
    """One of two hangs (SIGSTOP; its connections stay open): what it was asked goes to the other, and when it wakes up it is a member again."""
    cluster = make_cluster(stages=[{"demos": {"episodes": 4, "style": "clean"}}, {"sft": {"steps": 2, "batch": 8, "warmup": 1}},
                                   {"rollouts": {"episodes": 5000}}])
    cluster.start()
    cluster.until_stage("rollouts")
    victim = cluster.spawn("actor")

    def state(status):
        return next(((m["state"], bool(m["versions"])) for m in (status or {}).get("members", []) if m["pid"] == victim.popen.pid), None)
    cluster.until(lambda s: state(s) == ("alive", True) and s["episodes"]["journaled"] >= 4, "the second actor to be ready")
    victim.kill(signal.SIGSTOP)
    at = cluster.until(lambda s: state(s) and state(s)[0] == "lost" and s, "the actor to be missed")["episodes"]["journaled"]
    cluster.until(lambda s: s and s["episodes"]["journaled"] >= at + 8, "the other to do its work")      # more than can have been under way
    victim.kill(signal.SIGCONT)
    cluster.until(lambda s: state(s) == ("alive", True), "the actor to be back")
    assert gantry("drain", cluster.run).returncode == 0
    cluster.until(lambda _: not cluster.of("coordinator")[0].running(), "the end of the drain")
    assert " 0 failed" in cluster.history()


def test_drain_by_command(make_cluster):
    """`gantry drain` lets what is in hand be finished; all end with 0; `gantry up` goes on later."""
    cluster = make_cluster(stages=[{"demos": {"episodes": 300, "style": "clean"}}])
    up = cluster.up()
    cluster.until(lambda s: s and s["episodes"]["journaled"] >= 2, "the first episodes")
    r = gantry("drain", cluster.run)
    assert r.returncode == 0, r.stderr
    assert up.wait(60) == 0, cluster.logs()
    said = (cluster.root / "up.log").read_text()
    assert f"drained before its end; `gantry up {cluster.run}/config.yaml` goes on from here" in said and "is finished" not in said, said
    text = cluster.history()
    assert " 0 failed" in text
    assert int(text.split()[0]) == 300      # all rows are there, some still open
    journaled, left = map(int, re.search(r" 300 open \((\d+) journaled, their pass not done; (\d+) still to be played\)", text).groups())
    assert journaled >= 2 and left == 300 - journaled, text


def test_a_command_that_is_answered_late(make_cluster):
    """The coordinator stands still for longer than `gantry status` waits: a drain that was asked for meanwhile is no failure."""
    cluster = make_cluster(stages=[{"demos": {"episodes": 300, "style": "clean"}}]).start()
    cluster.until(lambda s: s and s["episodes"]["journaled"] >= 2, "the first episodes")
    cluster.of("coordinator")[0].kill(signal.SIGSTOP)
    drain = subprocess.Popen([BIN / "gantry", "drain", cluster.run], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for _ in range(3):      # each gives up; a drain looks for `gantry up`, too
        assert gantry("status", cluster.run).returncode != 0
    cluster.of("coordinator")[0].go_on()
    said = drain.communicate()[0]
    assert drain.returncode == 0, said
    cluster.until(lambda _: not cluster.of("coordinator")[0].running(), "the run to drain")


def test_a_drain_and_a_long_update(make_cluster):
    """It is finished first, however long it takes; who cannot wait says for how long, also later. Nothing of it counts as an error."""
    cluster = make_cluster(stages=[{"demos": {"episodes": 6, "style": "clean"}}, {"sft": {"steps": 100000, "commit_every": 100000, "batch": 8}}])
    up = cluster.up()
    cluster.until(lambda s: s and s["state"] == "training" and any(m["gauges"].get("train_done", 0) >= 1 for m in s["members"]), "an update")
    said = gantry("drain", cluster.run).stdout
    assert "/100000: it is finished first. `gantry drain " in said, said
    done = cluster.until(lambda s: s and s["state"] == "draining" and max(m["gauges"].get("train_done", 0) for m in s["members"]), "figures")
    cluster.until(lambda s: max(m["gauges"].get("train_done", 0) for m in s["members"]) > done, "more of the update")
    cluster.until(lambda s: "/100000 updates" in (cluster.root / "up.log").read_text(), "a line of `gantry up` with them")
    refused = gantry("drain", cluster.run, "--within", "soon")
    assert refused.returncode == 1 and "within needs seconds" in refused.stderr, refused.stderr
    assert gantry("drain", cluster.run, "--within", "1").returncode == 0
    assert up.wait(60) == 0, cluster.logs()
    said = (cluster.root / "up.log").read_text()
    assert "/100000 updates" in said and "drained before its end" in said and " ended: " not in said, said
    assert "the drain's time is over" in (cluster.run / "log" / "coordinator.log").read_text()
    assert " 0 failed" in cluster.history()


@pytest.mark.parametrize("role", ["env-worker", "actor", "learner"])
def test_before_the_coordinator(tmp_path, role):
    """The file that says where it is may come later: what is waited for is said once, and SIGTERM ends the waiting."""
    file, log = tmp_path / "endpoints" / "coordinator", tmp_path / "log"
    args = [] if role == "env-worker" else ["--run-dir", tmp_path]
    with open(log, "w") as out:
        process = subprocess.Popen([BIN / f"gantry-{role}", "--join", f"file:{file}", *args], stderr=out)
    try:
        deadline = time.monotonic() + 60
        while 'msg="up"' not in log.read_text() or "waiting for" not in log.read_text():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()
            time.sleep(0.01)
        process.terminate()
        assert process.wait(60) == 0, log.read_text()
    finally:
        process.kill()
    assert log.read_text().count(f'msg="waiting for the coordinator to write its address" file="{file}"') == 1, log.read_text()
