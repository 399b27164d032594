"""The reward model is trained again inside rl, on milestone labels; later episodes are scored by the new version; the report shows it."""
import json
import sqlite3

from conftest import gantry


def test_refresh(make_cluster):
    cluster = make_cluster(stages=[
        {"rollouts": {"episodes": 20}}, {"prm": {"steps": 3, "batch": 8, "holdout": 0.3, "force": True, "labels": "milestone"}},
        {"rl": {"iterations": 3, "episodes": 4, "preset": "tabletop", "eval_every": 0, "critic_warmup": 0, "prm_refresh": 1, "on_hack": "refresh"}}])
    cluster.start()
    cluster.until_finished()
    cluster.history()
    with sqlite3.connect(cluster.run / "ledger.sqlite") as db:
        scored = db.execute("select iteration, min(prm_version), max(prm_version) from episodes where stage = 2 group by iteration order by 1").fetchall()
        versions = [json.loads(m) for (m,) in db.execute("select metrics from versions where kind = 1 order by number")]
    assert scored == [(0, 1, 1), (2, 2, 2), (4, 3, 3)]          # between them the refreshes
    assert len(versions) == 3
    for m in versions:
        for who in ("prm", "blind", "clock"):
            assert all(f"{who}_{what}" in m for what in ("bce", "calibration", "auc_25", "auc_50", "auc_75", "auc_last", "time_correlation")), m
        assert m["clock_time_correlation"] in (0, 1) and m["prm_bce"] > 0
    assert gantry("report", cluster.run).returncode == 0
    page = (cluster.run / "report.html").read_text()
    assert "<h2>The reward model</h2>" in page and "Version 3" in page and ": scores of version" in page
