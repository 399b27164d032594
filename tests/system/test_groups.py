"""Advantages by groups (GRPO, RLOO) through the real daemons: groups share a state, those without spread are refilled and filtered."""
import json
import sqlite3

from conftest import gantry

GROUP, EPISODES, ROUNDS = 4, 8, 2


def rl(advantage):
    return {"rl": {"name": advantage, "iterations": 2, "episodes": EPISODES, "preset": "grpo", "advantage": advantage, "group": GROUP,
                   "dynamic_sampling": ROUNDS, "eval_every": 0}}


def iterations(db, stage):
    """Per iteration its groups: (task, state) -> [(success, end, tag)]."""
    found = {}
    for iteration, task, state, success, end, tag in db.execute(
            "select iteration, task, state_seed, success, state, tag from episodes where stage = ? order by episode", (stage,)):
        found.setdefault(iteration, {}).setdefault((task, state), []).append((success, end, tag))
    return found


def test_group_and_rloo(make_cluster):
    cluster = make_cluster(stages=[{"demos": {"episodes": 4, "style": "clean"}}, {"sft": {"steps": 2, "batch": 8, "warmup": 1}},
                                   rl("group"), rl("rloo")])
    cluster.start()
    summary = cluster.until_finished()
    cluster.history()
    assert summary["iterations"] == 4 and summary["episodes"]["failed"] == 0
    with sqlite3.connect(cluster.run / "ledger.sqlite") as db:
        versions = [json.loads(m) for (m,) in db.execute("select metrics from versions where kind = 0 and number > 1 order by number")]
        for stage in (2, 3):
            for groups in iterations(db, stage).values():
                spread = {key: len({success for success, _, _ in rows}) > 1 for key, rows in groups.items()}
                assert all(len(rows) == GROUP for rows in groups.values()), groups
                for key, rows in groups.items():        # a group that taught something was trained on, any other was filtered
                    assert {end for _, end, _ in rows} == {"trained" if spread[key] else "filtered"}, (key, rows)
                rounds = max((int(tag.split()[1]) for rows in groups.values() for _, _, tag in rows if tag), default=0)
                assert sum(spread.values()) == EPISODES // GROUP or rounds == ROUNDS, groups
                assert sum(spread.values()) <= EPISODES // GROUP or rounds == 0, groups
    assert len(versions) == 4
    for m in versions:
        assert m["logp_gap_max"] < 1e-5 and m["skipped_updates"] == 0, m
        assert m["updates"] > 0 or m["filtered"] == m["episodes"], m
    assert gantry("report", cluster.run).returncode == 0       # neither a critic nor a reference was there to be drawn
    page = (cluster.run / "report.html").read_text()
    assert ">from the policy that acted<" in page and ">from the start policy<" not in page and ">value head<" not in page
    assert any(m["updates"] > 0 for m in versions), "no group of the whole run had spread: nothing was tested"
