"""A FUSE file system of a kind that nobody knows, with an empty directory in it: mounted by `with mounted(path)`, as root. The kernel's own protocol
(linux/fuse.h), no library."""
import contextlib
import ctypes
import os
import struct
import threading

LOOKUP, FORGET, GETATTR, STATFS, INIT, INTERRUPT, DESTROY = 1, 2, 3, 17, 26, 36, 38
ENOENT, ENOSYS = 2, 38
ATTR = struct.pack("<QII6Q10I", 1, 0, 0, 1, 4096, 8, 0, 0, 0, 0, 0, 0, 0o40755, 2, 0, 0, 0, 4096, 0)
ANSWERS = {
    INIT: struct.pack("<IIIIHHIIHHI7I", 7, 31, 0, 0, 12, 9, 4096, 1, 0, 0, 0, *[0] * 7),
    GETATTR: ATTR,
    STATFS: struct.pack("<5Q10I", 1000, 1000, 1000, 1000, 1000, 4096, 255, 4096, 0, *[0] * 6),
}


def serve(fd):
    while True:
        try:
            request = os.read(fd, 1 << 17)
        except OSError:
            return                  # unmounted
        _, opcode, unique = struct.unpack_from("<IIQ", request)
        if opcode in (FORGET, INTERRUPT):
            continue
        body = ANSWERS.get(opcode, b"")
        error = 0 if body or opcode == DESTROY else -ENOENT if opcode == LOOKUP else -ENOSYS
        with contextlib.suppress(OSError):
            os.write(fd, struct.pack("<IiQ", 16 + len(body), error, unique) + body)


@contextlib.contextmanager
def mounted(path, kind="fuse.nowhere"):
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={fd},rootmode=40000,user_id=0,group_id=0".encode()
    if libc.mount(b"nowhere", os.fsencode(path), kind.encode(), 0, options):
        number = ctypes.get_errno()
        os.close(fd)
        raise OSError(number, os.strerror(number))
    thread = threading.Thread(target=serve, args=(fd,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        libc.umount2(os.fsencode(path), 2)
        thread.join(10)
        os.close(fd)
