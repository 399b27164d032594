"""The suite `remote` through the real programs: a world that is a process of its own (remote_world.py), well and unwell."""
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from conftest import BIN, TOP, gantry, merged
from remote_world import SIDE

from gantry_sim import Client

WORLD = f"exec {sys.executable} {Path(__file__).parent / 'remote_world.py'}"


def suite(task, where=WORLD):
    return {"suite": {"name": "remote", "remote": where, "tasks": [task], "image": 64}, "cluster": {"slots": 2}}


def sim(*args, fault="", where=WORLD):
    return subprocess.run([BIN / "gantry", "sim", *args, "--suite", "remote", "--remote", where], capture_output=True, text=True, cwd=TOP,
                          timeout=60, env={**os.environ, "WORLD_FAULT": fault})


def test_looked_at(tmp_path):
    """gantry sim: what it is, and its experts."""
    listed = sim("list").stdout
    assert re.search(r"0 +12 +5 +1 +any +reach\n +\"go to the green place\"\n 1 +24 +5 +1 +any +push", listed), listed
    played = sim("play", "--task", "push", "--states", "0..4", "-o", tmp_path / "film.png")
    assert "expert: 5 of 5 solved" in played.stdout and (tmp_path / "film-4.png").exists(), played.stdout + played.stderr
    assert "slow: " in sim("play", "--policy", "slow", "--states", "0..4").stdout


def test_handed_on():
    """Served by gantry in its turn, nothing of it is changed: not a byte of a picture, a number, a state."""
    gantry_serves = [BIN / "gantry", "sim", "serve", "--suite", "remote", "--remote", WORLD, "--size", str(SIDE)]
    with Client(gantry_serves) as far, Client(WORLD) as near:
        assert {t["name"]: t["max_steps"] for t in far.describe()["tasks"]} == {"reach": 12, "push": 24}
        for state in (0, 2 ** 40 + 1):
            for sim in (far, near):
                sim.reset("push", "test", state)
            saved = far.save()
            futures = []
            for _ in range(2):
                for step in range(6):
                    action, label = near.expert("clean", state, step)
                    a, b = far.step(action), near.step(action)
                    assert bytes(a["pictures"][0]) == bytes(b["pictures"][0]) and a["proprio"] == pytest.approx(b["proprio"], abs=1e-6)
                    futures.append(bytes(a["pictures"][0]))
                far.restore(saved)
                near.reset("push", "test", state)
            assert futures[:6] == futures[6:]


@pytest.mark.parametrize("fault, words", [
    ("raise", "RuntimeError: the world is out of joint at test/1 (remote_world.py:"), ("die", "its process ended with status 7"),
    ("nonsense", "'success' is neither true nor false"), ("short", "3071 bytes of pictures came"), ("nan", "its answer is no JSON"),
    ("text", "a frame that begins with lengths of"), ("refuse", "reset: RuntimeError: the world is out of joint"),
    ("crash", "reset: its process ended with status 7"),
])
def test_unwell(fault, words):
    """Each in its own words, after the episode before it."""
    r = sim("play", "--task", "push", "--states", "0..2", fault=f"{fault}@test/1")
    assert r.returncode == 1 and "test 0    success" in r.stdout, r.stdout + r.stderr
    assert words in r.stderr.splitlines()[-1] and "gantry sim: test state 1" in r.stderr.splitlines()[-1], r.stderr


def test_tasks_of_any_name(make_cluster, monkeypatch):
    """Letters that mean something to YAML, JSON, a page: as they are everywhere."""
    name = 'a <b> & "c": d'
    monkeypatch.setenv("WORLD_ALIAS", name)
    cluster = make_cluster(merged(suite(name), {"suite": {"tasks": [name, "push"]}}), stages=[
        {"demos": {"episodes": 4}}, {"sft": {"steps": 2, "batch": 8, "warmup": 1}},
        {"eval": {"episodes": 4, "policies": ["sft"], "temperatures": [1.0], "val_episodes": 2}}])
    cluster.up()
    cluster.until_finished()
    summary = json.loads((cluster.run / "summary.json").read_text())
    assert set(summary["policies"]["sft"]["tasks"]) == {name, "push"}
    assert gantry("report", cluster.run).returncode == 0
    page = (cluster.run / "report.html").read_text()
    assert "<td>a &lt;b&gt; &amp; &quot;c&quot;: d</td>" in page and "<b> &" not in page


def test_an_evaluation_that_the_simulator_cannot_play(make_cluster, monkeypatch):
    """Refused before it is added to the run: it would stop there, and stand before every later one."""
    monkeypatch.setenv("WORLD_PLAIN", "1")
    cluster = make_cluster(suite("reach"), stages=[{"rollouts": {"episodes": 2}}])
    cluster.up()
    cluster.until_finished()
    cluster.until(lambda s: s is None, "its daemons to end")
    for words, says in ((["last", "--n", "2", "--judge", "confidence"], "the states of this one cannot be saved"),
                        (["demonstrator"], "this simulator has no expert")):
        r = gantry("eval", cluster.run, "--at", "1", "--seeds", "1000..1001", "--policies", *words)
        assert r.returncode == 1 and says in r.stderr and not (cluster.run / "evals.yaml").exists(), r.stderr
    r = gantry("eval", cluster.run, "--at", "1", "--seeds", "1000..1001", "--policies", "last")
    assert r.returncode == 0, r.stderr


