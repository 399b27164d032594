"""A cable between two network namespaces that can be cut, one way or both, lose, delay, reorder and garble frames: two TAP devices and a thread that
carries frames from one to the other. Needs root and /dev/net/tun, and nothing of the kernel beyond that."""
import ctypes
import fcntl
import heapq
import os
import random
import select
import struct
import threading
import time

TUNSETIFF, IFF_TAP, IFF_NO_PI, CLONE_NEWNET = 0x400454CA, 0x0002, 0x1000, 0x40000000
HEADERS = 54        # Ethernet, IPv4, TCP: garbled bits lie behind them, where TCP's checksum must find them
FINE = {"down": False, "loss": 0.0, "corrupt": 0.0, "reorder": 0.0, "delay_ms": 0.0}


def enter(path):
    fd = os.open(path, os.O_RDONLY)
    if ctypes.CDLL(None, use_errno=True).setns(fd, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), f"setns {path}")
    os.close(fd)


def open_tap(namespace, device):
    home = "/proc/self/task/%d/ns/net" % threading.get_native_id()
    back = os.open(home, os.O_RDONLY)
    enter(f"/run/netns/{namespace}")
    try:
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH14x", device.encode(), IFF_TAP | IFF_NO_PI))
    finally:
        enter(f"/proc/self/fd/{back}")
        os.close(back)
    return fd


class Cable:
    """ways[0]: from the first namespace to the second, ways[1]: back. set(loss=.02) changes both, set(0, down=True) one."""

    def __init__(self, namespaces, device, seed):
        self.fds = [open_tap(n, device) for n in namespaces]
        self.ways = [dict(FINE), dict(FINE)]
        self.draw = random.Random(f"cable {seed}")
        self.counts = {"carried": 0, "lost": 0, "garbled": 0}
        self.waiting, self.number, self.closing = [], 0, False
        self.thread = threading.Thread(target=self.carry, daemon=True)
        self.thread.start()

    def set(self, way=None, **what):
        for i in (0, 1) if way is None else (way,):
            self.ways[i] = {**FINE, **what}

    def take(self, i, frame):
        way, now = self.ways[i], time.monotonic()
        if way["down"] or self.draw.random() < way["loss"]:
            self.counts["lost"] += 1
            return
        if len(frame) > HEADERS + 6 and self.draw.random() < way["corrupt"]:
            frame = bytearray(frame)
            frame[self.draw.randrange(HEADERS, len(frame))] ^= 1 << self.draw.randrange(8)
            self.counts["garbled"] += 1
        held = way["delay_ms"] + (5 if self.draw.random() < way["reorder"] else 0)      # those behind it go first
        self.number += 1
        heapq.heappush(self.waiting, (now + held / 1000, self.number, self.fds[1 - i], bytes(frame)))

    def carry(self):
        while not self.closing:
            due = max(0, self.waiting[0][0] - time.monotonic()) if self.waiting else 0.05
            for fd in select.select(self.fds, [], [], min(due, 0.05))[0]:
                for _ in range(64):
                    try:
                        self.take(self.fds.index(fd), os.read(fd, 65600))
                    except BlockingIOError:
                        break
            while self.waiting and self.waiting[0][0] <= time.monotonic():
                _, _, fd, frame = heapq.heappop(self.waiting)
                try:
                    os.write(fd, frame)
                    self.counts["carried"] += 1
                except OSError:
                    self.counts["lost"] += 1        # a full queue

    def close(self):
        self.closing = True
        self.thread.join()
        for fd in self.fds:
            os.close(fd)
