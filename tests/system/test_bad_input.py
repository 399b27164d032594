"""What people and strangers get wrong: one clear line, a non-zero exit or a refusal, and nobody dies of it."""
import json
import os
import socket
import subprocess

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


# ---- strangers at the sockets ----

def greeting(s):
    """The ZMTP 3.0 greeting and READY of a DEALER that uses no security."""
    s.sendall(b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + b"\0" + bytes(31))
    ready = b"\x05READY" + b"\x0bSocket-Type" + (6).to_bytes(4, "big") + b"DEALER"
    s.sendall(b"\x04" + bytes([len(ready)]) + ready)


def frame(data, more):
    return bytes([more | (2 if len(data) > 255 else 0)]) + (len(data).to_bytes(8, "big") if len(data) > 255 else bytes([len(data)])) + data


def receive_frame(s):
    flags, size = receive(s, 1)[0], 0
    size = int.from_bytes(receive(s, 8 if flags & 2 else 1), "big")
    return flags, receive(s, size)


def receive(s, n):
    data = b""
    while len(data) < n:
        more = s.recv(n - len(data))
        assert more, "the connection was closed"
        data += more
    return data


def ping(path):
    """A proper Ping from a bare socket; the Pong's envelope. Shows that `greeting` gets us in."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(10)
        s.connect(str(path))
        greeting(s)
        receive(s, 64)                                  # the server's greeting
        assert receive_frame(s)[1].startswith(b"\x05READY")
        # protocol 1.0, kind 90, request 42, one part of 0 bytes with CRC 0
        s.sendall(frame(b"\x08\x80\x80\x04\x10\x5a\x18\x2a\x52\x04\0\0\0\0\x5a\x04\0\0\0\0", True) + frame(b"", False))
        return receive_frame(s)[1]


def hostile():
    envelope = b"\x08\x80\x80\x04\x10\x28\x18\x2a"      # protocol 1.0, kind act, request 42
    yield b"\x00" * 4096                                # no greeting at all
    yield os.urandom(4096)
    for body in ([b""], [b"\xff" * 9000], [envelope], [envelope, b"x", b"y"], [os.urandom(300), os.urandom(70000)],
                 [envelope + b"\x52\x04\xff\xff\xff\x7f" + b"\x5a\x04\0\0\0\0", b""],         # a part of 2 GiB announced
                 [envelope + b"\x52\x80\x20" + bytes(4096) + b"\x5a\x80\x20" + bytes(4096)]):  # a thousand parts announced
        yield b"".join(frame(part, i + 1 < len(body)) for i, part in enumerate(body))
    yield b"\x02" + (1 << 40).to_bytes(8, "big")        # a frame of 1 TiB


def test_hostile_frames(make_cluster):
    """Junk at every daemon's socket, before and after a proper greeting: all five live and finish the run."""
    cluster = make_cluster(stages=[{"demos": {"episodes": 40, "style": "clean"}}, {"sft": {"steps": 2, "batch": 8, "warmup": 1}},
                                   {"rollouts": {"episodes": 8}}])
    cluster.start()
    cluster.until(lambda s: s and len(s["members"]) == 4, "all members")
    sockets = sorted((cluster.run / "sock").glob("*.ipc"))
    assert len(sockets) >= 4, sockets           # coordinator, learner, actor, prm-server
    for path in sockets:
        assert b"\x10\x5b\x18\x2a" in ping(path)       # kind 91, request 42
        for greet in (False, True):
            for junk in hostile():
                with socket.socket(socket.AF_UNIX) as s:
                    s.settimeout(5)
                    s.connect(str(path))
                    try:
                        if greet:
                            greeting(s)
                        s.sendall(junk)
                    except (BrokenPipeError, ConnectionResetError):
                        pass                    # shown the door already
        assert b"\x10\x5b\x18\x2a" in ping(path)
    summary = cluster.until_finished()
    assert summary["run"] == "tiny"
    assert [p.starts for p in cluster.processes] == [1] * 5, cluster.logs()
    assert " 0 failed" in cluster.history()


@pytest.mark.parametrize("line", ["", "prm swap 77", "cordon x", "nonsense", "x" * 10000])
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
