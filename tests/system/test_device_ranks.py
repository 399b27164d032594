"""Learner ranks on devices: the shipped learner with kernels on the emulated device and NCCL played between processes (tests/emulate). Two
ranks commit the bytes that one does, also when one of them is killed in the middle of a plan, or loses its device."""
import hashlib
import os
import re
import subprocess
import urllib.request

import pytest
import sanitized

from conftest import BIN, Process, TOP, listens_at, merged

EMULATED = TOP / "build/release/tests/emulate"
STAGES = [{"demos": {"episodes": 4, "style": "clean"}}, {"sft": {"steps": 2, "batch": 4, "warmup": 1}}]


class EmulatedLearner(Process):
    def program(self):
        return [EMULATED / "gantry-learner"]


@pytest.fixture(autouse=True)
def library(monkeypatch):
    if sanitized.BUILD:
        pytest.skip("a device's threads are emulated by contexts that change stacks behind a sanitizer's back")
    if not (EMULATED / "libnccl.so.2").exists():
        pytest.skip("make tests builds the emulated learner")
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{EMULATED}:{os.environ.get('LD_LIBRARY_PATH', '')}")


@pytest.fixture
def model(tmp_path):
    """Small enough for an emulated device."""
    subprocess.run([BIN / "gantry", "model", "new", tmp_path / "nano", "--spec", TOP / "tests/golden/nano"], check=True, cwd=TOP)
    return tmp_path / "nano"


def run(make_cluster, ranks, during=lambda cluster: None, **changes):
    """The weights of the last version, and the learners."""
    cluster = make_cluster(merged({"cluster": {"learners": [{"device": f"cuda:{i}"} for i in range(ranks)]}}, changes), stages=STAGES)
    cluster.run.mkdir(exist_ok=True)
    cluster.spawn("coordinator")
    for rank in range(ranks):
        cluster.processes.append(EmulatedLearner(cluster, "learner", f"learner-{rank}", [
            "--run-dir", cluster.run, "--join", cluster.coordinator, "--threads", 1, "--rank", rank, "--device", "cuda:0"]))
    cluster.spawn("env-worker")
    during(cluster)
    cluster.until_finished()
    cluster.history()
    return hashlib.sha256((cluster.run / "policies" / "v000001" / "model.safetensors").read_bytes()).hexdigest(), cluster.of("learner")


def test_ranks_on_devices(make_cluster, monkeypatch, tmp_path):
    def kill(cluster):
        rank_1 = cluster.of("learner")[1]
        cluster.until(lambda s: 'msg="device memory"' in rank_1.log.read_text(), "rank 1 to train")
        rank_1.kill()           # started again by the cluster's supervision

    def lose(cluster):
        """The device falls off in the middle of a plan: whatever answers with an error, one line, status 1, and the next process goes on."""
        learner = cluster.of("learner")[0]
        cluster.until(lambda s: 'msg="device memory"' in learner.log.read_text(), "the learner to train")
        lost.touch()
        cluster.until(lambda s: "the device answers no more" in learner.log.read_text(), "the learner to notice")
        lost.unlink()

    def told(cluster):
        def of_device(status):
            return [(g["device_memory_used_bytes"], g["device_memory_bytes"]) for m in status["members"] for g in [m["gauges"]]
                    if g.get("device_memory_used_bytes", 0) > 0]

        (used, has), = cluster.until(lambda s: s and of_device(s), "the learner to say what of its device is in use")
        assert 1e6 < used < has == pytest.approx(1 << 32)

    lost = tmp_path / "lost"
    one, _ = run(make_cluster, 1, told)
    monkeypatch.setenv("GANTRY_EMULATED_LOST", str(lost))
    again, learners = run(make_cluster, 1, lose)
    assert again == one
    log = learners[0].log.read_text()
    assert learners[0].starts > 1 and "the GPU has fallen off the bus" in log
    assert log.count("the device answers no more") <= learners[0].starts        # once a life
    monkeypatch.delenv("GANTRY_EMULATED_LOST")
    two, learners = run(make_cluster, 2, kill)
    assert two == one
    assert all("gradients are added by NCCL" in learner.log.read_text() for learner in learners)
    assert learners[1].starts > 1


def test_a_rank_that_fails_alone(make_cluster, monkeypatch):
    """It says why, by its rank; and when it begins anew, the others do not wait in NCCL for what will not come."""
    cluster = make_cluster({"cluster": {"learners": [{"device": "cuda:0"}, {"device": "cuda:1"}]}}, stages=STAGES)
    cluster.run.mkdir(exist_ok=True)
    cluster.spawn("coordinator")
    cluster.spawn("env-worker")
    for rank, memory in enumerate([1 << 32, 1 << 20]):
        monkeypatch.setenv("GANTRY_EMULATED_MEMORY", str(memory))
        cluster.processes.append(EmulatedLearner(cluster, "learner", f"learner-{rank}", [
            "--run-dir", cluster.run, "--join", cluster.coordinator, "--threads", 1, "--rank", rank, "--device", "cuda:0"]))
    log = cluster.of("coordinator")[0].log
    cluster.until(lambda s: re.search(r"kind=plan_failed .*rank 1: .* MiB are needed", log.read_text()), "rank 1 to say why")
    cluster.until(lambda s: "rank 1 has begun the plan anew" in log.read_text(), "rank 0 to notice")


def test_what_libraries_refuse_is_counted_and_told_once(make_cluster, monkeypatch):
    """Without a real device cuBLASLt and cuDNN refuse everything: own kernels train, the metrics count, the log has one line for each. And
    `numerics: fast` is the device's, whatever the CPU beside it can do."""
    monkeypatch.setenv("GANTRY_ISA", "avx2")

    def counted(cluster):
        def both(_):
            port = listens_at(cluster.of("coordinator")[0].popen.pid)
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as reply:
                    lines = reply.read().decode().splitlines()
            except OSError:
                return False
            return all(any(line.startswith(f'gantry_fallback_total{{op="{op}"}} ') and float(line.split()[-1]) > 0 for line in lines)
                       for op in libraries.values())

        cluster.until(lambda s: 'msg="device memory"' in cluster.of("learner")[0].log.read_text(), "the learner to train")
        log = cluster.of("learner")[0].log.read_text()
        libraries.update({line: op for line, word, op in (("cuBLASLt refuses a product", "blas=cublaslt", "gemm"),
                                                          ("cuDNN does not take an attention", "attention=cudnn", "attention")) if word in log})
        if not libraries:
            pytest.skip("neither cuBLASLt nor cuDNN is there")
        cluster.until(both, "the metrics to count")

    libraries = {}
    _, learners = run(make_cluster, 1, counted, run={"numerics": "fast"}, status={"http": "127.0.0.1:0"})
    log = learners[0].log.read_text()
    assert "numerics=fast" in log
    for line in libraries:
        assert log.count(line) == 1, log
