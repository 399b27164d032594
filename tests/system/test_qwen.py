"""prm.init names a Qwen-VL directory: its head is trained, served beside a swap, and its scores enter the run's trajectories."""
import hashlib
import json
import sqlite3

from conftest import TINY, TOP, admin, gantry

NANO = TOP / "tests" / "golden" / "nano_qwen"


def test_backbone_is_trained_served_and_swapped(make_cluster, tmp_path):
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
    prms = cluster.run / "prms"
    assert (prms / "v000000" / "model.safetensors").read_bytes() == (NANO / "model.safetensors").read_bytes()      # once a run
    assert not (version / "model.safetensors").exists() and not (version / "config.json").exists()
    for v in ("v000001", "v000002"):            # what was trained, and what it was trained on
        assert json.loads((prms / v / "base.json").read_text()) == {
            "base": "../v000000", "manifest_sha256": hashlib.sha256((prms / "v000000" / "manifest.json").read_bytes()).hexdigest()}
    exported = gantry("model", "export", f"{cluster.run}:prm2", tmp_path / "prm")
    assert exported.returncode == 0, exported.stderr
    assert (tmp_path / "prm" / "model.safetensors").read_bytes() == (NANO / "model.safetensors").read_bytes()
    assert (tmp_path / "prm" / "reward_head.safetensors").read_bytes() == (version / "reward_head.safetensors").read_bytes()
    for verb in ("verify", "inspect"):
        looked = gantry("model", verb, version)
        assert looked.returncode == 0, looked.stdout + looked.stderr
    heads = [(cluster.run / "prms" / f"v00000{n}" / "reward_head.safetensors").read_bytes() for n in (1, 2)]
    assert heads[0] != heads[1]
    with sqlite3.connect(cluster.run / "ledger.sqlite") as db:
        scored = db.execute("select count(*) from episodes where stage = 5 and purpose = 3 and prm_version > 0").fetchone()[0]
        broken = db.execute("select count(*) from events where kind like '%fail%' or kind like '%return%'").fetchone()[0]
    assert scored == 3 * 4 and broken == 0
