"""policy.train: lora and policy.weights: bf16 through the real daemons: trained, served by hot swap, agreed on to the bit, surviving kill -9."""
import hashlib
import json
import os
import struct
import subprocess
import sys

import pytest
from conftest import TOP, gantry

STAGES = [
    {"demos": {"episodes": 4, "style": "clean"}},
    {"sft": {"steps": 4, "batch": 8, "warmup": 1, "commit_every": 2}},
    {"rl": {"iterations": 3, "episodes": 4, "preset": "tabletop", "reward": "sparse", "critic_prm": False, "eval_every": 0,
            "critic_warmup": 1}},
]
LORA = {"policy": {"train": "lora", "lora_r": 4, "lora_alpha": 8}}


def weights(run):
    return {str(f.relative_to(run)): hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(run.glob("policies/*/*.safetensors"))}


def size(path):
    return path.stat().st_size


def tensors(path):
    with open(path, "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
    return set(header) - {"__metadata__"}


def test_run_with_adapters(make_cluster, tmp_path):
    untouched = make_cluster(LORA, stages=STAGES)
    untouched.start()
    untouched.until_finished()
    untouched.history()
    policies = untouched.run / "policies"
    files = {v.name: {f.name for f in v.iterdir()} for v in policies.iterdir()}
    # sft: an adapter on the start, then both in one; rl: adapters on what sft gave
    assert "model.safetensors" in files["v000002"] and "adapter_model.safetensors" not in files["v000002"]
    assert "adapter_model.safetensors" in files["v000005"] and "model.safetensors" not in files["v000005"]
    assert json.loads((policies / "v000005/base.json").read_text())["base"] == "../v000002"
    assert hashlib.sha256((policies / "v000002/manifest.json").read_bytes()).hexdigest() == \
        json.loads((policies / "v000005/base.json").read_text())["manifest_sha256"]
    names = tensors(policies / "v000005/adapter_model.safetensors")
    assert "base_model.model.language_model.model.layers.0.self_attn.q_proj.lora_B.weight" in names
    for version in ("v000004", "v000005"):      # the learner finds the actor's log-probs again, adapters and all
        metrics = json.loads((policies / version / "training.json").read_text())["metrics"]
        assert metrics["logp_gap_max"] == 0, (version, metrics)
    assert metrics["updates"] > 0 and metrics["gradient_norm"] > 0

    killed = make_cluster(LORA, stages=STAGES)
    killed.start()
    killed.until(lambda s: s and s["stage"] == "sft" and s["iteration"] >= 1 or s and s["stage"] == "rl", "imitation under way")
    killed.of("learner")[0].kill()
    killed.until(lambda s: s and s["stage"] == "rl" and s["iteration"] >= 2, "the last iteration")
    killed.of("learner")[0].kill()
    killed.of("actor")[0].kill()
    killed.until_finished()
    killed.history()
    assert weights(killed.run) == weights(untouched.run)
    # what an episode must fit is known of adapters, too (learner/admission.h)
    assert "without asking" not in "".join(log.read_text() for log in killed.root.glob("learner*.log"))

    # the base and the adapter as one directory
    exported = gantry("model", "export", untouched.run, tmp_path / "policy")
    assert exported.returncode == 0, exported.stderr
    assert "model.safetensors" in {f.name for f in (tmp_path / "policy").iterdir()}
    merged = gantry("model", "merge", policies / "v000002", policies / "v000005", tmp_path / "merged")
    assert merged.returncode == 0, merged.stderr
    assert (tmp_path / "merged/model.safetensors").read_bytes() == (tmp_path / "policy/model.safetensors").read_bytes()

    # real PEFT reads it, where there is one: GANTRY_PEFT_PYTHON names a Python that has torch and peft
    python = os.environ.get("GANTRY_PEFT_PYTHON", sys.executable)
    if subprocess.run([python, "-c", "import peft"], capture_output=True).returncode:
        pytest.skip("all but PEFT's own reading was tested: no peft here (GANTRY_PEFT_PYTHON)")
    read = subprocess.run([python, TOP / "tests/ref/peft_load.py", policies / "v000002", policies / "v000005", tmp_path / "merged"],
                          capture_output=True, text=True)
    assert read.returncode == 0, read.stdout + read.stderr


def test_bf16_weights(make_cluster, model, tmp_path):
    converted = gantry("model", "convert", model, tmp_path / "bf16", "--dtype", "BF16")
    assert converted.returncode == 0, converted.stderr
    cluster = make_cluster({"policy": {"init": str(tmp_path / "bf16"), "weights": "bf16"}}, stages=STAGES)
    cluster.start()
    cluster.until(lambda s: s and s["stage"] == "rl" and s["iteration"] >= 1, "rl under way")
    cluster.of("learner")[0].kill()
    cluster.until_finished()
    cluster.history()
    for version in ("v000004", "v000005"):
        metrics = json.loads((cluster.run / "policies" / version / "training.json").read_text())["metrics"]
        assert metrics["logp_gap_max"] == 0, (version, metrics)
    assert size(cluster.run / "policies/v000005/model.safetensors") < 0.51 * size(cluster.run / "policies/v000005/train_state.safetensors")


def peft(path, model, named):
    """An adapter of q_proj in PEFT's form, bf16, that says something."""
    dim = json.loads((model / "config.json").read_text())["text_config"]["hidden_size"]
    layer = "base_model.model.language_model.model.layers.0.self_attn.q_proj.lora_"
    shapes, at, header = {layer + "A.weight": [2, dim], layer + "B.weight": [dim, 2]}, 0, {}
    for name, shape in shapes.items():
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + 4 * dim]}
        at += 4 * dim
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    values = [(-1) ** (i // 7) * (0.05 + i % 5 * 0.02) for i in range(4 * dim)]
    path.mkdir()
    (path / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"".join(struct.pack("<f", v)[2:] for v in values))
    (path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "bias": "none", "target_modules": ["q_proj"],
                                                          "base_model_name_or_path": str(named)}))
    return path


