"""For tests of what is refused: a start that must end with one line, and places and ports that will not do."""
import re
import socket
import subprocess
from contextlib import contextmanager

import pytest

from conftest import BIN, TOP, gantry


def coordinator(cluster, timeout=60):
    cluster.run.mkdir(exist_ok=True)
    return subprocess.run([BIN / "gantry-coordinator", "--config", cluster.config, "--run-dir", cluster.run], capture_output=True,
                          text=True, timeout=timeout, cwd=TOP)


def up_refuses(cluster, *says):
    """One line, and nothing was started."""
    r = gantry("up", cluster.config)
    assert r.returncode != 0 and len(r.stderr.strip().splitlines()) == 1 and not r.stdout, r.stdout + r.stderr
    for text in says:
        assert text in r.stderr, r.stderr
    assert not list(cluster.run.glob("log/*.log"))


@contextmanager
def a_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        yield s.getsockname()[1]


@contextmanager
def mounted(where, options):
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", where], capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f"a file system cannot be mounted: {mount.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", where], check=True)


def needed(cluster, what):
    r = gantry("up", cluster.config)
    if "is in use" in r.stderr:
        pytest.skip(f"this host has all that {what}")
    return int(re.search(rf"needs about (\d+) MB of {what}", r.stderr)[1])
