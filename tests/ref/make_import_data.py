#!/usr/bin/env python3
"""make_import_data.py - tests/golden/import: the same two demonstrations as LIBERO's HDF5, as RLDS and as npz, and what numpy says of them.

Needs numpy, h5py and Pillow. The RLDS file is written by hand (TFRecord framing, tf.train.Example): no TensorFlow.
Demonstration 0: 9 steps, of which 2 do nothing (one with the gripper changing, which stays). 1: 6 steps. 2: 5 steps, no success.
"""
import io
import json
import struct
import sys
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

SIDE, TASK, TEXT = 16, "pick_up_the_bowl", "pick up the bowl"


def demo(number, steps, success):
    rng = np.random.default_rng(number)
    action = rng.uniform(-0.9, 0.9, (steps, 7))
    action[:, 6] = np.where(np.arange(steps) < steps // 2, -1.0, 1.0)
    if number == 0:
        action[2, :6] = 0           # nothing, gripper as before: goes
        action[3, :6] = 5e-6        # the same
        action[steps // 2, :6] = 0  # nothing, but the gripper closes: stays
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    pictures = np.stack([np.stack([(x * 7 + t * 5) % 256, (y * 7 + number * 40) % 256, (x + y + t * 9) % 256], -1) for t in range(steps)]).astype(np.uint8)
    wrist = pictures[:, ::-1, :, ::-1].copy()
    ee, fingers = rng.normal(size=(steps, 6)), rng.uniform(0, .04, (steps, 2))
    reward = np.zeros(steps)
    reward[-1] = success
    return dict(action=action, image=pictures, wrist=wrist, ee=ee, fingers=fingers, reward=reward, success=success)


def write_hdf5(path, demos):
    with h5py.File(path, "w") as f:
        data = f.create_group("data")
        data.attrs["problem_info"] = json.dumps({"language_instruction": TEXT})
        for i, d in enumerate(demos):
            g = data.create_group(f"demo_{i}")
            g["actions"], g["rewards"], g["dones"] = d["action"], d["reward"].astype(np.uint8), d["reward"].astype(np.uint8)
            g["obs/ee_states"], g["obs/gripper_states"] = d["ee"], d["fingers"]
            for name, key in [("agentview_rgb", "image"), ("eye_in_hand_rgb", "wrist")]:
                g["obs"].create_dataset(name, data=d[key], chunks=(len(d["action"]), SIDE, SIDE, 3), compression="gzip")


def crc32c(data, table=[]):
    if not table:
        for n in range(256):
            for _ in range(8):
                n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
            table.append(n)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = table[(crc ^ byte) & 255] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def varint(n):
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def field(number, body):
    return varint(number << 3 | 2) + varint(len(body)) + body


def feature(values):
    if isinstance(values[0], bytes):
        return field(1, b"".join(field(1, v) for v in values))
    if isinstance(values[0], (bool, np.bool_)):
        return field(3, field(1, b"".join(varint(int(v)) for v in values)))
    return field(2, field(1, struct.pack(f"<{len(values)}f", *values)))


def encoded(picture, kind):
    out = io.BytesIO()
    Image.fromarray(picture).save(out, kind)
    return out.getvalue()


def write_rlds(path, demos):
    with open(path, "wb") as f:
        for d in demos:
            n = len(d["action"])
            features = {
                "steps/action": [float(x) for x in d["action"].astype(np.float32).ravel()],
                "steps/observation/state": [float(x) for x in np.hstack([d["ee"], d["fingers"]]).astype(np.float32).ravel()],
                "steps/observation/image": [encoded(p, "PNG") for p in d["image"]],
                "steps/observation/wrist_image": [encoded(p, "PNG") for p in d["wrist"]],
                "steps/language_instruction": [TEXT.encode()] * n,
                "steps/reward": [float(x) for x in d["reward"]],
                "steps/is_last": [bool(i == n - 1) for i in range(n)],
            }
            body = field(1, b"".join(field(1, field(1, k.encode()) + field(2, feature(v))) for k, v in features.items()))
            head = struct.pack("<Q", len(body))
            f.write(head + masked(head) + body + masked(body))


def statistics(actions, states):
    def part(x):
        return {"mean": x.mean(0), "std": x.std(0), "max": x.max(0), "min": x.min(0), "q01": np.quantile(x, .01, axis=0), "q99": np.quantile(x, .99, axis=0)}
    as_list = lambda d: {k: v.tolist() for k, v in d.items()}
    return {"action": {**as_list(part(actions)), "mask": [True] * 6 + [False]}, "proprio": as_list(part(states)),
            "num_transitions": len(actions), "num_trajectories": 2}


def main():
    out = Path(sys.argv[1] if len(sys.argv) > 1 else "tests/golden/import")
    demos = [demo(0, 9, 1), demo(1, 6, 1), demo(2, 5, 0)]
    for kind in ["hdf5", "rlds", "npz"]:
        (out / kind).mkdir(parents=True, exist_ok=True)
    write_hdf5(out / "hdf5" / f"{TASK}_demo.hdf5", demos)
    write_rlds(out / "rlds" / "bowl-train.tfrecord-00000-of-00001", demos)
    for i, d in enumerate(demos):
        np.savez_compressed(out / "npz" / f"episode_{i}.npz", action=d["action"], image=d["image"], wrist_image=d["wrist"],
                            state=np.hstack([d["ee"], d["fingers"]]), instruction=TEXT, task=TASK, success=bool(d["success"]))
    keep = [[t for t in range(9) if t not in (2, 3)], list(range(6))]
    actions = np.concatenate([d["action"][k] for d, k in zip(demos, keep)])
    actions[:, 6] = 1 - np.clip(actions[:, 6], 0, 1)
    states = np.concatenate([np.hstack([d["ee"], d["fingers"]])[k] for d, k in zip(demos, keep)])
    json.dump({"libero": statistics(actions, states)}, open(out / "expected.json", "w"), indent=1)


if __name__ == "__main__":
    main()
