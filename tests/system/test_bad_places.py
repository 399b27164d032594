"""Run directories that will not do: of another run, held, read-only, on a disk without room; and how much room a run needs."""
import json
import sqlite3
import subprocess
from contextlib import closing

import fuse_nowhere
import pytest

from conftest import BIN, gantry
from refusals import a_port, coordinator, mounted, needed, up_refuses


def test_run_dir_that_is_none(make_cluster):
    """A file in its place, or one below a file: what it must be."""
    cluster = make_cluster()
    cluster.run.write_text("")
    r = gantry("up", cluster.config)
    assert r.returncode != 0 and "run.dir must be a directory that this user may write to" in r.stderr, r.stderr
    assert len(r.stderr.strip().splitlines()) == 1 and cluster.run.read_text() == ""


def test_other_config(make_cluster):
    """The run directory of another configuration is not touched."""
    cluster = make_cluster(stages=[{"demos": {"episodes": 2, "style": "clean"}}])
    cluster.start()
    cluster.until_finished()
    before = (cluster.run / "config.yaml").read_text()
    whole = cluster.config.read_text()
    # the latter two were settled when version 0 was made: they are not passed over because it is there
    for section, key, value in ("run", "seed", 999), ("policy", "unnorm_key", "tabletop"), ("policy", "center_crop", 0.9):
        config = json.loads(whole)
        config[section][key] = value
        cluster.config.write_text(json.dumps(config))
        r = coordinator(cluster)
        assert r.returncode != 0 and "another configuration" in r.stderr, r.stderr
        r = gantry("up", cluster.config)
        assert r.returncode != 0 and f"another configuration: {section}.{key} is" in r.stderr, r.stderr
        assert (cluster.run / "config.yaml").read_text() == before


def test_lock_is_held(make_cluster):
    cluster = make_cluster(stages=[{"demos": {"episodes": 100000, "style": "clean"}}])
    cluster.start()
    cluster.until(lambda s: s, "the coordinator")
    pid = cluster.of("coordinator")[0].popen.pid
    r = coordinator(cluster)
    assert r.returncode != 0
    assert str(pid) in r.stderr, f"the line should name the holder {pid}: {r.stderr}"
    up_refuses(cluster, "coordinator.lock", f"process {pid} ")      # its members would have joined the other
    assert cluster.of("coordinator")[0].running()
    # A second learner is nobody's member: it would have taken the first one's place.
    first = cluster.until(lambda s: s and [m for m in s["members"] if m["role"] == "learner"], "the learner")[0]
    r = subprocess.run([BIN / "gantry-learner", "--join", cluster.run, "--run-dir", cluster.run], capture_output=True, text=True, timeout=60)
    assert r.returncode != 0 and f"learner.lock: the run directory is held by process {first['pid']} " in r.stderr, r.stderr
    assert [m["member"] for m in cluster.status()["members"] if m["role"] == "learner"] == [first["member"]]


def test_run_directory_of_a_newer_gantry(make_cluster):
    """Its ledger has a layout that this one does not know: refused with both numbers, and left as it is."""
    cluster = make_cluster(stages=[{"demos": {"episodes": 2, "style": "clean"}}])
    cluster.start()
    cluster.until_finished()
    with closing(sqlite3.connect(cluster.run / "ledger.sqlite")) as db:
        db.execute("pragma user_version = 99")
    r = coordinator(cluster)
    assert r.returncode != 0 and "99" in r.stderr and "ledger.sqlite" in r.stderr, r.stderr
    up_refuses(cluster, "layout 99", "ledger.sqlite", "use the gantry that wrote it")
    with closing(sqlite3.connect(cluster.run / "ledger.sqlite")) as db:
        assert db.execute("pragma user_version").fetchone() == (99,)


def test_read_only_directory(make_cluster):
    """No half-started cluster: one line that names the directory."""
    cluster = make_cluster()
    cluster.run.mkdir()
    with mounted(cluster.run, "ro,size=1m"):
        r = coordinator(cluster)
        assert r.returncode != 0 and str(cluster.run) in r.stderr and "Read-only" in r.stderr, r.stderr
        up_refuses(cluster, str(cluster.run), "Read-only")