def test_a_whole_run(make_cluster, model, tmp_path, monkeypatch):
    """Demonstrations of its expert, imitation, a reward model, reinforcement learning, the verdict; by two arms of seven numbers each, which
    a policy for one is refused for."""
    monkeypatch.setenv("WORLD_ARMS", "2")
    refused = gantry("up", make_cluster(suite("reach")).config)
    assert refused.returncode != 0 and "its actions have 7 dimensions, the suite remote takes 14;" in refused.stderr, refused.stderr
    two = tmp_path / "two"
    shutil.copytree(model, two)
    stats = json.loads((two / "dataset_statistics.json").read_text())
    stats["tabletop"] = {what: {k: v * 2 for k, v in rows.items()} if isinstance(rows, dict) else rows for what, rows in stats["tabletop"].items()}
    (two / "dataset_statistics.json").write_text(json.dumps(stats))
    cluster = make_cluster({**suite("reach"), "policy": {"init": str(two)}}, stages=[
        {"demos": {"episodes": 4, "style": "clean"}}, {"sft": {"steps": 2, "batch": 8, "warmup": 1}}, {"rollouts": {"episodes": 16}},
        {"prm": {"steps": 2, "batch": 8, "holdout": 0.2, "force": True}},
        {"rl": {"iterations": 1, "episodes": 4, "preset": "tabletop", "eval_every": 0, "critic_warmup": 0}},
        {"eval": {"episodes": 2, "policies": ["last"], "at": [1], "n": [1, 2], "beside": False}}])
    cluster.up()
    summary = cluster.until_finished()
    assert summary["suite"] == "remote" and summary["episodes"]["kept"] == 20 and summary["episodes"]["failed"] == 0
    assert summary["episodes"]["trained"] == 4
    cluster.history()
    with closing(sqlite3.connect(f"file:{cluster.run / 'ledger.sqlite'}?mode=ro", uri=True)) as ledger:       # the world pays for each step
        assert {r[0] / r[1] for r in ledger.execute("SELECT reward, steps FROM episodes WHERE stage = 0")} == {.25}
    r = gantry("replay", cluster.run, "1", "-o", tmp_path / "film.png")
    assert r.stdout.startswith('episode 1: reach, "go to the green place", the demonstrator: success after '), r.stdout + r.stderr


def test_what_it_cannot_do(make_cluster, monkeypatch):
    """A stage that wants an expert, or copies of a simulator that cannot save: said before the start, not when the stage is reached."""
    monkeypatch.setenv("WORLD_PLAIN", "1")
    for stage, says in (({"demos": {"episodes": 4}}, "stages[0].demos: this simulator has no expert: import"),
                        ({"eval": {"episodes": 2}}, "stages[0].eval.policies: this simulator has no expert that demonstrator"),
                        ({"eval": {"episodes": 2, "policies": ["last"], "n": [1, 2]}}, "look-ahead plays copies of the simulator")):
        prm = [{"prm": {"force": True}}] if "n" in stage.get("eval", {}) else []
        refused = gantry("up", make_cluster(suite("reach"), stages=[stage] if not prm else [*prm, stage]).config)
        assert refused.returncode != 0 and says in refused.stderr, refused.stderr


def test_states_that_break_it(make_cluster, monkeypatch):
    """A state that raises, one that kills, one that is answered short: three times each, then it is failed with its text and another is played.
    Whoever waits beside it is not disturbed."""
    monkeypatch.setenv("WORLD_FAULT", "raise@test/0,die@test/1,short@test/2")
    cluster = make_cluster(suite("push"), stages=[{"eval": {"episodes": 4, "policies": ["last"], "at": [0], "beside": False, "max_steps": 3}}])
    cluster.start()
    summary = cluster.until_finished()
    assert summary["episodes"]["failed"] == 3 and summary["episodes"]["evaluated"] == 4, summary["episodes"]
    history = gantry("history", cluster.run).stdout
    ended = dict(re.findall(r'"kind":"ended","episode":(\d+),"text":"failed (.*?)"', history))
    for episode, words in (("1", "RuntimeError: the world is out of joint at test/0"), ("2", "its process ended with status 7"),
                           ("3", "3071 bytes of pictures came")):
        assert words in ended[episode], history
        assert len(re.findall(rf'"kind":"failure","episode":{episode},', history)) == 3
    assert cluster.of("env-worker")[0].starts == 1


def test_on_a_socket(make_cluster, tmp_path):
    """A simulator that somebody else has started, with a process for each slot. One that nobody has started: a line before anybody starts."""
    path = str(tmp_path / "s.sock")
    cluster = make_cluster(suite("reach", f"unix:{path}"), stages=[{"demos": {"episodes": 6, "style": "slow"}}])
    refused = gantry("up", cluster.config)
    assert refused.returncode != 0 and "does somebody listen there?" in refused.stderr, refused.stderr
    server = subprocess.Popen([*WORLD.split()[1:], "--listen", path])
    try:
        cluster.until(lambda _: os.path.exists(path), "the socket")
        cluster.up()
        summary = cluster.until_finished()
        assert summary["episodes"]["kept"] == 6 and summary["episodes"]["failed"] == 0
    finally:
        server.terminate()
        server.wait(60)


def test_the_example():
    """What newcomers begin from: its demonstrators do what its page says, and its run is one that would be taken."""
    world = f"{sys.executable} deploy/example_sim.py"
    solved = {style: int(re.search(r"(\d+) of 40 solved", sim("play", "--states", "0..39", "--policy", style, where=world).stdout)[1])
              for style in ("expert", "clean", "slow")}
    assert solved["expert"] == solved["clean"] == 40 and 8 < solved["slow"] < 30, solved
    r = gantry("config", "check", TOP / "deploy" / "example_sim.yaml")
    assert r.returncode == 0, r.stderr
