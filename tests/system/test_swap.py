"""The reward model is swapped ten times while episodes are played and scored: no score fails, one version per episode."""
import sqlite3

from conftest import TINY, admin, gantry


def test_prm_swapped_under_load(make_cluster):
    stages = [s for s in TINY["stages"] if "eval" not in s]
    prm = next(s for s in stages if "prm" in s)
    stages = stages[:-1] + [{"prm": dict(prm["prm"], name="prm2")},
                            {"rl": {"iterations": 11, "episodes": 4, "preset": "tabletop", "eval_every": 0, "critic_warmup": 1}}]
    cluster = make_cluster(stages=stages)
    cluster.start()
    for n in range(10):
        cluster.until(lambda s: s and (s["stage"] == "rl" and s["iteration"] >= n or s["state"] == "finished"), f"rl iteration {n}")
        assert "scored by" in admin(cluster.run / "sock" / "status.sock", f"prm swap {1 + n % 2}")
    cluster.until_finished()
    assert [p.starts for p in cluster.processes] == [1] * 5, cluster.logs()
    assert " 0 failed" in cluster.history()
    with sqlite3.connect(cluster.run / "ledger.sqlite") as db:
        used = dict(db.execute("select prm_version, count(*) from episodes where stage = 5 and purpose = 3 group by prm_version"))
        broken = db.execute("select count(*) from events where kind like '%fail%' or kind like '%return%'").fetchone()[0]
        per_iteration = db.execute("select max(n) from (select count(distinct prm_version) as n from episodes where stage = 5 "
                                   "and purpose = 3 group by iteration)").fetchone()[0]
    assert set(used) == {1, 2} and sum(used.values()) == 11 * 4, used
    assert broken == 0 and per_iteration == 1


def test_swap_at_an_iteration_and_back(make_cluster):
    """--at waits for its iteration, also over kill -9 of the coordinator; rollback goes to the one before."""
    stages = [s for s in TINY["stages"] if "eval" not in s]
    prm = next(s for s in stages if "prm" in s)
    stages = stages[:-1] + [{"prm": dict(prm["prm"], name="prm2")},
                            {"rl": {"iterations": 8, "episodes": 4, "preset": "tabletop", "eval_every": 0, "critic_warmup": 0}}]
    cluster = make_cluster(stages=stages)
    cluster.start()
    cluster.until(lambda s: s and s["stage"] == "rl", "rl")
    at = cluster.status()["iteration"] + 2
    r = gantry("prm", "swap", cluster.run, "1", "--at", at)
    assert r.returncode == 0 and f"from iteration {at} of this stage on" in r.stdout, r.stdout + r.stderr
    cluster.of("coordinator")[0].kill()
    cluster.until(lambda s: s and (s["iteration"] >= at + 1 or s["state"] == "finished"), "the swap's iteration to be over")
    gantry("prm", "rollback", cluster.run)
    cluster.until_finished()
    with sqlite3.connect(cluster.run / "ledger.sqlite") as db:
        used = dict(db.execute("select iteration, max(prm_version) from episodes where stage = 5 and purpose = 3 group by iteration"))
    assert {used[i] for i in used if i < at} == {2} and used[at] == 1, used
    assert " 0 failed" in cluster.history()
