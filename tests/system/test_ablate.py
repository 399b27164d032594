"""gantry ablate: rungs branch off one start per seed, are interrupted and go on, and end in one table, plot and JSON."""
import json
import signal
import subprocess
import time

from conftest import BIN, TOP, gantry

SMALL = [
    {"demos": {"episodes": 6, "style": "clean"}}, {"sft": {"steps": 2, "batch": 8, "warmup": 1}}, {"rollouts": {"episodes": 20}},
    {"prm": {"steps": 3, "batch": 8, "holdout": 0.3, "force": True}},
    {"rl": {"iterations": 3, "episodes": 4, "preset": "tabletop", "eval_every": 0, "critic_warmup": 1}},
    {"eval": {"episodes": 4, "temperatures": [0.6, 1.0], "val_episodes": 2, "search_horizon": 2, "search_execute": 2}}]


def test_ablate(make_cluster, tmp_path):
    cluster = make_cluster(stages=SMALL)        # its configuration; nothing of it is started
    where = cluster.root / "ladder"
    words = ["ablate", cluster.config, "--dir", where, "--seeds", "1", "--search", "2"]

    listed = gantry(*words, "--dry-run")
    assert listed.returncode == 0 and "1 of 10  to do" in listed.stdout and "B-simulator" in listed.stdout, listed.stdout + listed.stderr
    assert not where.exists()

    few = [*words, "--rungs", "A,F,F'"]
    with open(tmp_path / "log", "w") as log:        # interrupted in its second run, called again
        first = subprocess.Popen([BIN / "gantry", *map(str, few)], stdout=log, stderr=log, cwd=TOP)
        deadline = time.monotonic() + 150
        while "seed 11, A:" not in (tmp_path / "log").read_text() and time.monotonic() < deadline:
            assert first.poll() is None, (tmp_path / "log").read_text()
            time.sleep(.1)
        first.send_signal(signal.SIGTERM)
        first.wait(60)
    before = (where / "seed-11/start/ledger.sqlite").stat().st_mtime_ns
    done = gantry(*few, "--json", timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (where / "seed-11/start/ledger.sqlite").stat().st_mtime_ns == before, "the start is not played again"
    result = json.loads((where / "ablation.json").read_text())
    assert set(result["rungs"]) == {"A", "F", "F'"} and result["test_states"] == 4
    for rung in result["rungs"].values():
        assert rung["seeds"] == 1 and len(rung["interval"]) == 2 and len(rung["by_seed"]) == 1
    assert result["rungs"]["F"]["from_A"]["over"] == "A" and result["rungs"]["F"]["env_steps"] > 0
    assert result["rungs"]["A"]["env_steps"] == 0
    # F' has E's weights, a reward model of its own, and costs what that took beside
    assert result["rungs"]["F'"]["env_steps"] > result["rungs"]["F"]["env_steps"]
    assert (where / "ablation.png").read_bytes()[:4] == b"\x89PNG"
    # a rung is a run like any other, and shares what its start has made
    for rung in ("A", "E", "F-anew"):
        told = gantry("history", "check", where / "seed-11" / rung)
        assert told.returncode == 0 and " 0 contradictions" in told.stdout, told.stdout + told.stderr
    assert (where / "seed-11/E/policies/v000001/model.safetensors").stat().st_nlink >= 3
    assert "there is no rung 'Z'" in gantry(*words, "--rungs", "Z").stderr


def test_policy_that_came_with_gantry(make_cluster, tmp_path):
    """models/tiny is found from any directory, as by `gantry up`."""
    cluster = make_cluster({"policy": {"init": "models/tiny"}}, stages=SMALL)
    written = tmp_path / "ladder/seed-11/start/config.yaml"
    ladder = subprocess.Popen([BIN / "gantry", "ablate", cluster.config, "--dir", tmp_path / "ladder", "--seeds", "1", "--rungs", "A"],
                              cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while not written.exists() and ladder.poll() is None:
        time.sleep(.05)         # between two looks
    ladder.send_signal(signal.SIGTERM)
    said = ladder.communicate(timeout=60)[0]
    assert written.exists() and f"init: {TOP}/models/tiny" in written.read_text(), said
