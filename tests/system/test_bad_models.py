"""Models that do not fit a run, or are damaged: said before anything starts, by name and with the remedy."""
import json
import math
import shutil
import struct
import subprocess

from conftest import BIN, gantry
from refusals import coordinator, up_refuses


def test_missing_checkpoint(make_cluster):
    cluster = make_cluster({"policy": {"init": "/nowhere/at/all"}})
    r = coordinator(cluster)
    assert r.returncode != 0
    assert "/nowhere/at/all" in r.stderr, r.stderr
    r = gantry("config", "check", cluster.config)           # may be right on another host
    assert r.returncode == 0 and r.stderr.startswith("warning: policy.init: /nowhere/at/all: not there"), r.stderr


def test_whose_statistics(make_cluster, model, tmp_path):
    """A checkpoint with several data sets' statistics, none of them the suite's: their names, and the key that says which."""
    mine = tmp_path / "mine"
    shutil.copytree(model, mine)
    one = json.loads((mine / "dataset_statistics.json").read_text())["tabletop"]
    (mine / "dataset_statistics.json").write_text(json.dumps({"bridge_orig": one, "fractal": one}))
    up_refuses(make_cluster({"policy": {"init": str(mine)}}), "policy.init: ", "2 data sets (bridge_orig, fractal)", "policy.unnorm_key")
    up_refuses(make_cluster({"policy": {"init": str(mine), "unnorm_key": "bridge"}}), "no statistics of 'bridge'", "of bridge_orig, fractal")
    (mine / "dataset_statistics.json").write_text("{}")
    up_refuses(make_cluster({"policy": {"init": str(mine)}}), "policy.init: ", "has no statistics of any data set")


def test_statistics_that_are_none(make_cluster, model, tmp_path):
    """Quantiles the wrong way round would turn every action round; NaN is no JSON. Said before anything starts."""
    mine = tmp_path / "mine"
    shutil.copytree(model, mine)
    statistics = json.loads((mine / "dataset_statistics.json").read_text())
    action = statistics["tabletop"]["action"]
    for low, high, says in (0.5, -0.5, "number 1 has q01 0.5 and q99 -0.5"), (float("nan"), 1, "dataset_statistics.json"):
        action["q01"][1], action["q99"][1] = low, high
        (mine / "dataset_statistics.json").write_text(json.dumps(statistics))
        up_refuses(make_cluster({"policy": {"init": str(mine)}}), str(mine), "dataset_statistics.json", says)


def test_what_the_policy_looks_at(make_cluster, model, tmp_path):
    """An OpenVLA-OFT policy of two cameras and the robot's state, in a run that sends it neither."""
    oft = tmp_path / "oft"
    assert gantry("model", "oft", model, oft, "--kind", "l1", "--state", "8", "--images", "2", "--width", "32").returncode == 0
    for suite in ({}, {"cameras": 2}, {"state": True}):
        up_refuses(make_cluster({"policy": {"init": str(oft)}, "suite": suite}), "policy.init: ", "looks at 2 pictures and the robot's state",
                   "say cameras: 2, state: true in suite")
    statistics = json.loads((oft / "dataset_statistics.json").read_text())
    statistics[next(iter(statistics))]["proprio"] = {"q01": [-1] * 8, "q99": [1] * 8}
    (oft / "dataset_statistics.json").write_text(json.dumps(statistics))
    cluster = make_cluster({"policy": {"init": str(oft)}, "suite": {"cameras": 2, "state": True}}, stages=[{"rollouts": {"episodes": 1}}])
    up_refuses(cluster, "takes 8 numbers of the robot's state, the suite tabletop has 5", "--state 5")
    cluster = make_cluster({"policy": {"init": str(oft)}, "suite": {"cameras": 3, "state": True}})
    up_refuses(cluster, "suite.cameras: 3 were asked for, suite tabletop has 2")


def test_rl_of_a_head_without_probabilities(make_cluster, model, tmp_path):
    """An OpenVLA-OFT as it is published is refused with the command that makes one which rl takes; that answers the same."""
    oft, drawn = tmp_path / "oft", tmp_path / "drawn"
    assert gantry("model", "oft", model, oft, "--kind", "l1", "--width", "32").returncode == 0
    up_refuses(make_cluster({"policy": {"init": str(oft)}}), "policy.init: ", f"`gantry model oft {oft} NEW --kind laplace`")
    assert "laplace, 8 actions of 7 dims" in gantry("model", "oft", oft, drawn, "--kind", "laplace", "--scale", ".05").stdout
    answers = [json.loads(gantry("model", "act", d, "open the drawer").stdout)["actions"] for d in (oft, drawn)]
    assert answers[0] == answers[1] and len(answers[0]) == 8 and any(answers[0][7])
    assert "it is an OpenVLA-OFT already" in gantry("model", "oft", drawn, tmp_path / "again", "--kind", "laplace").stderr


