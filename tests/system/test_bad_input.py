"""What people and strangers get wrong: one clear line, a non-zero exit or a refusal, and nobody dies of it."""
import json
import shutil
import socket
import sqlite3
import subprocess
from contextlib import closing

import pytest

from conftest import BIN, TOP, gantry


def coordinator(cluster, timeout=20):
    cluster.run.mkdir(exist_ok=True)
    return subprocess.run([BIN / "gantry-coordinator", "--config", cluster.config, "--run-dir", cluster.run], capture_output=True,
                          text=True, timeout=timeout, cwd=TOP)


def test_unknown_key(make_cluster):
    cluster = make_cluster()
    cluster.config.write_text(cluster.config.read_text().replace('"iterations"', '"iteratoins"'))
    for r in (coordinator(cluster), gantry("up", cluster.config)):
        assert r.returncode != 0
        assert "iteratoins" in r.stderr and "nearest" in r.stderr and "run.yaml:" in r.stderr, r.stderr
    assert not (cluster.run / "ledger.sqlite").exists()


def test_missing_checkpoint(make_cluster):
    cluster = make_cluster({"policy": {"init": "/nowhere/at/all"}})
    r = coordinator(cluster)
    assert r.returncode != 0
    assert "/nowhere/at/all" in r.stderr, r.stderr


def test_truncated_checkpoint(make_cluster, model, tmp_path):
    """A shard cut short is refused where it is loaded, with its name."""
    broken = tmp_path / "broken"
    broken.mkdir()
    for f in model.iterdir():
        data = f.read_bytes()
        (broken / f.name).write_bytes(data[: len(data) // 2] if f.suffix == ".safetensors" else data)
    r = gantry("model", "inspect", broken)
    assert r.returncode != 0 and "safetensors" in r.stderr, r.stderr


def test_model_of_another_suite(make_cluster, model, tmp_path):
    """Six numbers an action, or pictures of another size: said before anything starts."""
    other = tmp_path / "six"
    shutil.copytree(model, other)
    stats = json.loads((other / "dataset_statistics.json").read_text())
    for rows in stats["tabletop"].values():
        for key in rows if isinstance(rows, dict) else ():
            rows[key] = rows[key][:6]
    (other / "dataset_statistics.json").write_text(json.dumps(stats))
    for changes, says in (({"policy": {"init": str(other)}}, "its actions have 6 dimensions, the suite tabletop takes 7"),
                          ({"suite": {"image": 32}}, "looks at pictures of 64x64, suite.image is 32")):
        done = gantry("up", make_cluster(changes).config)
        assert done.returncode != 0 and says in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_reward_model_of_another_suite_or_kind(make_cluster, model, tmp_path):
    """prm.init: trained on other pictures, or no backbone that is known: said before anything starts."""
    for name, changes, says in (
            ("chain", {"gantry_image_chain": "rot180+jpeg95+lanczos3"},
             "was trained on pictures of the chain rot180+jpeg95+lanczos3, suite.chain is render"),
            ("kind", {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, "found LlamaForCausalLM")):
        other = tmp_path / name
        shutil.copytree(model, other)
        config = json.loads((other / "config.json").read_text())
        (other / "config.json").write_text(json.dumps(config | changes))
        done = gantry("up", make_cluster({"prm": {"init": str(other)}}).config)
        assert done.returncode != 0 and "prm.init" in done.stderr and says in done.stderr, done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_port_in_use(make_cluster):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        cluster = make_cluster({"status": {"http": f"127.0.0.1:{s.getsockname()[1]}"}})
        r = coordinator(cluster)
    assert r.returncode != 0
    assert str(s) and "127.0.0.1" in r.stderr and "use" in r.stderr.lower(), r.stderr


def test_other_config(make_cluster):
    """The run directory of another configuration is not touched."""
    cluster = make_cluster(stages=[{"demos": {"episodes": 2, "style": "clean"}}])
    cluster.start()
    cluster.until_finished()
    before = (cluster.run / "config.yaml").read_text()
    config = json.loads(cluster.config.read_text())
    config["run"]["seed"] = 999
    cluster.config.write_text(json.dumps(config))
    r = coordinator(cluster)
    assert r.returncode != 0
    assert "config" in r.stderr or "seed" in r.stderr, r.stderr
    assert (cluster.run / "config.yaml").read_text() == before


def test_lock_is_held(make_cluster):
    cluster = make_cluster(stages=[{"demos": {"episodes": 400, "style": "clean"}}])
    cluster.start()
    cluster.until(lambda s: s, "the coordinator")
    pid = cluster.of("coordinator")[0].popen.pid
    r = coordinator(cluster)
    assert r.returncode != 0
    assert str(pid) in r.stderr, f"the line should name the holder {pid}: {r.stderr}"
    assert cluster.of("coordinator")[0].running()


def test_run_directory_of_a_newer_gantry(make_cluster):
    """Its ledger has a layout that this one does not know: refused with both numbers, and left as it is."""
    cluster = make_cluster(stages=[{"demos": {"episodes": 2, "style": "clean"}}])
    cluster.start()
    cluster.until_finished()
    with closing(sqlite3.connect(cluster.run / "ledger.sqlite")) as db:
        db.execute("pragma user_version = 99")
    r = coordinator(cluster)
    assert r.returncode != 0 and "99" in r.stderr and "ledger.sqlite" in r.stderr, r.stderr
    with closing(sqlite3.connect(cluster.run / "ledger.sqlite")) as db:
        assert db.execute("pragma user_version").fetchone() == (99,)


def test_read_only_directory(make_cluster):
    """No half-started cluster: one line that names the directory."""
    cluster = make_cluster()
    cluster.run.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=1m", "none", cluster.run], capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f"a read-only file system cannot be mounted: {mount.stderr.strip()}")
    try:
        r = coordinator(cluster)
        assert r.returncode != 0 and str(cluster.run) in r.stderr and "Read-only" in r.stderr, r.stderr
        up = gantry("up", cluster.config)
        assert up.returncode != 0 and str(cluster.run) in up.stderr and "Read-only" in up.stderr, up.stderr
    finally:
        subprocess.run(["umount", cluster.run], check=True)


def test_page_token(make_cluster, tmp_path):
    """A file that others can read, or that is not there, stops the coordinator with a line that does not say what is in it."""
    token = tmp_path / "token"
    cluster = make_cluster({"status": {"http": "127.0.0.1:0", "token_file": str(token)}})
    r = coordinator(cluster)
    assert r.returncode != 0 and str(token) in r.stderr and "No such file" in r.stderr, r.stderr
    token.write_text("a-secret-that-nobody-says\n")
    token.chmod(0o644)
    r = coordinator(cluster)
    assert r.returncode != 0 and "chmod 600" in r.stderr and "a-secret" not in r.stderr, r.stderr


@pytest.mark.parametrize("line", ["", "prm swap 77", "prm swap 1 at x", "prm rollback", "cordon x", "nonsense", "x" * 10000])
def test_admin_lines(make_cluster, line):
    cluster = make_cluster(stages=[{"demos": {"episodes": 400, "style": "clean"}}])
    cluster.run.mkdir()
    cluster.spawn("coordinator")
    cluster.until(lambda s: s, "the coordinator")
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(5)
        s.connect(str(cluster.run / "sock" / "status.sock"))
        s.sendall(line.encode() + b"\n")
        try:
            answer = s.recv(1 << 16).decode()
        except ConnectionResetError:
            answer = ""
    assert answer.startswith("error") or answer == "" or line == "", answer
    assert cluster.until(lambda s: s, "it still answers")
