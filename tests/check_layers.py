#!/usr/bin/env python3
"""check_layers.py - who may include whom, read off the #include lines.

The rules are the table below; design.md section 4 gives the reasons. Exit status 1 and one line per
violation: FILE:LINE: what includes what, and what would be allowed.
"""
import pathlib
import re
import subprocess
import sys

DAEMONS = ["coordinator", "env_worker", "actor", "prm_server", "learner"]
LIBS = ["base", "daemon", "wire", "nn", "rl", "image", "run", "sim", "serve", "train", "data"]

# Which of our folders a folder may include (itself and base are always allowed).
MAY = {
    "lib/base": set(),
    "lib/daemon": set(),
    "lib/wire": {"daemon", "proto"},
    "lib/rl": set(),
    "lib/image": set(),
    "lib/nn": {"image"},
    "lib/sim": {"image"},
    "lib/run": {"proto"},
    "lib/train": {"nn", "rl", "image", "run"},
    "lib/data": {"image", "nn", "run", "proto"},
    "lib/serve": {"daemon", "wire", "proto", "nn", "run"},
    "cli": set(LIBS) | {"proto", "coordinator"},     # summary.json is computed by the same pure functions
}
for daemon in DAEMONS:
    MAY[daemon] = set(LIBS) | {"proto"}

# Who may see a foreign library: header pattern -> folders.
FOREIGN = {
    r"uv\.h|uv/.*": {"lib/daemon", "lib/wire", "lib/serve", *DAEMONS, "cli"},
    r"yaml\.h": {"lib/daemon"},
    r"zmq.*\.h": {"lib/wire"},
    r"protobuf-c/.*": {"lib/wire", "lib/run", "lib/serve", *DAEMONS},
    r"sqlite3\.h|zstd.*\.h": {"lib/run"},
    r"zlib\.h": {"lib/base"},
    r"hdf5\.h": {"lib/data"},
    r"mujoco/.*|EGL/.*|GL/.*": {"lib/sim"},
    r"png\.h|turbojpeg\.h|jpeglib\.h": {"lib/image"},
    r"nccl.*\.h": {"lib/nn/collective"},
    r"cuda.*\.h|cublas.*\.h|cudnn.*\.h": {"lib/nn/device", "lib/nn/cuda", "*.cu"},
}

INCLUDE = re.compile(r'^\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)')


def folder_of(path):
    parts = path.parts
    return "/".join(parts[:2]) if parts[0] == "lib" else parts[0]


def target_folder(name, path, root):
    """The folder of ours that "name" lies in, or None (the standard library, generated version.h)."""
    first = name.split("/")[0]
    if "/" not in name:
        return folder_of(path) if (root / path.parent / name).exists() else None
    if first in LIBS and (root / "lib" / first).is_dir():
        return "lib/" + first
    if first == "lib":
        return "/".join(name.split("/")[:2])
    return first


def check_file(path, root):
    own = folder_of(path)
    for number, line in enumerate((root / path).read_text(errors="replace").splitlines(), 1):
        found = INCLUDE.match(line)
        if not found:
            continue
        name = found.group(1) or found.group(2)
        if found.group(1):
            target = target_folder(name, path, root)
            short = target.removeprefix("lib/") if target else None
            if target and target not in (own, "lib/base") and short not in MAY[own]:
                yield f"{path}:{number}: {own} may not include {name}; allowed: {', '.join(sorted(MAY[own])) or 'base only'}"
            continue
        for pattern, allowed in FOREIGN.items():
            if not re.fullmatch(pattern, name):
                continue
            if not any(str(path.parent).startswith(a) or ("*" in a and path.match(a)) for a in allowed):
                yield f"{path}:{number}: {own} may not see <{name}>; only {', '.join(sorted(allowed))} may"


def main():
    root = pathlib.Path(__file__).resolve().parent.parent
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "*.c", "*.h", "*.cu"], cwd=root, check=True, capture_output=True, text=True)
    paths = [pathlib.Path(p) for p in listed.stdout.split() if (root / p).exists()]
    paths = [p for p in paths if folder_of(p) in MAY]
    problems = [problem for path in paths for problem in check_file(path, root)]
    for problem in problems:
        print(problem)
    print(f"check-layers: {len(paths)} files, {len(problems)} violations")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
