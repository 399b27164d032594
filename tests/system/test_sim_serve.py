"""A suite behind the protocol of suite.remote is the suite: the same episodes, pictures and, in a whole run, the same weights."""
import hashlib
import sqlite3
import subprocess

import pytest
from conftest import BIN, ROLES, gantry

SERVE = f"{BIN}/gantry sim serve --suite tabletop --size 64"


def test_play(tmp_path):
    """One episode of each style, by its actions and its film."""
    said = []
    for name, suite in (("here", ()), ("there", ("--suite", "remote", "--remote", SERVE))):
        for style in ("expert", "slow"):
            done = gantry("sim", "play", *suite, "--task", "pick_up_object", "--states", "3", "--policy", style, "--size", "64",
                          "-o", tmp_path / f"{name}-{style}.png", "--record", tmp_path / f"{name}-{style}.txt")
            assert done.returncode == 0, done.stderr
    for style in ("expert", "slow"):
        assert (tmp_path / f"here-{style}.png").read_bytes() == (tmp_path / f"there-{style}.png").read_bytes()
        here, there = ((tmp_path / f"{name}-{style}.txt").read_text().split("\n", 1)[1] for name in ("here", "there"))
        assert here == there and len(here.splitlines()) > 5


def test_socket(tmp_path):
    """Several connections to one server, each a world of its own."""
    path = tmp_path / "sim.sock"
    server = subprocess.Popen([f"{BIN}/gantry", "sim", "serve", "--listen", path], stderr=subprocess.PIPE, text=True)
    try:
        assert f"at unix:{path}" in server.stderr.readline()
        for _ in range(2):
            listed = gantry("sim", "list", "--suite", "remote", "--remote", f"unix:{path}")
            assert listed.returncode == 0 and "stack_two_blocks" in listed.stdout
    finally:
        server.kill()
        server.wait()


def test_a_whole_run(make_cluster):
    """strict: what was learnt from episodes played elsewhere is what is learnt from the same episodes played here. Look-ahead, whose
    candidates are played on from saved states, ends in the same places, too."""
    def played(changes, *worker):
        cluster = make_cluster(changes, stages=[
            {"demos": {"episodes": 4, "style": "clean"}}, {"sft": {"steps": 2, "batch": 8, "warmup": 1}}, {"rollouts": {"episodes": 12}},
            {"prm": {"steps": 2, "batch": 8, "holdout": 0.3, "force": True}},
            {"rl": {"iterations": 1, "episodes": 4, "preset": "tabletop", "eval_every": 0, "critic_warmup": 0}},
            {"eval": {"episodes": 1, "policies": ["last"], "at": [1.0], "n": [2], "search_episodes": 2, "beside": False}}])
        cluster.run.mkdir()
        for role in ROLES:
            cluster.spawn(role, None, *(worker if role == "env-worker" else ()))
        cluster.until_finished()
        cluster.history()
        weights = {f"{f.parent.parent.name}/{f.parent.name}": hashlib.sha256(f.read_bytes()).hexdigest()
                   for f in cluster.run.glob("p*s/v*/model.safetensors")}
        with sqlite3.connect(f"file:{cluster.run}/ledger.sqlite?mode=ro", uri=True) as ledger:
            return weights, ledger.execute("SELECT episode, state, search_n, steps, reward, progress_end FROM episodes ORDER BY episode").fetchall()
    here = played({})
    there = played({"suite": {"name": "remote", "remote": "exit 1"}}, "--simulator", SERVE)      # the worker's own goes before the run's
    assert len(here[0]) >= 4 and any(row[2] == 2 for row in here[1]) and here == there, (here, there)


@pytest.mark.parametrize("argument, says", [("--suite nowhere", "no suite is called"), ("", "nobody is on the other side"),
                                            ("--cameras 9", "--cameras"), ("--listen " + "x" * 200, "may have")])
def test_refusals(argument, says):
    done = gantry("sim", "serve", *argument.split())
    assert done.returncode != 0 and says in done.stderr, done.stderr
