"""The reward model is swapped ten times while episodes are played and scored: no score fails, one version per episode."""
import signal
import sqlite3

from conftest import TINY, admin, gantry


def two_reward_models(iterations=1000, critic_warmup=0):
    """The tiny run's stages up to its rl, with a second prm stage before that, and no evaluation after it."""
    stages = [s for s in TINY["stages"] if "eval" not in s]
    prm = next(s for s in stages if "prm" in s)
    rl = {"iterations": iterations, "episodes": 4, "preset": "tabletop", "eval_every": 0, "critic_warmup": critic_warmup}
    return stages[:-1] + [{"prm": dict(prm["prm"], name="prm2")}, {"rl": rl}]


def test_prm_swapped_under_load(make_cluster):
    cluster = make_cluster(stages=two_reward_models(iterations=11, critic_warmup=1))
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
    cluster = make_cluster(stages=two_reward_models())
    cluster.start()
    cluster.until(lambda s: s and s["stage"] == "rl", "rl")
    assert gantry("cordon", cluster.run, "env-worker-0").returncode == 0        # one more iteration begins at the most
    open_now = cluster.until(lambda s: s and s["title"].startswith("rl ") and s, "an iteration to be open")     # none is between two
    now = int(open_now["title"].split()[1])             # "rl 3 of 1000"
    for n, says in ((now, f"iteration {now} has begun"), (0, "1 to 1000"), (1001, "1 to 1000")):
        r = gantry("prm", "swap", cluster.run, "1", "--at", n)
        assert r.returncode == 1 and says in r.stderr, r.stdout + r.stderr
    assert gantry("prm", "swap", cluster.run, "2", "--at", now + 3).returncode == 0
    r = gantry("prm", "swap", cluster.run, "1", "--at", now + 2)
    assert "; version 2 is not waited for any more" in r.stdout, r.stdout + r.stderr
    assert r.returncode == 0 and f"from iteration {now + 2} of this stage on" in r.stdout, r.stdout + r.stderr
    at = now + 1        # in the ledger they count from 0
    cluster.of("coordinator")[0].kill()
    cluster.until(lambda s: s and any(m["name"] == "env-worker-0" for m in s["members"]), "the coordinator's next life")
    gantry("cordon", "--undo", cluster.run, "env-worker-0")
    cluster.until(lambda s: s and s["iteration"] >= at + 1, "the swap's iteration to be over")
    assert gantry("prm", "rollback", cluster.run).returncode == 0
    cluster.drain()
    with sqlite3.connect(cluster.run / "ledger.sqlite") as db:
        used = dict(db.execute("select iteration, max(prm_version) from episodes where stage = 5 and purpose = 3 group by iteration"))
    assert {used[i] for i in used if i < at} == {2} and used[at] == 1, used
    assert " 0 failed" in cluster.history()
    assert gantry("report", cluster.run).returncode == 0
    page = (cluster.run / "report.html").read_text()
    assert f"Iterations scored: 1 to {at} by version 2, {at + 1} to " in page, page[page.index("The reward model"):][:400]


def trials(cluster):
    with sqlite3.connect(cluster.run / "ledger.sqlite") as db:
        return [text for text, in db.execute("select text from events where kind = 'prm_shadow' order by 1")]


def test_shadow_decides(make_cluster):
    """On trial beside the one in use, over kill -9 of the coordinator and the server: figures in status and history, then what the bar says."""
    cluster = make_cluster(stages=two_reward_models())
    cluster.start()
    cluster.until(lambda s: s and s["stage"] == "rl", "rl")
    r = gantry("prm", "swap", cluster.run, "1", "--shadow", "--at", 3)
    assert r.returncode == 2 and "--at and --shadow: either" in r.stderr, r.stderr
    r = gantry("prm", "swap", cluster.run, "1", "--margin", 0.1)
    assert r.returncode == 2 and "are of a trial: --shadow" in r.stderr, r.stderr
    r = gantry("prm", "swap", cluster.run, "2", "--shadow")
    assert r.returncode == 1 and "in use" in r.stderr, r.stderr
    r = gantry("prm", "swap", cluster.run, "1", "--shadow", "--episodes", 12, "--rank", 1, "--margin", 0)     # scores of another model never agree wholly
    assert r.returncode == 0 and "on trial" in r.stdout, r.stdout + r.stderr
    cluster.until(lambda s: s and s.get("prm_shadow", {}).get("episodes", 0) >= 2, "two episodes to be scored by both")
    cluster.of("prm-server")[0].kill(signal.SIGSTOP)        # nothing is scored while we look
    assert "on trial: reward model version 1 beside 2" in gantry("status", cluster.run).stdout
    cluster.of("coordinator")[0].kill()
    cluster.of("prm-server")[0].kill()
    last = cluster.until(lambda s: s and s.get("prm_shadow_last"), "the first verdict")
    assert last["version"] == 1 and last["against"] == 2 and last["episodes"] == 12 and last["frames"] > 12, last
    assert -1 <= last["rank_correlation"] <= 1 and 0 < last["mean_difference"] < 1, last
    passed = last["rank_correlation"] >= 1 if last["auc"] is None else last["auc"] >= last["auc_against"]       # which episodes were judged is chance
    assert last["verdict"] == ("takes over" if passed else "does not take over"), last
    used, other = (1, 2) if passed else (2, 1)
    cluster.until(lambda s: s and s["prm_version"] == used, "what the verdict says")
    assert gantry("prm", "swap", cluster.run, other, "--shadow", "--episodes", 4, "--rank", -1, "--margin", 1).returncode == 0
    cluster.until(lambda s: s and s["prm_version"] == other, "the second verdict")
    assert gantry("prm", "swap", cluster.run, used, "--shadow").returncode == 0
    assert gantry("prm", "rollback", cluster.run).returncode == 0       # the trial alone
    assert "prm_shadow" not in cluster.status() and cluster.status()["prm_version"] == other
    at = cluster.status()["iteration"]
    cluster.until(lambda s: s and s["iteration"] >= at + 2, "an iteration scored by the one that took over")
    cluster.drain()
    said = trials(cluster)
    assert sum("does not take over" in s for s in said) == (not passed) and sum("scores new episodes" in s for s in said) == 1 + passed, said
    assert sum("given up" in s for s in said) == 1, said
    with sqlite3.connect(cluster.run / "ledger.sqlite") as db:
        per_iteration = db.execute("select max(n) from (select count(distinct prm_version) as n from episodes where stage = 5 "
                                   "and purpose = 3 group by iteration)").fetchone()[0]
        used = {v for v, in db.execute("select distinct prm_version from episodes where stage = 5 and purpose = 3")}
    assert per_iteration == 1 and used == {1, 2}
    assert " 0 failed" in cluster.history()
