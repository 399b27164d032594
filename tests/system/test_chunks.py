"""Policies that answer a chunk of actions at a time (OpenVLA-OFT), through the real daemons: imitated, played open loop, improved; the
learner finds the actor's log-probs again."""
import json
import shutil
import subprocess
import zipfile

import pytest
from conftest import TOP, gantry

STAGES = [
    {"demos": {"episodes": 4, "style": "clean"}},
    {"sft": {"steps": 3, "batch": 8, "warmup": 1, "augment": True}},
    {"rl": {"iterations": 2, "episodes": 4, "preset": "tabletop", "reward": "sparse", "critic_prm": False, "eval_every": 0,
            "critic_warmup": 0}},
]


def policy(model, path, kind, support="action", eyes=1):
    """eyes 2: the hand's camera and the arm's own state beside the camera in front; modulated towers, too."""
    wishes = ["--images", "2", "--state", "5", "--film"] if eyes == 2 else []
    made = gantry("model", "oft", model, path, "--kind", kind, "--chunk", "5", "--width", "32", *wishes)
    assert made.returncode == 0, made.stderr
    return {"policy": {"init": str(path), "support": support}, "suite": {"cameras": eyes, "state": eyes == 2}}


@pytest.mark.parametrize("kind, support, eyes", [("tokens", "full", 1), ("laplace", "action", 2)])
def test_chunks(make_cluster, model, tmp_path, kind, support, eyes):
    if support == "full":       # a policy that has learnt hardly ever says anything but actions
        assert gantry("model", "new", tmp_path / "random", "--spec", TOP / "tests/golden/nano").returncode == 0
        model = tmp_path / "random"
    cluster = make_cluster(policy(model, tmp_path / kind, kind, support, eyes), stages=STAGES)
    cluster.start()
    cluster.until_finished()
    cluster.history()
    versions = sorted((cluster.run / "policies").glob("v*"))
    metrics = [json.loads((v / "training.json").read_text())["metrics"] for v in versions[-2:]]
    for m in metrics:
        assert m["logp_gap_max"] <= 1e-5 and m["updates"] > 0, m
        assert (m["other_ids"] > 0) == (support == "full"), m
        assert m["steps"] < 4 * 24, m           # decisions, not actions: a chunk is one
    config = json.loads((versions[-1] / "config.json").read_text())
    assert config["gantry_oft"]["chunk"] == 5
    assert config["gantry_image_chain"] == "render" and abs(config["gantry_center_crop"] - 0.9) < 1e-6
    assert (versions[-1] / "action_head.safetensors").exists() == (kind == "laplace")
    assert config["gantry_oft"]["images"] == eyes
    for name in ("proprio_projector", "vision_backbone"):       # learnt from both pictures and the state, or not there
        files = [v / f"{name}.safetensors" for v in (versions[0], versions[-1])]
        assert files[1].exists() == (eyes == 2)
        assert eyes == 1 or files[0].read_bytes() != files[1].read_bytes(), name


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed")
def test_video_of_an_episode(make_cluster, model, tmp_path):
    """Two cameras beside each other, each pixel enlarged; what was not drawn is not in it."""
    cluster = make_cluster(policy(model, tmp_path / "policy", "laplace", eyes=2), stages=[*STAGES[:2], {"rollouts": {"episodes": 1}}])
    cluster.start()
    cluster.until_finished()
    exported = gantry("data", "export", cluster.run, "--to", "npz", tmp_path / "npz", "--all", "--purpose", "rollout")
    assert exported.returncode == 0, exported.stderr
    (file,) = (tmp_path / "npz").glob("episode_*.npz")
    with zipfile.ZipFile(file) as episode:
        number = int.from_bytes(episode.read("episode.npy")[-8:], "little")
        pictures = {name: episode.read(f"{name}.npy")[-64 * 64 * 3:] for name in ("image", "wrist_image")}      # the last action's
    video = tmp_path / "episode.mp4"
    shown = gantry("replay", cluster.run, number, "-o", tmp_path / "film.png", "--video", video, "--fps", "4")
    assert shown.returncode == 0 and shown.stdout.endswith(f"\n{video}\n"), shown.stderr
    frames = subprocess.run(["ffmpeg", "-loglevel", "error", "-i", video, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], capture_output=True).stdout
    size = 512 * 256 * 3
    assert len(frames) == 6 * size          # before each of five answers, and the end
    seen = frames[4 * size:]
    for y in range(8, 64, 8):
        for x in range(8, 128, 8):
            in_video = seen[((y * 4 + 2) * 512 + x * 4 + 2) * 3:][:3]
            drawn = pictures["image" if x < 64 else "wrist_image"][(y * 64 + x % 64) * 3:][:3]
            assert max(abs(a - b) for a, b in zip(in_video, drawn)) < 60, (x, y, in_video, drawn)       # edges blur


