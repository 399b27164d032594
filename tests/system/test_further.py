"""A run goes on further than it went: its file gains stages behind the last one."""
import copy
import hashlib
import json
import sqlite3
from contextlib import closing

from conftest import gantry

RL = {"iterations": 2, "episodes": 4, "preset": "tabletop", "reward": "sparse", "critic_prm": False, "eval_every": 0, "critic_warmup": 1}
STAGES = [
    {"demos": {"episodes": 6, "style": "clean"}},
    {"sft": {"steps": 3, "batch": 8, "warmup": 1}},
    {"rl": RL},
    {"eval": {"episodes": 2, "policies": ["sft", "last"], "at": [1, 1]}},
]
MORE = [{"rl": RL}, {"eval": {"episodes": 3, "policies": ["sft", "last"], "at": [1, 1]}}]


def weights(run):
    return {f.parent.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(run.glob("policies/*/model.safetensors"))}


def stages(run):
    """Those that have ended."""
    with closing(sqlite3.connect(run / "ledger.sqlite")) as db:
        return [row[0] for row in db.execute("select name from stages where end_ms > 0 order by stage")]


def add(cluster, more):
    cluster.settings["stages"] = cluster.settings["stages"] + copy.deepcopy(more)
    cluster.write_config()


def up(cluster, *what):
    done = gantry("up", *(what or [cluster.config]))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(f"\ngantry: {cluster.run}/report.html\n"), done.stdout
    return done.stdout


def test_the_same_bits_as_at_once(make_cluster):
    at_once = make_cluster(stages=STAGES + MORE)
    up(at_once)
    cluster = make_cluster(stages=copy.deepcopy(STAGES))
    up(cluster)
    assert json.loads((cluster.run / "summary.json").read_text())["policies"]["last"]["episodes"] == 2
    add(cluster, MORE)
    assert "rl2" not in (cluster.run / "report.html").read_text()
    said = up(cluster)
    assert "rl2" in (cluster.run / "report.html").read_text()
    assert ", resumed: " in said and "it goes on further than before: 2 stages are new, from rl2 on" in said, said
    assert weights(cluster.run) == weights(at_once.run) and stages(cluster.run) == stages(at_once.run) == ["demos", "sft", "rl", "eval", "rl2", "eval2"]
    assert json.loads((cluster.run / "summary.json").read_text())["policies"]["last"]["episodes"] == 3
    assert " 0 contradictions" in cluster.history()
    assert '"kind":"extended"' in gantry("history", cluster.run).stdout
    assert "goes on further" not in up(cluster) and "goes on further" not in up(cluster, cluster.run)


def test_no_room_for_the_page(make_cluster):
    """The run is finished all the same: Slurm's workers, for one, go by that."""
    cluster = make_cluster(stages=copy.deepcopy(STAGES[:1]))
    (cluster.run / "report.html").mkdir(parents=True)
    done = gantry("up", cluster.config)
    assert done.returncode == 0 and done.stdout.endswith("the run is finished\n"), done.stdout + done.stderr
    assert "the run's page is not written: " in done.stderr and f"`gantry report {cluster.run}` writes it" in done.stderr, done.stderr


def test_evaluated_in_between(make_cluster):
    """Evaluations keep their places, whoever is killed while stages are added; what `gantry eval` asks later comes behind these."""
    def evaluate(*words):
        done = gantry("eval", cluster.run, "--policies", "last", "--at", "1", "--json", *words)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["policies"]["last"]

    cluster = make_cluster(stages=copy.deepcopy(STAGES))
    up(cluster)
    first = evaluate("--seeds", "100..102")
    assert first["episodes"] == 3 and first["version"] == 3
    # another first stage is refused, and nothing of the run is touched by it
    listed = (cluster.run / "evals.yaml").read_bytes()
    cluster.settings["stages"][2]["rl"]["iterations"] = 5
    cluster.write_config()
    refused = gantry("up", cluster.config)
    assert refused.returncode == 1 and "stages[2].rl.iterations is 2 there and 5 here" in refused.stderr, refused.stderr
    assert "to go on further than the run went, put stages behind its last" in refused.stderr
    assert (cluster.run / "evals.yaml").read_bytes() == listed
    cluster.settings["stages"][2]["rl"]["iterations"] = 2
    # killed before the ledger knows of the stages, and after
    add(cluster, MORE)
    cluster.faults["coordinator-0"] = "ledger.commit=abort@3"
    cluster.start()
    cluster.until(lambda s: s and s["stage"] == "rl2" and s["episodes"]["journaled"] >= 1, "an episode of the new stage")
    assert not cluster.unfired(["ledger.commit"])
    for role in ("coordinator", "learner"):
        cluster.of(role)[0].kill()
    cluster.until_finished()
    assert stages(cluster.run) == ["demos", "sft", "rl", "eval", "later1", "rl2", "eval2"]
    summary = json.loads((cluster.run / "summary.json").read_text())
    assert summary["policies"]["last"]["episodes"] == 3 and summary["policies"]["last"]["version"] == 5
    # the same question again is one about another policy
    again = evaluate("--seeds", "100..102")
    assert again["episodes"] == 3 and again["version"] == 5 and stages(cluster.run)[-1] == "later2"
    # and further once more, by what the run recorded at its beginning
    add(cluster, [{"sft": {"steps": 2, "batch": 8, "warmup": 1}}])
    assert "1 stage is new, from sft2 on" in up(cluster)
    assert stages(cluster.run) == ["demos", "sft", "rl", "eval", "later1", "rl2", "eval2", "later2", "sft2"]
    assert "goes on further" not in up(cluster, cluster.run)
    assert json.loads((cluster.run / "summary.json").read_text())["policies"]["last"]["version"] == 5      # the run's own last eval
    assert " 0 contradictions" in cluster.history()
