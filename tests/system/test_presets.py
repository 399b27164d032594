"""The presets gantry, writeup and paper, and the choices that none of them makes, through the real daemons on two tiny runs."""
import json
import sqlite3

from conftest import gantry

START = [{"demos": {"episodes": 4, "style": "clean"}}, {"sft": {"steps": 2, "batch": 8, "warmup": 1}}, {"rollouts": {"episodes": 20}},
         {"prm": {"steps": 3, "batch": 8, "holdout": 0.3, "force": True}}]
SMALL = {"iterations": 2, "episodes": 4, "eval_every": 0, "critic_warmup": 0}


def metrics(cluster, stage):
    """Of the policy versions that a stage made, in order."""
    with sqlite3.connect(cluster.run / "ledger.sqlite") as db:
        return [json.loads(m) for (m,) in db.execute("select metrics from versions where kind = 0 and stage = ? order by number", (stage,))]


def check(made, n=2):
    assert len(made) == n
    for m in made:
        assert m["logp_gap_tokens"] > 0 and m["logp_gap_max"] < 1e-5 and m["skipped_updates"] == 0 and m["updates"] > 0, m


def test_gantry_writeup_and_others(make_cluster):
    mixed = {"name": "mixed", "preset": "tabletop", "reward": "delta", "w_env": 0.5, "timeout": "bootstrap", "ratio": "token", "clip_high": 0.28,
             "clip_dual": 3, "kl": "k1_reward", "value_clip": 0.5, "value_huber": 1, "entropy_coef": 0.001, "loss_mean": "episode"}
    none = {"name": "none", "preset": "tabletop", "reward": "env", "critic": "none", "critic_prm": False, "kl": "k2"}
    cluster = make_cluster(stages=[*START, {"rl": {"name": "gantry", "critic_time": True, "critic_prm": True, **SMALL}}, {"rl": {"name": "writeup", "preset": "writeup", **SMALL}},
                                   {"rl": {**mixed, **SMALL}}, {"rl": {**none, **SMALL}}])
    shown = gantry("config", "show", cluster.config)
    assert "reward: raw_literal" in shown.stdout and "kl: k1\n" in shown.stdout and "pays for dawdling" in shown.stderr
    cluster.start()
    cluster.until_finished()
    cluster.history()
    for stage in (4, 5, 6, 7):
        check(metrics(cluster, stage))
    assert all(m["value_loss"] > 0 and m["explained_variance"] != 0 for m in metrics(cluster, 4)[1:])
    assert all(m["value_updates"] == 0 and m["value_loss"] == 0 and m["reward"] > 0 for m in metrics(cluster, 5))
    assert metrics(cluster, 6)[0]["ratio_mean"] == 1 and metrics(cluster, 6)[1]["reference_kl"] != 0
    with sqlite3.connect(cluster.run / "ledger.sqlite") as db:     # the environment pays its own success, and success pays once more
        assert all(reward == 2 * success for reward, success in db.execute("select reward, success from episodes where stage = 7"))


def test_paper(make_cluster):
    cluster = make_cluster({"policy": {}}, stages=[*START, {"rl": {"preset": "paper", **SMALL}}])
    del cluster.settings["policy"]["train"]
    cluster.write_config()
    cluster.start()
    cluster.until_finished()
    cluster.history()
    config = (cluster.run / "config.yaml").read_text()
    for line in ("train: lora", "support: full", "eos_in_logp: true", "lora_r: 32", "lora_alpha: 16", "temperature: 1.5", "minibatch: 16", "curriculum: frontier\n"):
        assert line in config, line
    check(metrics(cluster, 4))
    assert json.loads((cluster.run / "policies" / "v000003" / "adapter_config.json").read_text())["r"] == 32
