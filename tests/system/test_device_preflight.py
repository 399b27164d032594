"""`gantry up` with `device: cuda:N`: what cannot work is said in one line, with the key, before any daemon starts."""
import os
import subprocess

import pytest

from conftest import BIN, TOP

EMULATED = TOP / "build/release/tests/emulate"
GPU = {"cluster": {"actors": [{"device": "cuda:0"}], "learners": [{"device": "cuda:0"}]}}


def refused(program, cluster, says, **env):
    done = subprocess.run([program, "up", cluster.config], capture_output=True, text=True, timeout=60, cwd=TOP, env=os.environ | env)
    assert done.returncode != 0 and len(done.stderr.strip().splitlines()) == 1, done.stderr
    for words in says:
        assert words in done.stderr, done.stderr
    assert not (cluster.run / "log").exists() or not list((cluster.run / "log").iterdir())     # nobody was started


@pytest.fixture
def emulated():
    if not (EMULATED / "gantry").exists():
        pytest.skip("make tests builds the emulated gantry")
    return EMULATED / "gantry"


def test_no_driver(make_cluster):
    if os.path.exists("/proc/driver/nvidia/version"):
        pytest.skip("there is a driver")
    says = ["cluster.actors[0]", "cuda:0"]
    refused(BIN / "gantry", make_cluster(GPU), says + ["no NVIDIA driver is installed, or it is not loaded"])


def test_an_old_driver(make_cluster):
    if not (EMULATED / "old-driver/libcuda.so.1").exists():
        pytest.skip("make tests builds the old driver")
    refused(BIN / "gantry", make_cluster(GPU), ["cluster.actors[0]", "the driver knows CUDA 11.4, this build needs", "update the driver"],
            LD_LIBRARY_PATH=str(EMULATED / "old-driver"))


def test_a_device_that_is_not_there(make_cluster, emulated):
    refused(emulated, make_cluster({"cluster": {"learners": [{"device": "cuda:3"}]}}),
            ["cluster.learners[0]", ":3: there is 1 emulated device, numbered from 0"])


def test_too_little_memory(make_cluster, emulated):
    """The largest items and the knob, over all daemons that share the device; adapters need less."""
    says = ["cluster: cuda:0 (emulated): the run needs about", "4 of 4 MiB are free", "take", "try: "]
    refused(emulated, make_cluster(GPU), says, GANTRY_EMULATED_MEMORY=str(4 << 20))
