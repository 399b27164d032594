"""Junk, lies and other versions at the daemons' sockets: refused with a line, and nobody dies of it."""
import os
import re
import socket
import struct
import subprocess
import threading

from conftest import BIN, ROLES, TOP, gantry
from zmtp import (KIND_DELIVER, KIND_HELLO, KIND_PING, KIND_VERSION_STATE, connect, data, envelope, frame, greeting, number, receive,
                  receive_frame, reply, send)

PONG = b"\x10\x5b\x18\x2a"                              # kind 91, request 42


def ping(path):
    """A proper Ping from a bare socket; the Pong's envelope. Shows that `greeting` gets us in."""
    with connect(path) as s:
        send(s, envelope(KIND_PING), b"")
        return reply(s)[0]


def hostile():
    head = b"\x08\x80\x80\x04\x10\x28\x18\x2a"          # protocol 1.0, kind act, request 42
    yield b"\x00" * 4096                                # no greeting at all
    yield os.urandom(4096)
    for body in ([b""], [b"\xff" * 9000], [head], [head, b"x", b"y"], [os.urandom(300), os.urandom(70000)],
                 [head + b"\x52\x04\xff\xff\xff\x7f" + b"\x5a\x04\0\0\0\0", b""],         # a part of 2 GiB announced
                 [head + b"\x52\x80\x20" + bytes(4096) + b"\x5a\x80\x20" + bytes(4096)]):  # a thousand parts announced
        yield b"".join(frame(part, i + 1 < len(body)) for i, part in enumerate(body))
    yield b"\x02" + (1 << 40).to_bytes(8, "big")        # a frame of 1 TiB


def throw_junk(path):
    for greet in (False, True):
        for junk in hostile():
            with socket.socket(socket.AF_UNIX) as s:
                s.settimeout(60)
                s.connect(str(path))
                try:
                    if greet:
                        greeting(s)
                    s.sendall(junk)
                except (BrokenPipeError, ConnectionResetError):
                    pass                                # shown the door already


def refused(path, head, *parts):
    """The line a message is answered with."""
    with connect(path) as s:
        send(s, head, *parts)
        return reply(s)[0].decode(errors="replace")


def trajectory(steps=1, progress=(0.5, 0.5), reward=()):
    """A demonstration, of episode 1, with pictures of 1 x 1."""
    body = (number(2, 1) + number(4, 1) + number(12, steps) + number(13, 1) + number(14, 1) + number(15, 7)
            + data(23, bytes(4 * 7)) + data(25, struct.pack(f"<{len(progress)}f", *progress)))
    return body + data(26, struct.pack(f"<{len(reward)}f", *reward)), bytes(6)


def lie_to_the_learner(path, run, epoch):
    def deliver(body, frames, **lies):
        return refused(path, envelope(KIND_DELIVER, run=run, epoch=epoch, parts=(body, frames), **lies), body, frames)

    body, frames = trajectory()
    assert "CRC" in deliver(body, frames, crcs=[1, 2]) or "checksum" in deliver(body, frames, crcs=[1, 2])
    assert "bytes" in deliver(body, frames, sizes=[len(body), 7])
    assert "unpack" in deliver(b"\xff" * 40, frames) or "body" in deliver(b"\xff" * 40, frames)

    def verdict(body, frames):
        """The text of a DeliverReply: well-formed, but no trajectory that could be trained on."""
        with connect(path) as s:
            send(s, envelope(KIND_DELIVER, run=run, epoch=epoch, parts=(body, frames)), body, frames)
            return reply(s)[1].decode(errors="replace")
    assert "out of range" in verdict(*trajectory(steps=4000000000))
    assert "pictures" in verdict(body, frames + b"x")
    assert "progress score or reward is not finite" in verdict(*trajectory(progress=(0.5, float("nan"))))
    assert "progress score or reward is not finite" in verdict(*trajectory(reward=(float("nan"),)))
    assert "one entry for each step" in verdict(*trajectory(reward=(1, 2)))
    assert "another size than the run's (suite.image)" in verdict(body, frames)


