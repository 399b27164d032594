"""LIBERO through the real daemons, and what is wrong with its files: one line that names the file, and nobody dies of it. Skips without
LIBERO's files."""
import json
import os
import re
import socket
import subprocess
from pathlib import Path

import pytest

from conftest import BIN, TOP, gantry, libero_is_missing

MISSING = libero_is_missing()
pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)
SOUP = "pick_up_the_alphabet_soup_and_place_it_in_the_basket"
CREAM = "pick_up_the_cream_cheese_and_place_it_in_the_basket"


def root():
    top = Path(os.environ["LIBERO_ROOT"])
    return next(p for p in (top / "libero/libero", top / "libero", top) if (p / "assets").exists())


@pytest.fixture
def farm(tmp_path):
    """LIBERO's files by links, but for one file, which is changed: farm(path, change)."""
    def make(path, change):
        here, there = tmp_path / "LIBERO", root()
        for part in Path(path).parts:
            here.mkdir()
            for f in there.iterdir():
                if f.name != part:
                    (here / f.name).symlink_to(f)
            here, there = here / part, there / part
        data = change(there.read_bytes())
        if data is not None:
            here.write_bytes(data)
        return tmp_path / "LIBERO"
    return make


def play(libero_root, *args):
    return subprocess.run([BIN / "gantry", "sim", "play", "--suite", "libero_object", "--task", "0", "--policy", "no-op", "--steps", "1",
                           "--cache", "", *args], capture_output=True, text=True, cwd=TOP, timeout=120,
                          env={**os.environ, "LIBERO_ROOT": str(libero_root)})


def mesh():
    folder = root() / "assets/stable_hope_objects/alphabet_soup/visual"
    return str(next(folder.glob("*.msh")).relative_to(root()))


