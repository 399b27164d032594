#!/usr/bin/env python3
"""lerobot_to_npz.py SRC DST - a LeRobot data set (v2.0 or v2.1: one parquet file an episode) as .npz files for `gantry data import --from npz`.

Fields: action, state (observation.state), one array of pictures for each camera (image, wrist_image, ... by --cameras), instruction, task.
Pictures come from PNG or JPEG in the parquet files, or from mp4 files (then PyAV is needed, too). Needs pyarrow, numpy and Pillow.
"""
import argparse
import io
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image


def from_video(path, n):
    import av
    with av.open(str(path)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    if len(pictures) < n:
        sys.exit(f"lerobot_to_npz: {path}: {len(pictures)} pictures, {n} steps")
    return np.stack(pictures[:n])


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("src", type=Path)
    args.add_argument("dst", type=Path)
    args.add_argument("--cameras", help="features with commas between, the main camera first; default: all, in the order of info.json")
    a = args.parse_args()
    info = json.loads((a.src / "meta/info.json").read_text())
    if not info.get("codebase_version", "").startswith("v2"):
        sys.exit(f"lerobot_to_npz: {a.src}: version {info.get('codebase_version')}, expected v2.0 or v2.1 (LeRobot converts between its versions)")
    features = info["features"]
    cameras = a.cameras.split(",") if a.cameras else [k for k, f in features.items() if f["dtype"] in ("image", "video")]
    tasks = {r["task_index"]: r["task"] for r in map(json.loads, (a.src / "meta/tasks.jsonl").read_text().splitlines())}
    names = ["image", "wrist_image"] + [f"image_{i}" for i in range(2, len(cameras))]
    a.dst.mkdir(parents=True)
    for number in range(info["total_episodes"]):
        place = {"episode_chunk": number // info["chunks_size"], "episode_index": number}
        table = pq.read_table(a.src / info["data_path"].format(**place)).to_pydict()
        n = len(table["action"])
        arrays = {"action": np.asarray(table["action"], np.float32)}
        if "observation.state" in table:
            arrays["state"] = np.asarray(table["observation.state"], np.float32)
        for name, camera in zip(names, cameras):
            if features[camera]["dtype"] == "video":
                arrays[name] = from_video(a.src / info["video_path"].format(**place, video_key=camera), n)
            else:
                arrays[name] = np.stack([np.asarray(Image.open(io.BytesIO(p["bytes"])).convert("RGB")) for p in table[camera]])
        text = tasks[table["task_index"][0]]
        np.savez_compressed(a.dst / f"episode_{number + 1:06d}.npz", instruction=text, task=text.replace(" ", "_")[:63], **arrays)
        print(f"\r{number + 1}/{info['total_episodes']} episodes", end="", file=sys.stderr)
    print(file=sys.stderr)


if __name__ == "__main__":
    main()
