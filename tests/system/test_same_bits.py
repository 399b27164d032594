"""numerics: strict. What is trained depends on the configuration alone: not on kills, nor on how many workers play."""
import hashlib
import re

import pytest

STAGES = [
    {"demos": {"episodes": 6, "style": "clean"}},
    {"sft": {"steps": 6, "batch": 8, "warmup": 1, "commit_every": 2}},
    {"rl": {"iterations": 4, "episodes": 6, "preset": "tabletop", "reward": "sparse", "critic_prm": False, "eval_every": 0,
            "critic_warmup": 1}},
]


def weights(run):
    return {str(f.relative_to(run)): hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(run.glob("policies/*/*.safetensors"))}


@pytest.fixture(scope="module")
def untouched():
    return {}


def reference(make_cluster, untouched):
    if not untouched:
        cluster = make_cluster(stages=STAGES)
        cluster.start()
        cluster.until_finished()
        untouched.update(weights(cluster.run))
        assert any("v000007" in name for name in untouched), untouched      # 0, sft in three pieces, four of rl
        asked = re.findall(r"objective=ppo .* ahead=(\d+)", cluster.of("learner")[0].log.read_text())
        assert len(asked) == 4 and asked[0] == "0", asked   # how many later depends on what else the machine has to do
    return untouched


@pytest.mark.parametrize("workers", [1, 2])
def test_killed_and_resumed(make_cluster, untouched, workers):
    expected = reference(make_cluster, untouched)
    cluster = make_cluster({"cluster": {"env_workers": workers}}, stages=STAGES)
    cluster.start()
    cluster.until(lambda s: s and s["stage"] == "sft" and s["iteration"] >= 1 or s and s["stage"] == "rl", "imitation under way")
    cluster.of("learner")[0].kill()
    cluster.until(lambda s: s and s["stage"] == "rl" and s["episodes"]["journaled"] >= 1, "an rl episode")
    cluster.of("env-worker")[0].kill()
    cluster.until(lambda s: s and s["stage"] == "rl" and s["iteration"] >= 1 and s["state"] == "training" or s and s["iteration"] >= 2, "training")
    cluster.of("learner")[0].kill()
    cluster.until(lambda s: s and s["iteration"] >= 2 and s["episodes"]["journaled"] >= 2 or s and s["iteration"] >= 3, "rl iteration 2")
    cluster.of("learner")[0].kill()     # what it had asked the reference of the first episodes is gone with it
    cluster.of("coordinator")[0].kill()
    cluster.until_finished()
    cluster.history()
    assert weights(cluster.run) == expected
