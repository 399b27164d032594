"""Filtered imitation through the real daemons: the policy imitates its own episodes, chosen by the reward model alone or by the simulator."""
import json
import sqlite3


def test_filtered_imitation(make_cluster):
    cluster = make_cluster(stages=[
        {"demos": {"episodes": 4, "style": "clean"}}, {"sft": {"steps": 2, "batch": 8, "warmup": 1}}, {"rollouts": {"episodes": 20}},
        {"prm": {"steps": 3, "batch": 8, "holdout": 0.3, "force": True}},
        {"rollouts": {"name": "scored", "episodes": 8, "score": True}},
        {"sft": {"name": "by_prm", "steps": 2, "batch": 8, "from": "rollouts", "choose": "score", "least_score": 0.05}},
        {"rollouts": {"name": "plain", "episodes": 12}},
        {"sft": {"name": "by_simulator", "steps": 2, "batch": 8, "from": "both", "choose": "success"}},
        {"eval": {"episodes": 2, "policies": ["sft", "last"], "temperatures": [1.0], "val_episodes": 2}}])
    cluster.start()
    summary = cluster.until_finished()
    cluster.history()
    with sqlite3.connect(cluster.run / "ledger.sqlite") as db:
        rows = {stage: db.execute("select success, progress_end, prm_version from episodes where stage = ?", (stage,)).fetchall()
                for stage in (4, 6)}
        versions = [json.loads(m) for (m,) in db.execute("select metrics from versions where kind = 0 and number > 0 order by number")]
    assert all(prm == 1 for _, _, prm in rows[4]) and all(prm == 0 for _, _, prm in rows[6])
    by_prm, by_simulator = versions[1:]
    assert by_prm["rollouts_offered"] == 8 and by_prm["rollouts_chosen"] == sum(end >= 0.05 for _, end, _ in rows[4]) > 0
    assert by_simulator["rollouts_offered"] == 12
    assert by_simulator["rollouts_chosen"] == by_simulator["rollouts_chosen_successes"] == sum(success for success, _, _ in rows[6])
    assert summary["policies"]["sft"]["version"] == 1 and summary["policies"]["last"]["version"] == 3
