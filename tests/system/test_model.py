"""gantry model's verbs on directories: what they print, what they write, how they end."""
import json
import struct

import pytest

from conftest import TOP, gantry

UP = "language_model.model.layers.0.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "synth"
    r = gantry("model", "synth", "--like", "tiny", path, "--shard-size", "300KB")
    assert r.returncode == 0, r.stderr
    return path


def read(shard):
    """Header as a dict, data as a bytearray."""
    raw = shard.read_bytes()
    n = struct.unpack("<Q", raw[:8])[0]
    return json.loads(raw[8:8 + n]), bytearray(raw[8 + n:])


def write(shard, header, data):
    text = json.dumps(header).encode()
    shard.write_bytes(struct.pack("<Q", len(text)) + text + bytes(data))


@pytest.fixture
def broken(checkpoint, tmp_path):
    path = tmp_path / "broken"
    r = gantry("model", "convert", checkpoint, path)
    assert r.returncode == 0, r.stderr
    return path


def shard_of(path, tensor):
    return path / json.loads((path / "model.safetensors.index.json").read_text())["weight_map"][tensor]


def test_inspect(checkpoint):
    r = gantry("model", "inspect", checkpoint, "--batch", "4", "--json")
    assert r.returncode == 0, r.stderr
    seen = json.loads(r.stdout)
    assert seen["architecture"] == "OpenVLAForActionPrediction" and seen["files"] > 2
    assert seen["bytes"] == 2 * seen["parameters"] == sum(p["bytes"] for p in seen["parts"])
    assert seen["tensors"] == sum(p["tensors"] for p in seen["parts"]) == seen["dtypes"]["BF16"]
    memory = seen["memory"]
    assert memory["inference"]["total"] < memory["lora"]["total"] < memory["full"]["total"]
    larger = json.loads(gantry("model", "inspect", checkpoint, "--batch", "8", "--json").stdout)["memory"]
    assert larger["inference"]["kv_cache"] == 2 * memory["inference"]["kv_cache"] and larger["inference"]["weights"] == memory["inference"]["weights"]
    assert "parameters" in gantry("model", "inspect", checkpoint).stdout


def test_a_chunk_policy_says_what_it_takes(tmp_path):
    for kind, more in (("tokens", []), ("l1", []), ("laplace", ["--film"])):
        made = gantry("model", "oft", TOP / "models/tiny", tmp_path / kind, "--kind", kind, "--chunk", "4", "--width", "64", "--images", "2", "--state", "8",
                      *more)
        assert ", 4 actions of 7 dims in one pass, 2 pictures and 8 numbers of the robot's state" in made.stdout
        assert json.loads(gantry("model", "inspect", tmp_path / kind, "--json").stdout)["oft"] == {
            "kind": kind, "chunk": 4, "images": 2, "state": 8, "film": bool(more)}
        line = next(x for x in gantry("model", "inspect", tmp_path / kind).stdout.splitlines() if x.startswith("chunks"))
        assert line.split(maxsplit=1)[1] == f"{kind}, 4 actions in one pass, 2 pictures, 8 numbers of the robot's state" + (", FiLM" if more else "")


def test_verify_good(checkpoint):
    r = gantry("model", "verify", checkpoint)
    assert r.returncode == 0 and "good" in r.stdout, r.stdout


def test_verify_lists_every_problem(broken):
    """Two NaNs in two shards, a lie about the size: three lines, each with its file and tensor."""
    other = "vision_backbone.featurizer.blocks.0.attn.qkv.weight"
    for tensor in (UP, other):
        shard = shard_of(broken, tensor)
        header, data = read(shard)
        begin = header[tensor]["data_offsets"][0]
        data[begin + 4:begin + 6] = b"\x80\x7f"        # +infinity in bf16
        write(shard, header, data)
    index = broken / "model.safetensors.index.json"
    index.write_text(index.read_text().replace('"total_size": ', '"total_size": 1'))
    r = gantry("model", "verify", broken)
    assert r.returncode == 1
    lines = r.stdout.splitlines()
    assert len(lines) == 4 and "3 problems" in lines[-1], r.stdout
    for tensor in (UP, other):
        assert any(tensor in line and str(shard_of(broken, tensor)) in line and "[0,2] is inf" in line for line in lines), r.stdout
    assert any("total_size" in line for line in lines)


