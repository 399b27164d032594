"""A stranger's side of ZeroMQ and of gantry's envelope, byte by byte: what no gantry program would send, tests send by hand."""
import socket

KIND_ERROR, KIND_HELLO, KIND_VERSION_STATE, KIND_DELIVER, KIND_PING, KIND_PONG = 1, 10, 26, 60, 90, 91


def greeting(s, kind=b"DEALER"):
    """The ZMTP 3.0 greeting and READY of a peer that uses no security."""
    s.sendall(b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + b"\0" + bytes(31))
    ready = b"\x05READY" + b"\x0bSocket-Type" + len(kind).to_bytes(4, "big") + kind
    s.sendall(b"\x04" + bytes([len(ready)]) + ready)


def frame(data, more):
    return bytes([more | (2 if len(data) > 255 else 0)]) + (len(data).to_bytes(8, "big") if len(data) > 255 else bytes([len(data)])) + data


def receive(s, n):
    data = b""
    while len(data) < n:
        more = s.recv(n - len(data))
        assert more, "the connection was closed"
        data += more
    return data


def receive_frame(s):
    flags = receive(s, 1)[0]
    return flags, receive(s, int.from_bytes(receive(s, 8 if flags & 2 else 1), "big"))


def connect(path):
    """Greeted and ready to send."""
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(60)
    s.connect(str(path))
    greeting(s)
    receive(s, 64)
    assert receive_frame(s)[1].startswith(b"\x05READY")
    return s


# ---- protobuf and CRC-32C, as little of them as is needed ----

def varint(n):
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def number(field, n):
    return varint(field << 3) + varint(n)


def data(field, value):
    return varint(field << 3 | 2) + varint(len(value)) + value


def crc32c(bytes_):
    crc = 0xffffffff
    for b in bytes_:
        crc ^= b
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


def envelope(kind, request=42, protocol=1 << 16, run=0, epoch=0, parts=(b"",), sizes=None, crcs=None):
    """sizes, crcs: what it says of the frames behind it, when that shall not be true."""
    sizes = [len(p) for p in parts] if sizes is None else sizes
    crcs = [crc32c(p) for p in parts] if crcs is None else crcs
    return (number(1, protocol) + number(2, kind) + number(3, request) + number(4, epoch) + number(9, run)
            + data(10, b"".join(n.to_bytes(4, "little") for n in sizes)) + data(11, b"".join(n.to_bytes(4, "little") for n in crcs)))


def send(s, head, *parts):
    frames = [head, *parts]
    s.sendall(b"".join(frame(f, i + 1 < len(frames)) for i, f in enumerate(frames)))


def reply(s):
    """All frames of the next message."""
    frames, more = [], 1
    while more & 1:
        more, bytes_ = receive_frame(s)
        frames.append(bytes_)
    return frames