def test_what_nobody_looks_at_is_not_drawn(make_cluster, model, tmp_path):
    """suite.draw: turns, the default. Three quarters of the pictures of rl's episodes are not made, sent or kept; what is learnt is the same
    to the bit, and the episodes can be looked at and exported."""
    settings = policy(model, tmp_path / "tokens", "tokens")
    learnt, pictures = [], []
    for draw in ("turns", "all"):
        settings["suite"]["draw"] = draw
        cluster = make_cluster(settings, stages=[STAGES[0], STAGES[2]])
        cluster.start()
        cluster.until_finished()
        cluster.history()
        last = sorted((cluster.run / "policies").glob("v*"))[-1]
        learnt.append((last / "model.safetensors").read_bytes())
        exported = gantry("data", "export", cluster.run, "--to", "npz", tmp_path / draw, "--all", "--purpose", "train")
        assert exported.returncode == 0, exported.stderr
        files = sorted((tmp_path / draw).glob("episode_*.npz"))
        assert files
        pictures.append(0)
        for file in files:
            with zipfile.ZipFile(file) as episode:
                number = int.from_bytes(episode.read("episode.npy")[-8:], "little")
                pictures[-1] += episode.getinfo("image.npy").file_size
                assert ("observed.npy" in episode.namelist()) == (draw == "turns")
        shown = gantry("replay", cluster.run, number, "-o", tmp_path / "film.png")
        assert shown.returncode == 0 and (tmp_path / "film.png").stat().st_size > 0, shown.stderr
    assert learnt[0] == learnt[1]
    assert pictures[0] * 4 < pictures[1], pictures


def test_adapters_beside_heads_that_learn(make_cluster, model, tmp_path):
    """policy.train: lora. The heads, the state's projector and FiLM are trained whole and lie in the adapter's directory; the actor plays
    what was learnt, and the reference is what the stage began with, not the base below heads that have moved since."""
    settings = policy(model, tmp_path / "laplace", "laplace", eyes=2)
    settings["policy"] |= {"train": "lora", "lora_r": 4, "lora_alpha": 8}
    rl = dict(STAGES[2]["rl"], minibatch=1000, lr=1e-3, entropy_coef=.1)      # nobody succeeds here: something to learn from
    cluster = make_cluster(settings, stages=[STAGES[0], {"sft": {"steps": 4, "batch": 8, "warmup": 1, "commit_every": 2}}, {"rl": rl}])
    cluster.start()
    cluster.until_finished()
    cluster.history()
    versions = sorted((cluster.run / "policies").glob("v*"))
    first, second = [json.loads((v / "training.json").read_text())["metrics"] for v in versions[-2:]]
    for m in (first, second):
        assert m["logp_gap_max"] <= 1e-5 and m["updates"] == 1, m
    assert first["reference_kl"] == 0 and second["reference_kl"] > 0, (first, second)
    for name in ("action_head", "scale_head", "proprio_projector", "vision_backbone"):
        before, after = (versions[i] / f"{name}.safetensors" for i in (-3, -1))
        assert before.read_bytes() != after.read_bytes(), name
    assert (versions[-1] / "base.json").exists() and not (versions[-1] / "model.safetensors").exists()
    exported = gantry("model", "export", cluster.run, tmp_path / "policy")
    assert exported.returncode == 0, exported.stderr
    assert (tmp_path / "policy/vision_backbone.safetensors").read_bytes() == (versions[-1] / "vision_backbone.safetensors").read_bytes()
    asked = gantry("eval", cluster.run, "--policies", "last", "--seeds", "0..1", "--at", "0", "--n", "1,2", "--judge", "confidence")
    assert asked.returncode and "--judge confidence asks a policy that answers token by token, and this run's answers whole chunks" in asked.stderr
    assert not (cluster.run / "evals.yaml").exists()            # nothing that could stand before every later evaluation


def test_confidence_of_whole_chunks(make_cluster, model, tmp_path):
    """Refused before anything is played, not by ten episodes in a row that come back."""
    stages = [*STAGES[:2], {"eval": {"episodes": 2, "policies": ["last"], "at": [0], "n": [1, 2], "search_judge": "confidence"}}]
    asked = gantry("up", make_cluster(policy(model, tmp_path / "tokens", "tokens"), stages=stages).config)
    assert asked.returncode and "stages[2].eval.search_judge: confidence asks a policy that answers token by token" in asked.stderr, asked.stderr
