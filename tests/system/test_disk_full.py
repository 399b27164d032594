"""No space left: the run is paused, says so, and goes on by itself once there is room. Nothing that was acknowledged is lost."""
import os
import subprocess

import pytest

STAGES = [{"demos": {"episodes": 60, "style": "clean"}}, {"sft": {"steps": 30, "batch": 16, "warmup": 1, "commit_every": 30}},
          {"rollouts": {"episodes": 8}}]


@pytest.fixture
def small_disk(make_cluster):
    """A cluster whose run directory is a file system of its own."""
    cluster = make_cluster(stages=STAGES)
    cluster.run.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128m", "none", cluster.run], capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f"a small file system cannot be mounted: {mount.stderr.strip() or mount.stdout.strip()}")
    yield cluster
    cluster.close()
    subprocess.run(["umount", cluster.run], check=True)


def fill(cluster):
    """Every last byte."""
    with open(cluster.run / "ballast", "wb", buffering=0) as f:
        for size in (1 << 20, 4096):
            try:
                while True:
                    f.write(bytes(size))
            except OSError:
                pass


def until_paused(cluster, said):
    log = cluster.of("learner")[0].log
    status = cluster.until(lambda s: s and s["state"] == "paused" and said in log.read_text(errors="replace") and s, f"`{said}`")
    assert status["waiting_for"].startswith("space in "), status["waiting_for"]
    assert status["left_s"] is status["env_steps_per_s"] is status["updates_per_s"] is None, "a pause has no speed and no end"


def test_paused_and_resumed(small_disk):
    cluster = small_disk
    cluster.faults["learner-0"] = "deliver.arrive=stop@5,plan.arrive=stop@1"        # the fifth episode, the plan of imitation
    cluster.start()
    learner = cluster.of("learner")[0]
    cluster.until(lambda _: learner.stands_still(), "the first episodes")
    fill(cluster)
    learner.go_on()
    until_paused(cluster, "no space left for the journal")
    os.unlink(cluster.run / "ballast")
    cluster.until(lambda _: learner.stands_still(), "imitation")
    fill(cluster)
    learner.go_on()
    until_paused(cluster, "No space left on device")        # the version cannot be written
    coordinator = cluster.of("coordinator")[0]
    coordinator.kill()                                      # its next life waits for room, too
    cluster.until(lambda s: "waiting for room" in coordinator.log.read_text() and not s, "the coordinator's wait")
    os.unlink(cluster.run / "ballast")
    summary = cluster.until_finished()
    assert [p.starts for p in cluster.processes] == [2] + [1] * 4, cluster.logs()
    assert summary["episodes"]["kept"] == 60 + 8 and summary["episodes"]["failed"] == 0
    assert " 0 failed" in cluster.history()


def test_ledger_waits_for_room(make_cluster):
    """The coordinator alone, and no full disk but a quota: its step is kept until it can be written, and workers play on meanwhile."""
    cluster = make_cluster(stages=[{"demos": {"episodes": 40, "style": "clean"}}])
    cluster.faults["coordinator-0"] = "ledger.commit=edquot@20-22"
    cluster.start()
    cluster.until(lambda s: s and s["state"] == "paused" and s["waiting_for"] == f"space in {cluster.run}", "the pause")
    summary = cluster.until_finished()
    log = cluster.of("coordinator")[0].log.read_text()
    assert log.count("no space left: the run is paused") == 1 and "there is room again" in log
    assert [p.starts for p in cluster.processes] == [1] * 5, cluster.logs()
    assert summary["episodes"]["kept"] == 40
    assert " 0 failed" in cluster.history()
