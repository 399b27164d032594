#!/usr/bin/env python3
"""npz_to_lerobot.py SRC DST [--fps 20] [--robot NAME] - what `gantry data export` wrote, as a LeRobot v2.1 data set.

Pictures are stored as PNG inside the parquet files (feature type "image": no video codec, nothing lost), one file an episode:
    DST/meta/{info.json, episodes.jsonl, tasks.jsonl, episodes_stats.jsonl}, DST/data/chunk-000/episode_000000.parquet
Needs pyarrow, numpy and Pillow. gantry itself needs none of this.
"""
import argparse
import io
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


def png(picture):
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG")
    return out.getvalue()


def figures(values):
    v = np.asarray(values, np.float64).reshape(len(values), -1)
    return {"min": v.min(0).tolist(), "max": v.max(0).tolist(), "mean": v.mean(0).tolist(), "std": v.std(0).tolist(), "count": [len(v)]}


def picture_figures(pictures):
    v = pictures.astype(np.float64) / 255
    shape = lambda x: x.reshape(3, 1, 1).tolist()
    return {"min": shape(v.min((0, 1, 2))), "max": shape(v.max((0, 1, 2))), "mean": shape(v.mean((0, 1, 2))), "std": shape(v.std((0, 1, 2))), "count": [len(v)]}


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("src", type=Path)
    args.add_argument("dst", type=Path)
    args.add_argument("--fps", type=int, default=20)
    args.add_argument("--robot", default="panda")
    a = args.parse_args()
    files = sorted(a.src.glob("*.npz"))
    if not files:
        sys.exit(f"npz_to_lerobot: {a.src}: no *.npz in it")
    if a.dst.exists():
        sys.exit(f"npz_to_lerobot: {a.dst}: is there already")
    (a.dst / "meta").mkdir(parents=True)
    tasks, episodes, stats, features, total = {}, [], [], None, 0
    for number, path in enumerate(files):
        with np.load(path, allow_pickle=False) as z:
            arrays = {k: z[k] for k in z.files}
        if "observed" in arrays:
            sys.exit(f"npz_to_lerobot: {path}: has pictures of some of its steps only (suite.draw: turns); a LeRobot episode has one of every step")
        cameras = [k for k in arrays if arrays[k].ndim == 4]
        action, n = arrays["action"].astype(np.float32), len(arrays["action"])
        task = tasks.setdefault(str(arrays["instruction"]), len(tasks))
        table = {f"observation.images.{c}": pa.array([{"bytes": png(p), "path": None} for p in arrays[c]], pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
                 for c in cameras}
        wanted = {f"observation.images.{c}": {"dtype": "image", "shape": list(arrays[c].shape[1:]), "names": ["height", "width", "channel"]} for c in cameras}
        vectors = {"action": action} | ({"observation.state": arrays["state"].astype(np.float32)} if "state" in arrays else {})
        for name, v in vectors.items():
            table[name] = pa.FixedSizeListArray.from_arrays(pa.array(v.ravel(), pa.float32()), v.shape[1])
            wanted[name] = {"dtype": "float32", "shape": [v.shape[1]], "names": None}
        columns = {"timestamp": (np.arange(n) / a.fps).astype(np.float32), "frame_index": np.arange(n), "episode_index": np.full(n, number),
                   "index": np.arange(total, total + n), "task_index": np.full(n, task)}
        for name, v in columns.items():
            table[name] = pa.array(v, pa.float32() if name == "timestamp" else pa.int64())
            wanted[name] = {"dtype": "float32" if name == "timestamp" else "int64", "shape": [1], "names": None}
        if features is not None and wanted != features:
            sys.exit(f"npz_to_lerobot: {path}: its fields or shapes are not those of the episodes before")
        features = wanted
        chunk = a.dst / f"data/chunk-{number // 1000:03d}"
        chunk.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(table), chunk / f"episode_{number:06d}.parquet")
        episodes.append({"episode_index": number, "tasks": [str(arrays["instruction"])], "length": n})
        stats.append({"episode_index": number, "stats": {k: figures(v) for k, v in (vectors | columns).items()} |
                      {f"observation.images.{c}": picture_figures(arrays[c]) for c in cameras}})
        total += n
        print(f"\r{number + 1}/{len(files)} episodes, {total} steps", end="", file=sys.stderr)
    print(file=sys.stderr)
    info = {"codebase_version": "v2.1", "robot_type": a.robot, "total_episodes": len(files), "total_frames": total, "total_tasks": len(tasks), "total_videos": 0,
            "total_chunks": (len(files) + 999) // 1000, "chunks_size": 1000, "fps": a.fps, "splits": {"train": f"0:{len(files)}"},
            "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet", "video_path": None, "features": features}
    (a.dst / "meta/info.json").write_text(json.dumps(info, indent=1))
    for name, rows in [("episodes", episodes), ("episodes_stats", stats), ("tasks", [{"task_index": i, "task": t} for t, i in tasks.items()])]:
        (a.dst / f"meta/{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))


if __name__ == "__main__":
    main()