def test_starts_from_an_adapter(make_cluster, model, tmp_path):
    """policy.init is a PEFT directory: trained on by adapters, or merged and trained whole; the first update begins at its reference."""
    adapter = peft(tmp_path / "peft", model, "openvla/openvla-7b")
    first = {}
    for train in ("lora", "full"):
        cluster = make_cluster({"policy": {"init": str(adapter), "base": str(model), "train": train}},
                               stages=[{"rl": dict(STAGES[2]["rl"], iterations=2 if train == "lora" else 1, critic_warmup=0, minibatch=1000)}])
        cluster.start()
        cluster.until_finished()
        cluster.history()
        policies = cluster.run / "policies"
        assert (policies / "v000000/adapter_model.safetensors").exists() == (train == "lora")
        assert (policies / "v000001/model.safetensors").exists() == (train == "full")
        for version in sorted(policies.glob("v*"))[1:]:
            metrics = json.loads((version / "training.json").read_text())["metrics"]
            assert metrics["logp_gap_max"] == 0 and metrics["updates"] == 1, metrics
            assert metrics["reference_kl"] == 0 or version.name != "v000001", metrics
        first[train] = cluster.run
    assert json.loads((first["lora"] / "policies/v000002/base.json").read_text())["base"] == "../v000000"
    merged = gantry("model", "merge", model, adapter, tmp_path / "merged")
    assert merged.returncode == 0, merged.stderr
    for run, version in ((first["full"] / "policies/v000000", None), (first["lora"], "0")):
        if version:                     # base and adapter, which lie side by side
            exported = gantry("model", "export", f"{run}:{version}", tmp_path / "exported")
            assert exported.returncode == 0, exported.stderr
            run = tmp_path / "exported"
        assert (run / "model.safetensors").read_bytes() == (tmp_path / "merged/model.safetensors").read_bytes()


@pytest.mark.parametrize("changes, line", [
    ({"base_model_name_or_path": "elsewhere/base"}, "base_model_name_or_path is elsewhere/base, which is no model directory here"),
    ({"use_dora": True}, "use_dora is true: DoRA is not supported"),
])
def test_refused(make_cluster, model, tmp_path, changes, line):
    adapter = peft(tmp_path / "peft", model, model)
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps({**config, **changes}))
    cluster = make_cluster({"policy": {"init": str(adapter), "train": "lora"}}, stages=STAGES)
    cluster.up().wait(60)
    assert line in (cluster.root / "up.log").read_text(errors="replace") + cluster.logs()
