#!/usr/bin/env python3
"""lerobot_to_npz.py SRC DST - a LeRobot data set (v2.0, v2.1: one parquet file an episode; v3.0: many in one) as .npz files for `gantry data import --from npz`.

Fields: action, state (observation.state), one array of pictures for each camera (image, wrist_image, ... by --cameras), instruction, task.
Pictures come from PNG or JPEG in the parquet files, or from mp4 files (then PyAV is needed, too). Needs pyarrow, numpy and Pillow.
DST appears whole or not at all.
"""
import argparse
import io
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

TASK_BYTES = 111        # of a task's name, as gantry has room for


class Film:
    """The pictures of one mp4 file, which are read once, from its beginning to its end: episodes lie in it in their order."""

    def __init__(self, path):
        import av
        self.path, self.container = path, av.open(str(path))
        self.frames = self.container.decode(video=0)

    def take(self, n, since):
        """The n pictures from `since` seconds on. What lies before them is no episode's that is asked for later."""
        early = 0.5 / float(self.container.streams.video[0].average_rate)
        pictures = []
        while len(pictures) < n:
            frame = next(self.frames, None)
            if frame is None:
                raise ValueError(f"{self.path}: {len(pictures)} pictures from {since:.3f} s on, {n} steps")
            if frame.time >= since - early:
                pictures.append(frame.to_ndarray(format="rgb24"))
        return np.stack(pictures)


class Last:
    """What was opened last for each key: episodes come in the order in which they lie in the files."""

    def __init__(self, open_one):
        self.open_one, self.kept = open_one, {}

    def get(self, key, path):
        if self.kept.get(key, (None,))[0] != path:
            self.kept[key] = path, self.open_one(path)
        return self.kept[key][1]


def episodes_of_v2(src, info, cameras):
    """(columns, task, {camera: (mp4 file, its first second)}) of each episode."""
    tasks = {r["task_index"]: r["task"] for r in map(json.loads, (src / "meta/tasks.jsonl").read_text("utf-8").splitlines())}
    for number in range(info["total_episodes"]):
        place = {"episode_chunk": number // info["chunks_size"], "episode_index": number}
        columns = pq.read_table(src / info["data_path"].format(**place)).to_pydict()
        films = {c: (src / info["video_path"].format(**place, video_key=c), 0.0) for c in cameras if info["features"][c]["dtype"] == "video"}
        yield columns, tasks[columns["task_index"][0]], films


def episodes_of_v3(src, info, cameras):
    """The same where one file holds the rows, or the pictures, of several episodes."""
    names = pq.read_table(src / "meta/tasks.parquet").to_pydict()
    texts = next(names[k] for k in ("task", "__index_level_0__") if k in names)
    tasks = dict(zip(names["task_index"], texts))
    rows = [r for f in sorted((src / "meta/episodes").glob("*/*.parquet")) for r in pq.read_table(f).to_pylist()]
    tables = Last(pq.read_table)
    for row in sorted(rows, key=lambda r: r["episode_index"]):
        at = lambda what: {"chunk_index": row[f"{what}/chunk_index"], "file_index": row[f"{what}/file_index"]}
        table = tables.get("data", src / info["data_path"].format(**at("data")))
        mine = np.flatnonzero(table["episode_index"].to_numpy() == row["episode_index"])
        if len(mine) != row["length"]:
            raise ValueError(f"{src}: episode {row['episode_index']}: {len(mine)} rows in its file, meta/episodes says {row['length']}")
        columns = table.take(mine).to_pydict()
        films = {c: (src / info["video_path"].format(**at(f"videos/{c}"), video_key=c), row[f"videos/{c}/from_timestamp"])
                 for c in cameras if info["features"][c]["dtype"] == "video"}
        yield columns, tasks[columns["task_index"][0]] if columns["task_index"] else "", films


def arrays_of(columns, films, cameras, opened):
    n = len(columns["action"])
    arrays = {"action": np.asarray(columns["action"], np.float32)}
    if "observation.state" in columns:
        arrays["state"] = np.asarray(columns["observation.state"], np.float32)
    names = ["image", "wrist_image"] + [f"image_{i}" for i in range(2, len(cameras))]
    for name, camera in zip(names, cameras):
        if camera in films:
            path, since = films[camera]
            arrays[name] = opened.get(camera, path).take(n, since)
        else:
            arrays[name] = np.stack([np.asarray(Image.open(io.BytesIO(p["bytes"])).convert("RGB")) for p in columns[camera]])
    return arrays


def convert(src, cameras, into):
    info = json.loads((src / "meta/info.json").read_text("utf-8"))
    version = info.get("codebase_version", "")
    if version.split(".")[0] not in ("v2", "v3"):
        raise ValueError(f"{src}: version {version or 'none'}, expected v2.0, v2.1 or v3.0")
    pictures = [k for k, f in info["features"].items() if f["dtype"] in ("image", "video")]
    cameras = cameras or pictures
    for camera in cameras:
        if camera not in pictures:
            raise ValueError(f"{src}: no camera {camera}; there are: {', '.join(pictures)}")
    opened, empty = Last(Film), 0
    episodes = (episodes_of_v3 if version.startswith("v3") else episodes_of_v2)(src, info, cameras)
    for number, (columns, text, films) in enumerate(episodes, 1):
        if columns["action"]:
            task = text.replace(" ", "_").encode()[:TASK_BYTES].decode(errors="ignore")
            np.savez_compressed(into / f"episode_{number:06d}.npz", instruction=text, task=task, **arrays_of(columns, films, cameras, opened))
        else:
            empty += 1
            print(f"\r{src}: episode {number - 1}: no steps in it: left out", file=sys.stderr)
        print(f"\r{number}/{info['total_episodes']} episodes", end="", file=sys.stderr)
    print(f"{f', {empty} without a step left out' if empty else ''}", file=sys.stderr)


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("src", type=Path)
    args.add_argument("dst", type=Path)
    args.add_argument("--cameras", help="features with commas between, the main camera first; default: all, in the order of info.json")
    a = args.parse_args()
    if a.dst.exists():
        sys.exit(f"lerobot_to_npz: {a.dst}: is there already")
    try:
        a.dst.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=a.dst.parent) as into:
            (Path(into) / "all").mkdir()
            convert(a.src, a.cameras.split(",") if a.cameras else None, Path(into) / "all")
            (Path(into) / "all").rename(a.dst)
    except ImportError as e:
        sys.exit(f"lerobot_to_npz: {a.src}: its pictures are in mp4 files: PyAV is needed (pip install av): {e}")
    except KeyError as e:
        sys.exit(f"lerobot_to_npz: {a.src}: no field {e}: not laid out as LeRobot does")
    except (OSError, ValueError) as e:      # pyarrow's, PyAV's and Pillow's are such
        sys.exit(f"lerobot_to_npz: {e}")


if __name__ == "__main__":
    main()