@pytest.mark.parametrize("what", ["memory", "disk"])
def test_what_is_drawn_is_counted(make_cluster, model, tmp_path, what):
    """Of a policy that answers five actions at once every fifth observation, unless all are wanted; to the task's limit, never less; of every
    camera. The page's port is in use, so that nothing starts in any case."""
    chunks = tmp_path / "chunks"
    assert gantry("model", "oft", model, chunks, "--kind", "tokens", "--chunk", "5", "--width", "32").returncode == 0
    episodes, image, limit = 10 ** 7, 64, 24                # of pick_up_object
    stages = [{"rollouts": {"episodes": episodes}}] + [{"sft": {"steps": 1, "from": "rollouts"}}] * (what == "memory")

    def frames(init=chunks, history=0, steps=limit, **suite):
        cluster = make_cluster({"policy": {"init": str(init)}, "prm": {"history": history}, "status": {"http": f"127.0.0.1:{port}"},
                                "suite": {"image": image} | suite}, stages=stages)
        picture, numbers = {"memory": (3 * image ** 2, 0), "disk": (2 * image ** 2, 512 * (steps + 1))}[what]
        return pytest.approx((needed(cluster, what) * 2 ** 20 / episodes - numbers) / picture, 0.01)
    with a_port() as port:
        assert 5 + 1 == frames()                            # o_0, o_5, ... o_20, and the last
        assert 200 + 1 == frames(steps=1000, max_steps=1000)
        assert 2 * (5 + 1) == frames(cameras=2)
        for everything in ({"init": model}, {"draw": "all"}, {"history": 2}):
            assert limit + 1 == frames(**everything), everything


@pytest.mark.parametrize("what", ["memory", "disk"])
def test_demonstrations_are_counted(make_cluster, what):
    """To their own limit, or the task's: the run's max_steps is the policy's."""
    episodes, image = 10 ** 7, 64

    def frames(suite={"name": "tabletop"}, **demos):
        cluster = make_cluster({"status": {"http": f"127.0.0.1:{port}"}, "suite": {"image": image, **suite}},
                               stages=[{"demos": {"episodes": episodes, **demos}}] + [{"sft": {"steps": 1}}] * (what == "memory"))
        each = {"memory": 3 * image ** 2, "disk": 2 * image ** 2 + 512}[what]
        return pytest.approx(needed(cluster, what) * 2 ** 20 / episodes / each, 0.01)
    with a_port() as port:
        assert 24 + 1 == frames()
        assert 24 + 1 == frames(suite={"max_steps": 1000})
        assert 300 + 1 == frames(max_steps=300)
        assert (24 + 112) / 2 + 1 == frames(suite={"tasks": ["pick_up_object", "sort_objects"]})


def test_disk_without_room(make_cluster):
    """Full before it begins: how much it needs, how much there is, what to do. One that fills up later: test_disk_full.py."""
    cluster = make_cluster()
    cluster.run.mkdir()
    with mounted(cluster.run, "size=2m"):
        up_refuses(cluster, "MB of disk", str(cluster.run), "put run.dir elsewhere")
        whole = needed(cluster, "disk")
        cluster.settings["policy"] |= {"train": "lora", "lora_r": 4}
        cluster.write_config()
        assert needed(cluster, "disk") < whole             # its versions are adapters, the base is there once
        r = coordinator(cluster)
        assert r.returncode != 0 and "No space left on device" in r.stderr and str(cluster.run) in r.stderr, r.stderr
        r = gantry("up", "--force", cluster.config)
        assert r.returncode != 0 and "make room there, or put run.dir elsewhere" in r.stdout and "started again" not in r.stdout, r.stdout


def test_file_system_that_will_not_do(make_cluster):
    """A FUSE file system of which nobody knows whether it locks and syncs. NFS and the like: tests/unit/test_ledger.c."""
    cluster = make_cluster()
    cluster.run.mkdir()
    try:
        mount = fuse_nowhere.mounted(cluster.run)
        mount.__enter__()
    except OSError as e:
        pytest.skip(f"FUSE cannot be mounted: {e}")
    try:
        r = coordinator(cluster)
        assert r.returncode == 78 and f"{cluster.run} lies on fuse.nowhere" in r.stderr and "NFS" in r.stderr, r.stderr
        up_refuses(cluster, f"{cluster.run} lies on fuse.nowhere", "choose a run.dir")
    finally:
        mount.__exit__(None, None, None)
