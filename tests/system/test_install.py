"""`make install`: what the documentation says is there, and works from there."""
import os
import re
import shutil
import subprocess

import pytest

from conftest import TOP

PROGRAMS = ["gantry", "gantry-coordinator", "gantry-learner", "gantry-actor", "gantry-prm-server", "gantry-env-worker"]


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    """Without building anew: whoever runs the tests has built."""
    root = tmp_path_factory.mktemp("root")
    r = subprocess.run(["make", "-s", "-C", TOP, "-o", "all", "install", f"DESTDIR={root}", "PREFIX=/usr"], capture_output=True, text=True)
    assert r.returncode == 0, r.stderr
    return root / "usr"


def installed(prefix, *args, program="gantry"):
    """In a directory where nothing lies, without what the shell says of the source's."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MUJOCO", "LD_LIBRARY", "GANTRY"))}
    r = subprocess.run([prefix / "bin" / program, *map(str, args)], capture_output=True, text=True, cwd="/", env=env, timeout=60)
    assert r.returncode == 0, r.stdout + r.stderr
    return r.stdout


def test_programs_start(prefix):
    assert sorted(p.name for p in (prefix / "bin").iterdir()) == sorted(PROGRAMS)
    for program in PROGRAMS:
        assert installed(prefix, "--version", program=program)
    assert "pick_up_object" in installed(prefix, "sim", "list")         # the simulator's library beside them
    installed(prefix, "model", "verify", prefix / "share/gantry/models/tiny")


def test_examples_are_there(prefix):
    """Each file of deploy/ that the documentation names, and configurations that hold where they lie now."""
    share = prefix / "share/gantry"
    pages = [*(TOP / "docs").glob("*.md"), TOP / "README.md"]
    named = {name for page in pages for name in re.findall(r"\bdeploy/([\w.-]+\.(?:yaml|py|json))\b", page.read_text())}
    assert {"demo.yaml", "gantry_sim.py", "grafana.json"} <= named
    assert not [name for name in named if not (share / name).is_file()]
    assert installed(prefix, "demo", "--config") == (share / "demo.yaml").read_text() == (TOP / "deploy/demo.yaml").read_text()
    for config in share.glob("*.yaml"):
        installed(prefix, "config", "check", config)
    for unit in (prefix / "lib/systemd/system").iterdir():
        assert not re.search(r"@[A-Z]+@", unit.read_text()), unit
    assert {u.name for u in (prefix / "lib/systemd/system").iterdir()} == {u.name for u in (TOP / "deploy/systemd").iterdir()}
    assert os.access(share / "slurm/gantry-core.sbatch", os.X_OK) and os.access(share / "slurm/gantry-workers.sbatch", os.X_OK)


def test_a_program_without_its_job_scripts_says_so(prefix, tmp_path):
    """And prints no command that would submit whatever."""
    (tmp_path / "bin").mkdir()
    shutil.copy(prefix / "bin/gantry", tmp_path / "bin")
    (tmp_path / "lib").symlink_to(prefix / "lib")
    r = subprocess.run([tmp_path / "bin/gantry", "deploy", "slurm", "--config", prefix / "share/gantry/demo.yaml"],
                       capture_output=True, text=True, cwd=tmp_path)
    assert r.returncode == 1 and "slurm: neither in" in r.stderr and r.stdout == "", r.stdout + r.stderr


def test_pages_lead_to_one_another(prefix):
    doc = prefix / "share/gantry/doc"
    links = {(page, link) for page in doc.rglob("*.md") for link in re.findall(r"\]\((\w[\w./-]+\.(?:md|png))", page.read_text())}
    assert len(links) > 10
    assert not [(page.name, link) for page, link in sorted(links) if not (page.parent / link).exists()]