def test_a_bad_side_file_is_a_problem(broken):
    (broken / "value_head.safetensors").write_bytes(b"\xff" * 64)
    r = gantry("model", "verify", broken)
    assert r.returncode == 1 and "value_head.safetensors" in r.stdout


def test_an_adapter_is_pairs(tmp_path):
    """Without its base an adapter can still be told from what is none: a half alone, another rank, weights of a model."""
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": "all-linear"}))
    file = tmp_path / "adapter_model.safetensors"
    shapes = {"up.lora_A": [2, 3], "up.lora_B": [4, 2], "down.lora_A": [2, 4], "down.lora_B": [3, 2]}

    def verify():
        header, at = {}, 0
        for name, (rows, cols) in shapes.items():
            header[f"base_model.model.{name}.weight"] = {"dtype": "F32", "shape": [rows, cols], "data_offsets": [at, at + 4 * rows * cols]}
            at += 4 * rows * cols
        write(file, header, bytes(at))
        r = gantry("model", "verify", tmp_path)
        return r.returncode, r.stdout

    status, said = verify()
    assert status == 0 and "good: 4 tensors" in said, said
    del shapes["up.lora_B"]
    shapes |= {"down.lora_B": [3, 1], "gate": [2, 2]}
    status, said = verify()
    assert status == 1 and "3 problems" in said, said
    for line in ("up.lora_B.weight is missing", "down.lora_A.weight: its rank", "gate.weight is no A or B"):
        assert line in said, said


def test_code_of_chunks_without_a_head(broken):
    """OpenVLA-OFT's code beside the weights, as SimpleVLA-RL leaves it, and in a base model that its scripts have read: which it is, a person says."""
    (broken / "modeling_prismatic.py").write_text("from prismatic.vla.constants import (\n    ACTION_DIM,\n    NUM_ACTIONS_CHUNK,\n)\n")
    r = gantry("model", "inspect", broken)
    assert r.returncode == 1 and r.stderr.endswith('Put into config.json "gantry_oft": {"kind": "tokens", "chunk": 8}, or '
                                                   '"gantry_oft": {"kind": "none"}\n'), r.stderr
    config = json.loads((broken / "config.json").read_text())
    for kind in {"kind": "tokens", "chunk": 8}, {"kind": "none"}:
        (broken / "config.json").write_text(json.dumps({**config, "gantry_oft": kind}))
        assert gantry("model", "inspect", broken).returncode == 0
    (broken / "config.json").write_text(json.dumps(config))
    (broken / "modeling_prismatic.py").write_text("class OpenVLAForActionPrediction: pass\n")        # OpenVLA's own
    assert gantry("model", "inspect", broken).returncode == 0


def test_nothing_is_half_written(broken, tmp_path):
    """A source that breaks off in the middle leaves no destination, and what was there stays."""
    shards = sorted(broken.glob("model-*.safetensors"))
    shards[-1].write_bytes(shards[-1].read_bytes()[:-5])
    target = tmp_path / "target"
    r = gantry("model", "convert", broken, target, "--dtype", "f32")
    assert r.returncode == 1 and shards[-1].name in r.stderr and "cut short" in r.stderr, r.stderr
    assert not target.exists() and not list(tmp_path.glob("target.tmp*"))
    target.mkdir()
    (target / "mine").write_text("x")
    r = gantry("model", "synth", "--like", "tiny", target)
    assert r.returncode == 1 and "is there already" in r.stderr
    assert [f.name for f in target.iterdir()] == ["mine"]


def test_a_prompt_beyond_the_context():
    tiny = TOP / "models/tiny"
    for command in (["act"], ["prompt"]):
        assert gantry("model", *command, tiny, "pick up the red block " * 100).returncode == 0
        r = gantry("model", *command, tiny, "pick up the red block " * 600)
        assert r.returncode == 1 and "the instruction is too long" in r.stderr and "2048 positions" in r.stderr, r.stderr


def test_usage():
    assert gantry("model", "synth", "--like", "none", "/tmp/x").returncode == 2
    r = gantry("model", "convert", "/nowhere", "/tmp/gantry_nothing", "--dtype", "int8")
    assert r.returncode == 1 and "expected bf16, f16 or f32" in r.stderr
