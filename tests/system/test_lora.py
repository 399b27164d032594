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


def test_refused(make_cluster, tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    cluster = make_cluster({"policy": {"init": str(tmp_path)}}, stages=STAGES)
    cluster.up().wait(60)
    assert "PEFT adapter" in (cluster.root / "up.log").read_text(errors="replace") + cluster.logs()
