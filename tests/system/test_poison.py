"""An episode that crashes its worker every time: played alone, retired after three tries, replaced; the run goes on."""
import json
import os
import sqlite3

import pytest

DEMOS = [{"demos": {"episodes": 40, "style": "clean"}}]
POISON = "sim.reset.7=crash@1+"         # whoever resets a simulation to train state 7


def check(cluster, summary):
    assert summary["episodes"]["failed"] == 1 and summary["episodes"]["kept"] == 40, json.dumps(summary["episodes"])
    with sqlite3.connect(cluster.run / "ledger.sqlite") as db:
        rows = db.execute("select state_seed, state, failures, reason from episodes where state = 'failed'").fetchall()
        replaced = db.execute("select count(*) from episodes where replaces != 0").fetchone()[0]
    assert len(rows) == 1 and rows[0][0] == 7 and rows[0][2] == 3, rows
    assert replaced == 1
    cluster.history()
    return rows[0][3]


def test_seen_by_the_supervisor(make_cluster):
    """`gantry up` sees the worker end and tells the coordinator at once."""
    cluster = make_cluster({"cluster": {"slots": 2}}, stages=DEMOS)
    os.environ["GANTRY_FAULTS"] = POISON
    try:
        cluster.up()
    finally:
        del os.environ["GANTRY_FAULTS"]
    assert "signal 6" in check(cluster, cluster.until_finished())


def test_without_a_supervisor(make_cluster):
    """Nobody tells: the worker is lost while it plays the episode alone, and does not come back."""
    cluster = make_cluster({"cluster": {"slots": 2}, "timing": {"lease_ttl_ms": 3500, "first_step_ms": 3500}}, stages=DEMOS)
    cluster.always["env-worker-0"] = POISON
    cluster.start()
    assert "lost while it played this alone" in check(cluster, cluster.until_finished())