def test_hostile_frames(make_cluster):
    """Junk at every daemon's socket, before and after a proper greeting, and lies in proper messages: all live and carry out the run."""
    cluster = make_cluster(stages=[{"demos": {"episodes": 40, "style": "clean"}}, {"sft": {"steps": 2, "batch": 8, "warmup": 1}},
                                   {"rollouts": {"episodes": 8}}])
    cluster.run.mkdir()
    for role in ROLES[:-1]:
        cluster.spawn(role)
    status = cluster.until(lambda s: s and len(s["members"]) == 3 and s, "all members with a socket")
    sockets = sorted((cluster.run / "sock").glob("*.ipc"))
    assert len(sockets) >= 4, sockets           # coordinator, learner, actor, prm-server
    for path in sockets:
        assert PONG in ping(path)
        throw_junk(path)
        assert PONG in ping(path)
    text = refused(cluster.run / "sock" / "coordinator.ipc", envelope(KIND_HELLO, protocol=7 << 16 | 3), b"")
    assert "7.3" in text and "speaks 1." in text and "same gantry" in text
    lie_to_the_learner(cluster.run / "sock" / "learner-0.ipc", int(status["run_id"], 16), status["epoch"])
    cluster.spawn("env-worker")         # not before: on a busy machine the run had ended when its daemons were to be pinged
    summary = cluster.until_finished()
    assert summary["run"] == "tiny"
    assert [p.starts for p in cluster.processes] == [1] * 5, cluster.logs()
    assert " 0 failed" in cluster.history()


def test_names_that_write_over_the_screen(make_cluster):
    """A member's host, name, device and refusals, as `gantry status`, `gantry history` and the log show them: no terminal obeys them."""
    cluster = make_cluster()
    cluster.run.mkdir()
    cluster.spawn("coordinator")
    epoch = cluster.until(lambda s: s, "the coordinator")["epoch"]
    evil = "\x1b[2J\x1b]0;owned\x07\x7f\n\u00e4\xff"
    hello = number(1, 3) + number(4, 7) + number(5, 99) + b"".join(data(f, evil.encode("latin-1")) for f in (2, 3, 7, 8, 9, 13))
    with connect(cluster.run / "sock" / "coordinator.ipc") as s:
        send(s, envelope(KIND_HELLO, parts=(hello,)), hello)
        reply(s)
        member = cluster.until(lambda s: s["members"] and s["members"][0], "the member")
        refusal = number(1, member["member"]) + number(3, 4) + data(5, evil.encode("latin-1"))
        send(s, envelope(KIND_VERSION_STATE, request=43, epoch=epoch, parts=(refusal,)), refusal)
        reply(s)
        said = [gantry("status", cluster.run).stdout, gantry("history", cluster.run).stdout, cluster.of("coordinator")[0].log.read_text(errors="replace")]
    assert "?[2J?]0;owned???" in said[0] and member["name"] == "?[2J?]0;owned???\ufffd\ufffd", member
    for text in said:
        assert "refused policy version 4: ?[2J" in text or text is said[0], text
        assert not {c for c in text if c < " " and c != "\n"} and "\x7f" not in text and "\\u00" not in text, text


def test_worker_of_another_version(make_cluster):
    """A worker meets a coordinator of another protocol: one line with both numbers, and an exit status that says not to try again."""
    root = make_cluster().root
    path = root / "c.ipc"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def answer():
            s, _ = listener.accept()
            with s:
                s.settimeout(60)
                greeting(s, b"ROUTER")
                receive(s, 64)
                receive_frame(s)
                while True:                             # pings may come first; answer the first Hello
                    head = reply(s)[0]
                    if b"\x10\x0a" in head:
                        break
                request = head[head.index(b"\x18") + 1]
                send(s, envelope(KIND_HELLO + 1, request=request, protocol=2 << 16), b"")
                while s.recv(4096):                     # pings, until it leaves
                    pass
        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        r = subprocess.run([BIN / "gantry-env-worker", "--run-dir", root, "--join", f"ipc://{path}", "--slots", "1"],
                           capture_output=True, text=True, timeout=60, cwd=TOP)
    assert r.returncode == 78, r.stderr                 # EX_CONFIG
    minor = re.search(r"WIRE_PROTOCOL_MINOR = (\d+)", (TOP / "lib/wire/limits.h").read_text())[1]
    assert "protocol 2.0" in r.stderr and f"speaks 1.{minor}:" in r.stderr, r.stderr
