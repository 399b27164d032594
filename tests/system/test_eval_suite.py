"""`gantry eval MODEL --suite NAME`: a checkpoint on a benchmark, through the daemons; resumable; what is wrong is said in one line."""
import json
import re
import signal
import subprocess
import time

import pytest

from conftest import BIN, PATIENCE, TOP, gantry


def test_table_and_resume(model, tmp_path):
    """Stopped in the middle, the same command plays what is missing; once all is there it only prints."""
    args = [BIN / "gantry", "eval", model, "--suite", "tabletop", "--tasks", "0,open_drawer", "--trials", "20", "--temperature", "1",
            "--env-workers", "1", "--dir", tmp_path / "run", "--json"]
    first = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=TOP)
    end = time.monotonic() + PATIENCE
    played = 0
    while not played and time.monotonic() < end and first.poll() is None:
        status = gantry("status", "--json", tmp_path / "run")
        played = json.loads(status.stdout)["episodes"]["journaled"] if status.returncode == 0 else 0
    first.send_signal(signal.SIGTERM)
    out, err = first.communicate(timeout=PATIENCE)
    if first.returncode != 0:   # it may have been through already
        told = re.search(r"(\d+) of 40 episodes were played; the same command goes on from there", err)
        assert told and int(told.group(1)) >= played, err
    r = subprocess.run(args, capture_output=True, text=True, cwd=TOP, timeout=PATIENCE)
    assert r.returncode == 0, r.stderr
    result = json.loads(r.stdout)
    assert result["episodes"] == 40 and result["trials"] == 20
    assert {t: v["episodes"] for t, v in result["tasks"].items()} == {"pick_up_object": 20, "open_drawer": 20}
    assert sum(v["successes"] for v in result["tasks"].values()) == result["successes"]
    low, high = result["interval"]
    assert low <= result["success"] <= high
    again = subprocess.run(args[:-1], capture_output=True, text=True, cwd=TOP, timeout=PATIENCE)
    assert again.returncode == 0 and re.search(rf" {result['successes']}/40 .* tabletop$", again.stdout.strip()), again.stdout
    assert gantry("history", "check", tmp_path / "run").returncode == 0
    assert gantry("report", tmp_path / "run").returncode == 0 and "<th>temperature</th>" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize("args, words", [
    (["/nowhere", "--suite", "tabletop"], "/nowhere: No such file"),
    (["models", "--suite", "tabletop"], "expected an OpenVLA checkpoint's directory"),
    (["models/tiny", "--suite", "libero_1"], "no suite is called 'libero_1'"),
    (["models/tiny", "--suite", "tabletop", "--tasks", "push_to_target,dance"], "no task 'dance'"),
    (["models/tiny", "--suite", "tabletop", "--trials", "none"], "--trials: 'none'"),
])
def test_refusals(args, words):
    r = gantry("eval", *args)
    assert r.returncode != 0 and words in r.stderr, r.stderr
    assert len(r.stderr.splitlines()) == 1, r.stderr
