"""Servers and checkpoints that are no good: their fault, never the episode's; said in one line, and the run goes on or stops, but does
not hang."""
import json
import shutil
import subprocess

import pytest

from conftest import BIN, ROLES, TINY, gantry

ROLLOUTS = [{"rollouts": {"episodes": 6}}]


def log_of(cluster, role):
    return cluster.of(role)[0].log.read_text(errors="replace")


def until_stopped(cluster, what):
    """The coordinator ends by itself with EX_CONFIG: to start it again would not help."""
    coordinator = cluster.of("coordinator")[0]
    coordinator.wanted = False
    cluster.until(lambda s: not coordinator.running(), what)
    assert coordinator.popen.returncode == 78, cluster.logs()
    return coordinator.log.read_text(errors="replace")


def test_some_answers_are_not_finite(make_cluster):
    """Actor and reward model answer NaN for a while: asked again, given back, played again. No episode is blamed."""
    cluster = make_cluster(stages=TINY["stages"][:-1])
    cluster.faults = {"actor-0": "act.reply=nan@10-25", "prm-server-0": "score.reply=nan@2-5"}
    cluster.start()
    summary = cluster.until_finished()
    worker = log_of(cluster, "env-worker")
    assert "act: the action is not finite" in worker and "fault=server" in worker and "fault=simulator" not in worker, worker
    assert summary["episodes"]["failed"] == 0
    assert [p.starts for p in cluster.processes] == [1] * 5, cluster.logs()
    assert " 0 failed" in cluster.history()
    assert not cluster.unfired(["act.reply", "score.reply"])


def test_some_answers_cannot_be_trained_on(make_cluster):
    """Nobody but the learner knows what a log-probability of the policy may be. It refuses such an episode before it is in the journal, from where
    its iteration could not get rid of it: played again, in the rollouts and in rl."""
    cluster = make_cluster(stages=TINY["stages"][:-1])
    cluster.faults = {"actor-0": "act.reply=wrong@5-6,act.reply=wrong@300-302"}
    cluster.start()
    summary = cluster.until_finished()
    worker = log_of(cluster, "env-worker")
    assert worker.count("a log-probability is not a number below 0") >= 2, worker
    assert "fault=server" in worker and "fault=simulator" not in worker, worker
    assert summary["episodes"]["failed"] == 0
    assert [p.starts for p in cluster.processes] == [1] * 5, cluster.logs()
    assert " 0 failed" in cluster.history()
    assert not cluster.unfired(["act.reply"])


def test_no_answer_is_finite(make_cluster):
    cluster = make_cluster(stages=ROLLOUTS)
    cluster.faults["actor-0"] = "act.reply=nan@1+"
    cluster.start()
    why = "no episode can be played, 10 in a row came back: act: the action is not finite"
    assert why in until_stopped(cluster, "the run to stop")
    # whoever looks later is told, too
    status = gantry("status", cluster.run)
    assert status.returncode == 1 and "the run stopped in rollouts" in status.stderr and why in status.stderr, status.stderr
    assert gantry("report", cluster.run).returncode == 0
    assert f"The run stopped before its end: {why}" in (cluster.run / "report.html").read_text()


@pytest.fixture
def broken_model(model, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(model, copy)
    return copy


def test_wrong_action_dimensions(make_cluster, broken_model):
    """A policy of another robot: four numbers where the suite takes seven."""
    path = broken_model / "dataset_statistics.json"
    statistics = json.loads(path.read_text())
    for data in statistics.values():
        data["action"] = {k: v[:4] for k, v in data["action"].items()}
    path.write_text(json.dumps(statistics))
    cluster = make_cluster({"policy": {"init": str(broken_model)}}, stages=ROLLOUTS)
    cluster.start()
    text = until_stopped(cluster, "the run to stop")
    assert "actions have 4 dimensions, the simulator takes 7" in text, text


def test_truncated_shard(make_cluster):
    """Cut short in the run, when the coordinator has seen to it: the actor refuses it and says which file; a run that waits for it stops."""
    cluster = make_cluster(stages=ROLLOUTS)
    cluster.run.mkdir()
    cluster.spawn("coordinator")
    cluster.until(lambda s: s, "the coordinator")
    path = cluster.run / "policies" / "v000000" / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    for role in ROLES[1:]:
        cluster.spawn(role)
    cluster.until(lambda s: s and "refused: " in s["waiting_for"], "the refusal")
    text = until_stopped(cluster, "the run to stop")
    assert "no server loads policy version 0" in text and "model.safetensors" in text, text


@pytest.mark.parametrize("kind", ["policies", "prms"])
def test_missing_version(make_cluster, kind):
    """A version that the run goes on with was removed while it was down, or is not in a copy made while it ran."""
    cluster = make_cluster(stages=[*TINY["stages"][:4], {"rl": {"iterations": 1000, "episodes": 4, "preset": "tabletop"}}])
    cluster.start()
    cluster.until_stage("rl")
    cluster.drain()
    newest = sorted(cluster.run.glob(f"{kind}/v*"))[-1]
    newest.rename(cluster.root / "gone")
    r = subprocess.run([BIN / "gantry-coordinator", "--run-dir", cluster.run], capture_output=True, text=True, timeout=60)
    assert r.returncode == 78 and f"{newest} is not there, and the run goes on with it" in r.stderr, r.stderr


def test_truncated_before_the_start(make_cluster, broken_model):
    """Cut short after `gantry up` has looked: the coordinator, who copies it into the run, refuses it by name."""
    path = broken_model / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    cluster = make_cluster({"policy": {"init": str(broken_model)}},
                           stages=[{"demos": {"episodes": 2, "style": "clean"}}, {"sft": {"steps": 2, "batch": 8, "warmup": 1}}])
    cluster.start()
    text = until_stopped(cluster, "the run to stop")
    assert "model.safetensors" in text, text
