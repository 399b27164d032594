"""`gantry config set`: the files of an experiment from one file."""
import subprocess

import pytest

from conftest import BIN, TOP


def config(*words, text=None):
    return subprocess.run([BIN / "gantry", "config", *words], capture_output=True, text=True, cwd=TOP, input=text)


@pytest.mark.parametrize("path", sorted((TOP / "deploy").glob("*.yaml")), ids=lambda path: path.name)
def test_other_values_and_nothing_else(path):
    """Also read from a pipe, as shells make them of <(...)."""
    made = config("set", path, "run.seed=12345", "cluster.slots=3")
    assert made.returncode == 0 and made.stderr == ""
    assert made.stdout.splitlines()[0] == f"# {path}, with run.seed=12345 cluster.slots=3"
    shown, before = config("show", "/dev/stdin", text=made.stdout), config("show", path)
    assert shown.returncode == 0
    changed = [now for was, now in zip(before.stdout.splitlines(), shown.stdout.splitlines(), strict=True) if was != now]
    assert set(changed) == {"  seed: 12345", "  slots: 3"}


def test_what_is_not_right_is_not_printed():
    for change, says in (("rl.lrr=1", "stages[6].rl.lrr: unknown key; nearest: lr"), ("rll.lr=1", "stages: demos, sft, sft2, sft3"),
                         ("run.seed", "expected: PLACE.KEY=VALUE")):
        r = config("set", "deploy/demo.yaml", change)
        assert r.returncode == 1 and r.stdout == "" and says in r.stderr and len(r.stderr.splitlines()) == 1
    r = config("set", "deploy/no.yaml", "run.seed=8")
    assert r.returncode == 1 and r.stderr == "deploy/no.yaml: cannot be read: No such file or directory\n"
