"""Learner ranks: two commit the bytes that one does, also when one of them is killed in the middle of a plan, or
before it commits; one that stands still is killed by `gantry up`."""
import hashlib
import os
import re
import signal

import pytest

STAGES = [{"demos": {"episodes": 8, "style": "slow"}}, {"sft": {"steps": 24, "batch": 16, "warmup": 1}},
          {"sft": {"steps": 3, "batch": 16, "warmup": 1}}]
ALONE = []          # what one learner comes to, once it is known


def run(make_cluster, ranks, during=lambda cluster: None, stages=STAGES, faults=""):
    """The weights of the last version."""
    cluster = make_cluster({"cluster": {"learners": [{"device": "cpu"}] * ranks}}, stages=stages)
    cluster.faults["learner-0"] = faults
    cluster.run.mkdir(exist_ok=True)
    cluster.spawn("coordinator")
    for rank in range(ranks):
        cluster.spawn("learner", None, "--rank", rank)
    cluster.spawn("env-worker")
    during(cluster)
    cluster.until_finished()
    cluster.history()
    return hashlib.sha256((cluster.run / "policies" / "v000002" / "model.safetensors").read_bytes()).hexdigest()


@pytest.fixture
def alone(make_cluster):
    if not ALONE:
        ALONE.append(run(make_cluster, 1))
    return ALONE[0]


def test_two_ranks_are_one(make_cluster, alone):
    assert run(make_cluster, 2) == alone


def test_a_rank_killed_in_a_plan(make_cluster, alone):
    def kill(cluster):
        rank_1 = cluster.of("learner")[1]
        cluster.until(lambda s: 'msg="training"' in rank_1.log.read_text(), "rank 1 to train")
        rank_1.kill()           # started again by the cluster's supervision

    assert run(make_cluster, 2, kill) == alone


def see_it_die(cluster):
    rank_0 = cluster.of("learner")[0]
    cluster.until(lambda s: rank_0.starts > 1, "rank 0 to die of its fault")


def test_rank_0_does_not_get_to_commit(make_cluster):
    """Its disk is full, then it dies when all is trained and nothing is committed: the others train the version once more, too."""
    def see(cluster):
        see_it_die(cluster)
        assert "No space left on device" in cluster.of("learner")[0].log.read_text()

    stages = [{"demos": {"episodes": 4, "style": "clean"}}] + [{"sft": {"steps": 2, "batch": 4, "warmup": 1}}] * 2
    run(make_cluster, 2, see, stages=stages, faults="version.rename=enospc@1,version.rename=abort@2")


def test_rank_0_dies_committed(make_cluster, alone):
    """Killed when the version lies there and nobody has heard of it: it is what the others go on from."""
    assert run(make_cluster, 2, see_it_die, faults="version.renamed=abort@1") == alone


def test_a_rank_that_stands_still(make_cluster, alone):
    """The other one would wait for it for ever. `gantry up` says which it is, and starts it again."""
    cluster = make_cluster({"cluster": {"learners": [{"device": "cpu"}] * 2}, "timing": {"hung_ms": 3000}}, stages=STAGES)
    cluster.up()
    log = cluster.run / "log" / "learner-1.log"
    cluster.until(lambda s: s and log.exists() and 'msg="training"' in log.read_text(), "rank 1 to train")
    pid = int(re.findall(r"pid=(\d+)", log.read_text())[0])
    os.kill(pid, signal.SIGSTOP)
    cluster.until_finished()
    assert f"learner-1 (pid {pid}) has stood still for 3 s: killed" in (cluster.root / "up.log").read_text()
    assert hashlib.sha256((cluster.run / "policies" / "v000002" / "model.safetensors").read_bytes()).hexdigest() == alone
