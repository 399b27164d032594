"""gantry runs: a directory's runs in one table, whatever state each is in."""
import json
import os
import shutil

from conftest import gantry

STAGES = [
    {"demos": {"episodes": 4, "style": "clean"}},
    {"sft": {"steps": 2, "batch": 8, "warmup": 1}},
    {"eval": {"episodes": 2, "policies": ["sft", "last"], "at": [1, 1]}},
]


def test_runs(make_cluster):
    cluster = make_cluster(stages=STAGES)

    def listed():
        done = gantry("runs", "--json", cluster.root)
        assert done.returncode == 0 and not done.stderr, done.stderr
        return {os.path.basename(row["dir"]): row for row in json.loads(done.stdout)}

    empty = gantry("runs", cluster.root)
    assert empty.returncode == 1 and f"{cluster.root}: there are no runs in it" in empty.stderr and listed() == {}, empty.stderr
    cluster.start()
    cluster.until(lambda s: s and s["stage"] == "demos", "the first stage")
    row = listed()["run"]
    assert row["state"] == "running" and row["text"].endswith("of 3") and row["success_after"] is None, row
    cluster.until(lambda s: s and s["stage"] == "sft" or s and s["stage"] == "eval", "imitation")
    cluster.drain()
    row = listed()["run"]
    assert row["state"] == "down" and row["text"] in ("down in sft, 1 of 3 stages are done", "down in eval, 2 of 3 stages are done"), row

    # one that has not begun, one that cannot be read, and what is no run
    others = [cluster.root / name for name in ("not [yet] begun", "broken", "no run", "two\nlines")]
    for other in others:
        other.mkdir()
    shutil.copy(cluster.run / "config.yaml", others[0])
    (others[1] / "config.yaml").write_text("run: {name: [}\n")
    shutil.copy(cluster.run / "config.yaml", others[3])
    (others[3] / "summary.json").write_text('{"success_before": 1e308, "success_after": -1}')
    rows = listed()
    assert set(rows) == {"run", "not [yet] begun", "broken", "two\nlines"}
    assert rows["two\nlines"]["success_before"] is None and rows["two\nlines"]["success_after"] is None
    assert (rows["not [yet] begun"]["state"], rows["broken"]["state"]) == ("new", "unknown")
    assert rows["broken"]["text"].startswith(f"{others[1]}/config.yaml:1:"), rows["broken"]

    for role in ("coordinator", "learner", "actor", "prm-server", "env-worker"):
        for process in cluster.of(role):
            process.popen.wait(60)      # it has been drained, too, and may still be at it
            process.start()
    summary = cluster.until_finished()
    row = listed()["run"]
    assert row["state"] == "finished" and row["success_after"] == summary["success_after"] is not None
    table = gantry("runs", cluster.root).stdout.splitlines()
    assert table[0].split() == ["run", "changed", "imitation", "last", "state"]
    assert table[1].startswith(str(cluster.run)) and table[1].endswith("finished") and len(table) == 5, table     # the newest first
    assert any(line.startswith(f"{cluster.root}/two?lines ") for line in table), table
    assert gantry("runs", cluster.run).stdout.splitlines()[1].startswith(f"{cluster.run} ")
    assert "--json" in gantry("runs", "--help").stdout and gantry("runs", "a", "b").returncode == 2