@pytest.mark.parametrize("path, change, words", [
    (f"bddl_files/libero_object/{SOUP}.bddl", lambda b: b[:-3], ["never closed", f"{SOUP}.bddl"]),
    (f"bddl_files/libero_object/{SOUP}.bddl", lambda b: b.replace(b"(In ", b"(Near "), ["unknown predicate 'near'", "line "]),
    (f"bddl_files/libero_object/{SOUP}.bddl", lambda b: None, [f"{SOUP}.bddl"]),
    (f"init_files/libero_object/{SOUP}.pruned_init", lambda b: b[: len(b) // 2], [f"{SOUP}.pruned_init"]),
    (f"init_files/libero_object/{SOUP}.pruned_init",
     lambda b: (root() / "init_files/libero_goal/turn_on_the_stove.pruned_init").read_bytes(),
     ["rows of 79 numbers; this task's model needs 110"]),
    (f"init_files/libero_object/{SOUP}.pruned_init", lambda b: b.replace(b"_reconstruct", b"_xeconstruct"), ["data.pkl is damaged"]),
    ("MESH", lambda b: b[: len(b) // 2], ["alphabet_soup"]),
    ("MESH", lambda b: None, ["alphabet_soup"]),
    ("assets/stable_hope_objects/alphabet_soup.xml", lambda b: b.replace(b"<geom", b"<geom <", 1), ["alphabet_soup.xml"]),
    ("assets/stable_hope_objects/alphabet_soup.xml", lambda b: None, ["alphabet_soup.xml"]),
])
def test_bad_files(farm, path, change, words):
    path = mesh() if path == "MESH" else path
    if path.endswith("soup.xml") and not (root() / path).exists():
        path = "assets/stable_hope_objects/alphabet_soup/alphabet_soup.xml"
    r = play(farm(path, change))
    assert r.returncode == 1, r.stdout + r.stderr
    assert len(r.stderr.splitlines()) == 1 and all(w in r.stderr for w in words), r.stderr


def test_whole_farm(farm):
    """The farm itself is not what is refused."""
    r = play(farm(f"bddl_files/libero_object/{SOUP}.bddl", lambda b: b + b"; the end\n"))
    assert r.returncode == 0 and "1 steps" in r.stdout, r.stderr


def test_memory_for_many_tasks(make_cluster):
    """Each worker keeps the scenes of the tasks that it has played, and where the CPU draws them their pictures, too: what is too much is
    refused with the key to change. The page's port is in use, so that nothing starts on a host that has all that memory, either."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        def needed(tasks, renderers):
            cluster = make_cluster({"suite": {"name": "libero_object", "tasks": tasks, "image": 64}, "status": {"http": f"127.0.0.1:{taken.getsockname()[1]}"},
                                    "cluster": {"env_workers": 1024, "slots": 1, "renderers": renderers}})
            r = gantry("up", cluster.config)
            assert r.returncode != 0 and len(r.stderr.splitlines()) == 1 and not list(cluster.run.glob("log/*.log")), r.stdout + r.stderr
            if "is in use" in r.stderr:
                pytest.skip("this host has the memory of a thousand workers")
            assert "lower cluster.env_workers (1024), cluster.slots (1), a LIBERO suite's tasks" in r.stderr, r.stderr
            return float(re.search(r"the run needs about (\d+) MB of memory", r.stderr).group(1)) / 1024
        assert needed([SOUP, CREAM], "0") >= needed([SOUP], "0") + 50
        assert needed([SOUP], "software") >= needed([SOUP], "0") + 100


def test_bad_actions(make_cluster):
    """An action that is NaN, then ones of three numbers: refused before the simulator in a line each; the worker lives, and the episode
    is played once the actor is well."""
    cluster = make_cluster({"suite": {"name": "libero_object", "tasks": [CREAM], "image": 64}, "cluster": {"slots": 1}},
                           stages=[{"eval": {"episodes": 1, "policies": ["last"], "at": [0], "max_steps": 6}}])
    cluster.faults["actor-0"] = "act.reply=nan@2-4,act.reply=short@6-8"
    cluster.start()
    summary = cluster.until_finished()
    worker = cluster.of("env-worker")[0]
    lines = worker.log.read_text(errors="replace").splitlines()
    refused = [line for line in lines if "act: " in line]
    assert sum("act: the action is not finite" in line for line in refused) == 1, refused
    assert sum("1 actions have 3 dimensions, the simulator takes 7 each" in line for line in refused) == 1, refused
    assert not any("fault=simulator" in line for line in lines), lines
    assert worker.starts == 1 and summary["episodes"]["failed"] == 0, cluster.logs()


def test_solved_through_the_daemons(make_cluster, model, tmp_path):
    """Lease, play, deliver: the expert's episode of two cameras and the robot's state is in the journal as a success, and an OpenVLA-OFT
    policy that takes both learns from it."""
    oft = tmp_path / "oft"
    made = gantry("model", "oft", model, oft, "--kind", "l1", "--chunk", "8", "--width", "32", "--state", "8", "--images", "2")
    assert made.returncode == 0, made.stderr
    cluster = make_cluster({"suite": {"name": "libero_object", "tasks": [CREAM], "image": 64, "cameras": 2, "state": True},
                            "policy": {"init": str(oft)}, "cluster": {"slots": 1}},
                           stages=[{"demos": {"episodes": 1, "style": "clean"}}, {"sft": {"steps": 2, "batch": 4, "warmup": 1}}])
    cluster.start()
    cluster.until_finished()
    cluster.history()
    r = gantry("replay", cluster.run, "1", "-o", tmp_path / "film.png")
    assert r.returncode == 0 and ": success after" in r.stdout.splitlines()[0], r.stdout + r.stderr
    ranges = [json.loads((cluster.run / "policies" / v / "dataset_statistics.json").read_text())["tabletop"]["proprio"] for v in ("v000000", "v000001")]
    assert ranges[0] == ranges[1] and len(ranges[0]["q01"]) == 8         # of this robot, settled before anybody imitated it


def test_a_published_checkpoint(model, tmp_path):
    """What the published evaluation does for an OpenVLA-OFT checkpoint of two cameras and the robot's state, with four suites' statistics,
    OpenVLA's gripper and not a word of ours in config.json: all of it is found out, said, and stands in the run's copy."""
    oft = tmp_path / "oft"
    assert gantry("model", "oft", model, oft, "--kind", "l1", "--chunk", "8", "--width", "32", "--state", "8", "--images", "2").returncode == 0
    config = json.loads((oft / "config.json").read_text())
    (oft / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "gantry_oft"}))
    action = {"q01": [-.63, -.77, -.76, -.1, -.15, -.27, 0], "q99": [.77, .85, .9375, .14, .16, .32, 1], "mask": [True] * 6 + [False]}
    state = {"q01": [-1, -1, 0, -4, -4, -4, 0, -.05], "q99": [1, 1, 2, 4, 4, 4, .05, 0]}
    suites = {f"libero_{s}_no_noops": {"action": {**action, "q99": [.77, .85, .9375, .14, .16, .32 + i / 100, 1]}, "proprio": state}
              for i, s in enumerate(("spatial", "object", "goal", "10"))}
    (oft / "dataset_statistics.json").write_text(json.dumps(suites))
    r = subprocess.run([BIN / "gantry", "eval", oft, "--suite", "libero_object", "--tasks", CREAM, "--trials", "1", "--env-workers", "1",
                        "--slots", "1", "--dir", tmp_path / "run"], capture_output=True, text=True, cwd=TOP, timeout=240)
    assert r.returncode == 0 and r.stdout.splitlines()[-1].split()[0] in ("0/1", "1/1"), r.stdout + r.stderr
    assert ("the run's copy says: actions in the units of libero_object_no_noops, gripper turned (1 open, 0 closed becomes -1, 1), "
            "the middle 0.9 of each picture's area") in r.stderr, r.stderr
    copy = tmp_path / "run" / "policies" / "v000000"
    assert json.loads((copy / "dataset_statistics.json").read_text()) == {"libero_object_no_noops": suites["libero_object_no_noops"]}
    config = json.loads((copy / "config.json").read_text())
    assert config["gantry_gripper"] == {"binarise": True, "invert": True} and config["gantry_center_crop"] == pytest.approx(.9)
    assert gantry("history", "check", tmp_path / "run").returncode == 0