def test_a_critic_of_other_inputs(make_cluster, model, tmp_path):
    """A policy that reinforcement learning has left, in a run whose critic is shown other numbers: not after an iteration's episodes."""
    learnt = tmp_path / "learnt"
    shutil.copytree(model, learnt)
    width = json.loads((model / "config.json").read_text())["text_config"]["hidden_size"]
    header, at = {}, 0
    for name, shape in ("fc1.weight", [8, width + 2]), ("fc1.bias", [8]), ("fc2.weight", [1, 8]), ("fc2.bias", [1]):
        n = 4 * math.prod(shape)
        header[f"value_head.{name}"] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + n]}
        at += n
    text = json.dumps(header).encode()
    (learnt / "value_head.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(at))
    rl = {"preset": "tabletop", "reward": "sparse", "critic_prm": False, "iterations": 1, "episodes": 4, "critic_warmup": 0, "eval_every": 0}
    up_refuses(make_cluster({"policy": {"init": str(learnt)}}, stages=[{"rl": rl}]), f"stages[0].rl: the critic of policy.init {learnt}",
               "takes 2 numbers", "critic_time and critic_prm make 1", "remove the file")


def test_weights_that_bf16_has_not(make_cluster, model, tmp_path):
    up_refuses(make_cluster({"policy": {"init": str(model), "weights": "bf16"}}), "policy.weights is bf16", "values that bf16 has not",
               f"`gantry model convert {model} NEW --dtype bf16` rounds them")
    # what lies beside a checkpoint is asked, too, and rounded by the same command
    assert gantry("model", "convert", model, tmp_path / "rounded", "--dtype", "bf16").returncode == 0
    oft = tmp_path / "oft"
    assert gantry("model", "oft", tmp_path / "rounded", oft, "--kind", "laplace", "--chunk", 3, "--width", 32).returncode == 0
    up_refuses(make_cluster({"policy": {"init": str(oft), "weights": "bf16"}}), "values that bf16 has not (", f"convert {oft} NEW")
    assert gantry("model", "convert", oft, tmp_path / "all", "--dtype", "bf16").returncode == 0
    cluster = make_cluster({"policy": {"init": str(tmp_path / "all"), "weights": "bf16"}},
                           stages=[{"demos": {"episodes": 3, "style": "clean"}}, {"sft": {"steps": 3, "batch": 8, "commit_every": 1}}])
    cluster.start()
    cluster.until_finished()
    cluster.history()


def test_a_model_that_came_with_gantry(tmp_path):
    """It is found from any directory, also by who looks at the configuration."""
    config = subprocess.run([BIN / "gantry", "demo", "--config"], capture_output=True, text=True, check=True).stdout
    (tmp_path / "run.yaml").write_text(config)
    r = subprocess.run([BIN / "gantry", "config", "check", "run.yaml"], capture_output=True, text=True, cwd=tmp_path)
    assert r.returncode == 0 and r.stderr == "", r.stderr
    r = subprocess.run([BIN / "gantry", "deploy", "systemd", "--config", "run.yaml"], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert f"init: {BIN.resolve().parent}/models/tiny\n" in r.stdout and str(tmp_path) not in r.stdout, r.stdout
    (tmp_path / "run.yaml").write_text(config.replace("dir: runs/demo", f"dir: runs/{'d' * 60}"))
    r = subprocess.run([BIN / "gantry", "deploy", "systemd", "--config", "run.yaml"], capture_output=True, text=True, cwd=tmp_path)
    assert r.returncode == 1 and "units need one of at most 54 for their sockets" in r.stderr, r.stdout + r.stderr


def test_truncated_checkpoint(make_cluster, model, tmp_path):
    """A shard cut short is refused where it is loaded, with its name."""
    broken = tmp_path / "broken"
    broken.mkdir()
    for f in model.iterdir():
        data = f.read_bytes()
        (broken / f.name).write_bytes(data[: len(data) // 2] if f.suffix == ".safetensors" else data)
    r = gantry("model", "inspect", broken)
    assert r.returncode != 0 and "safetensors" in r.stderr, r.stderr


def test_model_of_another_suite(make_cluster, model, tmp_path):
    """Six numbers an action, or pictures of another size: said before anything starts."""
    other = tmp_path / "six"
    shutil.copytree(model, other)
    stats = json.loads((other / "dataset_statistics.json").read_text())
    for rows in stats["tabletop"].values():
        for key in rows if isinstance(rows, dict) else ():
            rows[key] = rows[key][:6]
    (other / "dataset_statistics.json").write_text(json.dumps(stats))
    for changes, says in (({"policy": {"init": str(other)}}, "its actions have 6 dimensions, the suite tabletop takes 7"),
                          ({"suite": {"image": 32}}, "looks at pictures of 64x64, suite.image is 32")):
        done = gantry("up", make_cluster(changes).config)
        assert done.returncode != 0 and says in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_reward_model_of_another_suite_or_kind(make_cluster, model, tmp_path):
    """prm.init: trained on other pictures, or no backbone that is known: said before anything starts."""
    for name, changes, says in (
            ("chain", {"gantry_image_chain": "rot180+jpeg95+lanczos3"},
             "was trained on pictures of the chain rot180+jpeg95+lanczos3, suite.chain is render"),
            ("kind", {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, "found LlamaForCausalLM")):
        other = tmp_path / name
        shutil.copytree(model, other)
        config = json.loads((other / "config.json").read_text())
        (other / "config.json").write_text(json.dumps(config | changes))
        done = gantry("up", make_cluster({"prm": {"init": str(other)}}).config)
        assert done.returncode != 0 and "prm.init" in done.stderr and says in done.stderr, done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
