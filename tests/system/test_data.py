"""`gantry data`: a run's demonstrations out, in again as a data set, and a second run that imitates it without playing any: the same policy
to the bit, and the data set named in it."""
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from conftest import BIN, TOP, gantry

SFT = {"sft": {"steps": 3, "batch": 8, "warmup": 1}}


def weights(cluster):
    return hashlib.sha256((cluster.run / "policies" / "v000001" / "model.safetensors").read_bytes()).hexdigest()


def test_out_in_and_imitated(make_cluster, tmp_path):
    first = make_cluster(stages=[{"demos": {"episodes": 4, "style": "slow"}}, SFT])
    first.start()
    first.until_finished()
    out, data = tmp_path / "out", tmp_path / "data"
    r = gantry("data", "export", first.run, "--to", "npz", out, "--all")
    assert r.returncode == 0 and "4 episodes" in r.stdout, r.stdout + r.stderr
    r = gantry("data", "import", "--from", "npz", out, "--to", data, "--failed", "keep")
    assert r.returncode == 0 and "4 episodes" in r.stdout and "1 picture of 64x64 (render)" in r.stdout, r.stdout + r.stderr
    stats = json.loads((data / "dataset_statistics.json").read_text())["data"]
    assert stats["num_trajectories"] == 4 and len(stats["action"]["q01"]) == 7

    second = make_cluster(stages=[{"demos": {"from": str(data)}}, SFT])
    second.up()
    second.until_finished()
    second.history()
    assert weights(second) == weights(first)
    training = json.loads((second.run / "policies" / "v000001" / "training.json").read_text())
    assert training["data"][0]["dir"] == str(data) and training["data"][0]["episodes"] == 4 and len(training["data"][0]["digest"]) == 64
    assert json.loads((second.run / "policies" / "v000001" / "manifest.json").read_text())["consumed"] == []
    assert gantry("report", second.run).returncode == 0
    page = (second.run / "report.html").read_text()
    assert f"<td>{data}</td><td>4</td><td>policy v1</td><td><code>{training['data'][0]['digest'][:12]}</code></td>" in page


def reads_only(run, *words):
    """gantry where `run` cannot be written to: for root only another mount is such a place."""
    if os.geteuid():
        run.chmod(0o555)
        try:
            return gantry(*words)
        finally:
            run.chmod(0o755)
    script = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
    return subprocess.run(["unshare", "--mount", "sh", "-c", script, run, BIN / "gantry", *words], capture_output=True, text=True)


def test_a_run_that_may_only_be_read(make_cluster, tmp_path):
    """Another user's, or a backup: all that only reads does, without leaving anything behind; one that was not closed is named."""
    cluster = make_cluster(stages=[{"demos": {"episodes": 4}}])
    cluster.start()
    cluster.until_finished()
    cluster.until(lambda s: s is None, "its daemons to end")
    probe = reads_only(cluster.run, "help")
    if probe.returncode != 0:
        pytest.skip(f"no mounts of one's own here: {probe.stderr}")
    for words in ["history", "check", cluster.run], ["replay", cluster.run, "1", "-o", tmp_path / "film.png"], \
            ["data", "export", cluster.run, "--to", "npz", tmp_path / "out", "--all"]:
        r = reads_only(cluster.run, *words)
        assert r.returncode == 0, r.stderr
    assert len(list((tmp_path / "out").glob("*.npz"))) == 4 and not list(Path(tempfile.gettempdir()).glob("gantry-ledger-*"))
    r = reads_only(cluster.run, "status", cluster.run)
    assert "the run is finished" in r.stderr, r.stderr
    (cluster.run / "ledger.sqlite-wal").write_bytes(b"")
    r = reads_only(cluster.run, "history", cluster.run)
    assert r.returncode == 1 and "ledger.sqlite: was not closed, and nobody may write beside it here: copy the run's directory" in r.stderr, r.stderr


def test_what_does_not_fit_is_said_before_the_start(make_cluster, tmp_path):
    data = tmp_path / "data"
    assert gantry("data", "import", "--from", "npz", TOP / "tests/golden/import/npz", "--to", data).returncode == 0
    cluster = make_cluster(stages=[{"demos": {"from": str(data)}}, SFT])
    r = gantry("up", cluster.config)
    assert r.returncode != 0 and "stages[0].demos.from" in r.stderr and "pictures of 16x16 by the chain render; suite.image is 64" in r.stderr, r.stderr
    cluster = make_cluster(stages=[{"demos": {"from": str(tmp_path / "nowhere")}}, SFT])
    r = gantry("up", cluster.config)
    assert r.returncode != 0 and "`gantry data import` makes such a directory" in r.stderr, r.stderr
    r = gantry("data", "import", "--from", "lerobot", "somewhere", "--to", data)
    assert r.returncode == 1 and "deploy/lerobot_to_npz.py" in r.stderr


