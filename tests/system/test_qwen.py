"""prm.init names a Qwen-VL directory: its head is trained, served beside a swap, and its scores enter the run's trajectories."""
import json
import sqlite3

from conftest import TINY, TOP, admin

NANO = TOP / "tests" / "golden" / "nano_qwen"


def test_backbone_is_trained_served_and_swapped(make_cluster):
    prm = next(s for s in TINY["stages"] if "prm" in s)
    stages = [s for s in TINY["stages"] if "eval" not in s and "rl" not in s]
    stages += [{"prm": dict(prm["prm"], name="prm2")},
               {"rl": {"iterations": 3, "episodes": 4, "preset": "tabletop", "eval_every": 0, "critic_warmup": 1}}]
    cluster = make_cluster({"prm": {"init": str(NANO), "history": 2}}, stages=stages)
    cluster.start()
    cluster.until(lambda s: s and (s["stage"] == "rl" and s["iteration"] >= 1 or s["state"] == "finished"), "rl iteration 1")
    assert "scored by" in admin(cluster.run / "sock" / "status.sock", "prm swap 1")
    cluster.until_finished()
    assert [p.starts for p in cluster.processes] == [1] * 5, cluster.logs()
    assert " 0 failed" in cluster.history()
    version = cluster.run / "prms" / "v000002"
    assert json.loads((version / "reward_config.json").read_text()) == {"history": 2}
    backbone = (version / "model.safetensors").read_bytes()
    assert backbone == (cluster.run / "prms" / "v000001" / "model.safetensors").read_bytes()        # frozen, to the byte
    heads = [(cluster.run / "prms" / f"v00000{n}" / "reward_head.safetensors").read_bytes() for n in (1, 2)]
    assert heads[0] != heads[1]
    with sqlite3.connect(cluster.run / "ledger.sqlite") as db:
        scored = db.execute("select count(*) from episodes where stage = 5 and purpose = 3 and prm_version > 0").fetchone()[0]
        broken = db.execute("select count(*) from events where kind like '%fail%' or kind like '%return%'").fetchone()[0]
    assert scored == 3 * 4 and broken == 0
