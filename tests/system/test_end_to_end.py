"""A whole run: demonstrations, imitation, rollouts, reward model, reinforcement learning, verdict."""
import json
import sqlite3


def test_tiny_run(cluster):
    cluster.start()
    summary = cluster.until_finished()
    text = cluster.history()
    assert summary["run"] == "tiny"
    for key in ("success_before", "success_after", "eval_episodes", "iterations", "seed", "build"):
        assert key in summary, f"summary.json lacks {key}: {json.dumps(summary)[:600]}"
    assert summary["iterations"] == 3
    assert sorted(p.name for p in (cluster.run / "policies").iterdir())[-1] == "v000004"       # 0, sft, three of rl
    assert (cluster.run / "prms" / "v000001").is_dir()
    assert " 0 open" in text and " 0 failed" in text and " 0 contradictions" in text, text
    with sqlite3.connect(cluster.run / "ledger.sqlite") as db:
        ended = dict(db.execute("select state, count(*) from episodes group by state"))
        scored = db.execute("select count(*) from episodes where stage = 4 and purpose = 3 and prm_version != 1").fetchone()[0]
    assert ended["trained"] + ended.get("filtered", 0) == 3 * 4 and ended["kept"] == 6 + 20, ended
    assert summary["episodes"]["trained"] == ended["trained"]
    assert scored == 0      # every episode of rl was scored by the one reward model there is


def test_goes_on_where_it_stopped(make_cluster):
    """TERM to everybody in the middle, then start again on the same directory: the run ends as if nothing had been."""
    cluster = make_cluster()
    cluster.start()
    cluster.until_stage("rollouts")
    for p in cluster.processes:
        p.wanted = False
    for p in sorted(cluster.processes, key=lambda p: p.role == "coordinator"):      # it leaves last
        p.popen.terminate()
    for p in cluster.processes:
        assert p.popen.wait(60) == 0, f"{p.name} left with {p.popen.returncode}\n{cluster.logs()}"
    cluster.processes.clear()
    cluster.start()
    cluster.until_finished()
    cluster.history()