def test_no_gripper(tmp_path):
    """All numbers of an action are normalised, also when the statistics are made again."""
    npz, data = TOP / "tests/golden/import/npz", tmp_path / "data"
    for kind, mask in ("as-is", [True] * 6 + [False]), ("none", [True] * 7):
        r = gantry("data", "import", "--from", "npz", npz, "--to", data / kind, "--gripper", kind)
        assert r.returncode == 0 and ("the last a gripper's" in r.stdout) == (kind != "none"), r.stdout + r.stderr
        for words in [], ["data", "stats", data / kind]:
            assert not words or gantry(*words).returncode == 0
            assert json.loads((data / kind / "dataset_statistics.json").read_text())[kind]["action"]["mask"] == mask


def with_pyarrow():
    python = next((p for p in [sys.executable, os.environ.get("GANTRY_PYTHON", "")] if p and
                   subprocess.run([p, "-c", "import pyarrow, numpy, PIL"], capture_output=True).returncode == 0), None)
    if not python:
        pytest.skip("needs pyarrow, numpy and Pillow ($GANTRY_PYTHON may name an interpreter that has them)")
    return python


def done(*words):
    r = subprocess.run(words, capture_output=True, text=True, timeout=100)
    assert r.returncode == 0, r.stderr
    return r.stdout


def test_lerobot_v3(tmp_path):
    """Several episodes in one parquet file, and in one mp4 file: each gets its own rows and pictures."""
    python, npz, back = with_pyarrow(), TOP / "tests/golden/import/npz", tmp_path / "back"
    done(python, TOP / "tests/system/lerobot_v3.py", npz, tmp_path / "v3")
    done(python, TOP / "deploy/lerobot_to_npz.py", tmp_path / "v3", back)
    done(python, "-c", """
import sys
from pathlib import Path
import numpy as np
source, back = map(Path, sys.argv[1:])
for e, path in enumerate(sorted(source.glob("*.npz"))):
    a, b = np.load(path), np.load(back / f"episode_{e + 1:06d}.npz")
    for name in "image", "wrist_image", "state", "action", "instruction":
        assert np.array_equal(a[name].astype(b[name].dtype), b[name]), (e, name)
    if "image_2" in b.files:
        assert np.abs(b["image_2"].mean((1, 2, 3)) - 60 * e - 16 * np.arange(len(b["action"]))).max() < 8        # half a step: none is its neighbour
""", npz, back)
    r = subprocess.run([python, TOP / "deploy/lerobot_to_npz.py", tmp_path / "v3", back], capture_output=True, text=True)
    assert r.returncode == 1 and r.stderr == f"lerobot_to_npz: {back}: is there already\n"
    info = tmp_path / "v3/meta/info.json"
    info.write_text(info.read_text().replace("v3.0", "v4.0"))
    r = subprocess.run([python, TOP / "deploy/lerobot_to_npz.py", tmp_path / "v3", tmp_path / "none"], capture_output=True, text=True)
    assert r.returncode == 1 and "version v4.0, expected v2.0, v2.1 or v3.0" in r.stderr and not (tmp_path / "none").exists()


def test_lerobot_by_its_converters(tmp_path):
    python = with_pyarrow()
    npz, data, out = TOP / "tests/golden/import/npz", tmp_path / "data", tmp_path / "out"
    assert gantry("data", "import", "--from", "npz", npz, "--to", data, "--name", "libero").returncode == 0
    r = gantry("data", "export", data, "--to", "lerobot", out)
    assert r.returncode == 0 and "deploy/npz_to_lerobot.py" in r.stdout, r.stdout + r.stderr
    for step in [["npz_to_lerobot.py", out, tmp_path / "lerobot"], ["lerobot_to_npz.py", tmp_path / "lerobot", tmp_path / "back"]]:
        done(python, TOP / "deploy" / step[0], *step[1:])
    again = tmp_path / "again"
    assert gantry("data", "import", "--from", "npz", tmp_path / "back", "--to", again, "--name", "libero").returncode == 0
    assert gantry("data", "stats", data, "-o", tmp_path / "a").returncode == 0 and gantry("data", "stats", again, "-o", tmp_path / "b").returncode == 0
    assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text()
