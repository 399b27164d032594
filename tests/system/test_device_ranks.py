"""Learner ranks on devices: the shipped learner with kernels on the emulated device and NCCL played between processes (tests/emulate). Two
ranks commit the bytes that one does, also when one of them is killed in the middle of a plan."""
import hashlib
import os
import subprocess

import pytest

from conftest import BIN, Process, TOP

EMULATED = TOP / "build/release/tests/emulate"
STAGES = [{"demos": {"episodes": 4, "style": "clean"}}, {"sft": {"steps": 2, "batch": 4, "warmup": 1}}]


class EmulatedLearner(Process):
    def program(self):
        return [EMULATED / "gantry-learner"]


@pytest.fixture(autouse=True)
def library(monkeypatch):
    if not (EMULATED / "libnccl.so.2").exists():
        pytest.skip("make tests builds the emulated learner")
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{EMULATED}:{os.environ.get('LD_LIBRARY_PATH', '')}")


@pytest.fixture
def model(tmp_path):
    """Small enough for an emulated device."""
    subprocess.run([BIN / "gantry", "model", "new", tmp_path / "nano", "--spec", TOP / "tests/golden/nano"], check=True, cwd=TOP)
    return tmp_path / "nano"


def run(make_cluster, ranks, during=lambda cluster: None):
    """The weights of the last version, and the learners."""
    cluster = make_cluster({"cluster": {"learners": [{"device": f"cuda:{i}"} for i in range(ranks)]}}, stages=STAGES)
    cluster.run.mkdir(exist_ok=True)
    cluster.spawn("coordinator")
    for rank in range(ranks):
        cluster.processes.append(EmulatedLearner(cluster, "learner", f"learner-{rank}", [
            "--run-dir", cluster.run, "--join", cluster.coordinator, "--threads", 1, "--rank", rank, "--device", "cuda:0"]))
    cluster.spawn("env-worker")
    during(cluster)
    cluster.until_finished()
    cluster.history()
    return hashlib.sha256((cluster.run / "policies" / "v000001" / "model.safetensors").read_bytes()).hexdigest(), cluster.of("learner")


def test_ranks_on_devices(make_cluster):
    def kill(cluster):
        rank_1 = cluster.of("learner")[1]
        cluster.until(lambda s: 'msg="device memory"' in rank_1.log.read_text(), "rank 1 to train")
        rank_1.kill()           # started again by the cluster's supervision

    one, _ = run(make_cluster, 1)
    two, learners = run(make_cluster, 2, kill)
    assert two == one
    assert all("gradients are added by NCCL" in learner.log.read_text() for learner in learners)
    assert learners[1].starts > 1
