"""What gantry writes loads in the original: transformers, timm and OpenVLA's own modelling code.

Runs where they are installed and OPENVLA_HF names prismatic/extern/hf of a checkout of openvla/openvla:

    python3 -m venv V; V/bin/pip install torch==2.2.2 torchvision==0.17.2 transformers==4.40.1 tokenizers==0.19.1 timm==0.9.16 \\
        'numpy<2' pillow pytest
    OPENVLA_HF=.../prismatic/extern/hf V/bin/python -m pytest tests/system/test_transformers.py
"""
import json
import os
import shutil
import sys
import types

import pytest

from conftest import TOP, gantry

torch = pytest.importorskip("torch")
timm = pytest.importorskip("timm")
transformers = pytest.importorskip("transformers")
image = pytest.importorskip("PIL.Image")
create_tower = timm.create_model
HF = os.environ.get("OPENVLA_HF")
if not HF:
    pytest.skip("OPENVLA_HF is not set: no OpenVLA modelling code", allow_module_level=True)
INSTRUCTION = "pick up the red block"


def load_classes(empty_id):
    """The original classes; the one constant that assumes Llama's vocabulary becomes the checkpoint's."""
    modules = {}
    sys.modules["ovla"] = types.ModuleType("ovla")
    sys.modules["ovla"].__path__ = []
    for name in ("configuration_prismatic", "modeling_prismatic", "processing_prismatic"):
        path = f"{HF}/{name}.py"
        module = types.ModuleType(f"ovla.{name}")
        module.__file__, module.__package__ = path, "ovla"
        sys.modules[module.__name__] = module
        with open(path, encoding="utf-8") as f:
            exec(compile(f.read().replace("29871", str(empty_id)), path, "exec"), module.__dict__)
        modules[name] = module
    return modules


def load(directory, dtype, monkeypatch):
    """from_pretrained, with timm's towers in the dims that gantry_vision names; nothing may be missing or left over."""
    config = json.loads((directory / "config.json").read_text())
    towers = dict(zip(config["timm_model_ids"], config["gantry_vision"]["towers"]))

    def small(name, **kw):
        t = towers[name]
        return create_tower(name, embed_dim=t["dim"], depth=t["depth"], num_heads=t["heads"], patch_size=t["patch"], **kw)

    monkeypatch.setattr(timm, "create_model", small)
    classes = load_classes(config["gantry_empty_token_id"])
    model, info = classes["modeling_prismatic"].OpenVLAForActionPrediction.from_pretrained(
        directory, torch_dtype=dtype, low_cpu_mem_usage=False, output_loading_info=True, attn_implementation="sdpa")
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"], info
    processor = classes["processing_prismatic"].PrismaticImageProcessor.from_pretrained(directory)
    named = (directory / "tokenizer_config.json").exists()
    return model.eval(), processor, transformers.AutoTokenizer.from_pretrained(directory) if named else None, config


@pytest.fixture
def checkpoint(tmp_path):
    r = gantry("model", "synth", "--like", "tiny", tmp_path / "synth", "--shard-size", "300KB")
    assert r.returncode == 0, r.stderr
    assert len(list((tmp_path / "synth").glob("model-*.safetensors"))) > 2
    return tmp_path / "synth"


def test_loads_and_acts_the_same(checkpoint, tmp_path, monkeypatch):
    """A sharded directory, fp32: tokenizer, pixels and greedy tokens of the original are gantry's."""
    r = gantry("model", "convert", checkpoint, tmp_path / "wide", "--dtype", "f32", "--shard-size", "500KB")
    assert r.returncode == 0, r.stderr
    model, processor, tokenizer, config = load(tmp_path / "wide", torch.float32, monkeypatch)
    side = config["image_sizes"][0]
    picture = image.effect_mandelbrot((side, side), (-2, -1.5, 1, 1.5), 40).convert("RGB")
    picture.save(tmp_path / "picture.png")
    ids = tokenizer(f"In: What action should the robot take to {INSTRUCTION}?\nOut:", return_tensors="pt").input_ids
    assert [str(i) for i in ids[0].tolist()] + [str(config["gantry_empty_token_id"])] == \
        gantry("model", "prompt", checkpoint, INSTRUCTION).stdout.split()
    pixels = processor(picture, return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        ids = torch.cat([ids, torch.tensor([[config["gantry_empty_token_id"]]])], 1)
        out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=pixels, max_new_tokens=7, do_sample=False)
    act = gantry("model", "act", tmp_path / "wide", INSTRUCTION, "--picture", tmp_path / "picture.png", "--full")
    assert act.returncode == 0, act.stderr
    mine = json.loads(act.stdout)["tokens"]
    theirs = out[0, ids.shape[1]:].tolist()
    assert theirs[:len(mine)] == mine[:len(theirs)] and theirs, (theirs, mine)      # </s> may end theirs early


