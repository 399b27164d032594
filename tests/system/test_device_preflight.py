"""`gantry up` with `device: cuda:N`: what cannot work is said in one line, with the key, before any daemon starts."""
import os
import re
import socket
import subprocess

import pytest
import sanitized

from conftest import BIN, TOP

EMULATED = TOP / "build" / (sanitized.BUILD or "release") / "tests/emulate"
GPU = {"cluster": {"actors": [{"device": "cuda:0"}], "learners": [{"device": "cuda:0"}]}}


def refused(program, cluster, says, **env):
    done = subprocess.run([program, "up", cluster.config], capture_output=True, text=True, timeout=60, cwd=TOP, env=os.environ | env)
    if "this build is for the CPU only" in done.stderr:
        pytest.skip("built without CUDA: it has no driver to look for")
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


def needed(make_cluster, program, changes, batch=8):
    """MiB that the run is said to need of its device."""
    stages = [{"rollouts": {"episodes": 4}}, {"prm": {"steps": 3, "batch": batch}}]
    done = subprocess.run([program, "up", make_cluster(changes, stages=stages).config], capture_output=True, text=True, timeout=60, cwd=TOP,
                          env=os.environ | {"GANTRY_EMULATED_MEMORY": str(1 << 20)})
    said = re.search(r"the run needs about (\d+) MiB there", done.stderr)
    assert said, done.stderr
    return int(said.group(1))


@pytest.mark.parametrize("init", ["policy", "tests/golden/nano_qwen"])
def test_what_a_reward_model_takes(make_cluster, emulated, init):
    """Learning it: its own minibatch. Serving it: the pictures that its prompts show, in every thread."""
    learner = {"prm": {"init": init}, "cluster": {"learners": [{"device": "cuda:0"}]}}
    assert needed(make_cluster, emulated, learner, 1024) > 4 * needed(make_cluster, emulated, learner)

    def served(history, threads):
        return needed(make_cluster, emulated, {"prm": {"init": init, "history": history},
                                               "cluster": {"prm_servers": [{"device": "cuda:0", "threads": threads}]}})
    assert served(6, 8) > 1.2 * served(0, 8) > 4 * served(0, 1)


def test_a_reward_model_that_is_another_policy(make_cluster, emulated, tmp_path):
    """Counted by its own size."""
    other = tmp_path / "tiny"
    subprocess.run([BIN / "gantry", "model", "new", other, "--spec", TOP / "tests/golden/nano"], check=True, cwd=TOP)
    server = {"cluster": {"prm_servers": [{"device": "cuda:0"}]}}
    assert needed(make_cluster, emulated, server | {"prm": {"init": str(other)}}) != needed(make_cluster, emulated, server)


def test_what_a_device_holds_is_not_asked_of_the_host(make_cluster, emulated):
    """A minibatch's activations on the host would not fit; there they do, and what is refused is what is asked next."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for device, says in ("cuda:0", f"127.0.0.1:{port}"), ("cpu", "MB of memory"):
            changes = {"status": {"http": f"127.0.0.1:{port}"}, "cluster": {"learners": [{"device": device, "threads": 8}]}}
            stages = [{"demos": {"episodes": 4}}, {"sft": {"steps": 3, "batch": 1 << 16}}]
            refused(emulated, make_cluster(changes, stages=stages), [says], GANTRY_EMULATED_MEMORY=str(1 << 45))