def test_mid_size_logits(tmp_path, monkeypatch):
    """32 layers, 103 million parameters, fp32: log-probabilities of the greedy tokens as the original has them, deep sums and all."""
    spec = tmp_path / "spec"
    shutil.copytree(TOP / "tests/golden/nano", spec)
    config = json.loads((spec / "config.json").read_text())
    config["text_config"].update(hidden_size=512, intermediate_size=1376, num_attention_heads=8, num_key_value_heads=8, num_hidden_layers=32)
    config["timm_model_ids"] = ["vit_large_patch14_reg4_dinov2.lvd142m", "vit_so400m_patch14_siglip_224"]
    for tower, mlp in zip(config["gantry_vision"]["towers"], (64, 59)):         # timm's ratios, 4 and 3.7362
        tower["mlp"] = mlp
    (spec / "config.json").write_text(json.dumps(config))
    r = gantry("model", "new", tmp_path / "mid", "--spec", spec, "--dtype", "f32")
    assert r.returncode == 0, r.stderr
    model, processor, _, config = load(tmp_path / "mid", torch.float32, monkeypatch)
    assert 102e6 < sum(p.numel() for p in model.parameters()) < 104e6
    side = config["image_sizes"][0]
    picture = image.effect_mandelbrot((side, side), (-2, -1.5, 1, 1.5), 40).convert("RGB")
    picture.save(tmp_path / "picture.png")
    act = json.loads(gantry("model", "act", tmp_path / "mid", INSTRUCTION, "--picture", tmp_path / "picture.png", "--full").stdout)
    prompt = [int(i) for i in gantry("model", "prompt", tmp_path / "mid", INSTRUCTION).stdout.split()]
    ids = torch.tensor([prompt + act["tokens"]])
    with torch.inference_mode():
        logits = model(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values=processor(picture, return_tensors="pt")["pixel_values"]).logits
    rows = torch.log_softmax(logits[0, -1 - len(act["tokens"]):-1].double(), -1)
    theirs = rows.gather(1, torch.tensor(act["tokens"])[:, None])[:, 0].tolist()
    worst = max(abs(a - b) for a, b in zip(theirs, act["logp"], strict=True))
    print(f"log-probabilities within {worst:.1e}")
    assert worst < 1e-4 and rows.argmax(-1).tolist() == act["tokens"]


def test_values_survive_every_form(checkpoint, tmp_path, monkeypatch):
    """bf16 as made, fp16, and bf16 again by way of fp32 in one file: the original reads the same state dict."""
    forms = {"again": ["--shard-size", "1GB"], "half": ["--dtype", "f16"], "wide": ["--dtype", "f32"]}
    for name, options in forms.items():
        assert gantry("model", "convert", checkpoint, tmp_path / name, *options).returncode == 0
    assert gantry("model", "convert", tmp_path / "wide", tmp_path / "back", "--dtype", "bf16", "--shard-size", "200KB").returncode == 0
    want = load(checkpoint, torch.bfloat16, monkeypatch)[0].state_dict()
    for name, dtype in {"again": torch.bfloat16, "back": torch.bfloat16, "half": torch.float16}.items():
        got = load(tmp_path / name, dtype, monkeypatch)[0].state_dict()
        assert got.keys() == want.keys()
        for key, value in got.items():
            assert value.dtype == dtype and torch.equal(value, want[key].to(dtype)), (name, key)


def test_saved_again_by_transformers(checkpoint, tmp_path, monkeypatch):
    """What transformers saves from gantry's directory, gantry verifies and reads; the weights are the same bytes."""
    model = load(checkpoint, torch.bfloat16, monkeypatch)[0]
    model.save_pretrained(tmp_path / "theirs", max_shard_size="400KB", safe_serialization=True)
    for f in checkpoint.iterdir():
        if f.suffix == ".json" and not (tmp_path / "theirs" / f.name).exists():
            (tmp_path / "theirs" / f.name).write_bytes(f.read_bytes())
    r = gantry("model", "verify", tmp_path / "theirs")
    assert r.returncode == 0, r.stdout
    tokens = [json.loads(gantry("model", "act", d, INSTRUCTION).stdout)["tokens"] for d in (checkpoint, tmp_path / "theirs")]
    assert tokens[0] == tokens[1]
