"""lerobot_v3.py SRC DST - the .npz episodes of a directory as a LeRobot v3.0 data set: rows of several episodes in one parquet file, and
in one mp4 file, where PyAV is there, a camera whose picture t of episode e is one grey, 60 e + 16 t. For tests of deploy/lerobot_to_npz.py."""
import io
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

try:
    import av
except ImportError:
    av = None
SIDE, FPS, FILM = 64, 20, "observation.images.film"


def png(picture):
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG")
    return {"bytes": out.getvalue(), "path": None}


src, dst = map(Path, sys.argv[1:])
episodes = [dict(np.load(path)) for path in sorted(src.glob("*.npz"))]
rows = {k: [] for k in ("observation.images.image", "observation.images.wrist", "observation.state", "action", "episode_index", "task_index")}
meta, texts, greys = [], [], []
for e, z in enumerate(episodes):
    text, n = str(z["instruction"]), len(z["action"])
    if text not in texts:
        texts.append(text)
    rows["observation.images.image"] += [png(p) for p in z["image"]]
    rows["observation.images.wrist"] += [png(p) for p in z["wrist_image"]]
    rows["observation.state"] += z["state"].tolist()
    rows["action"] += z["action"].tolist()
    rows["episode_index"] += [e] * n
    rows["task_index"] += [texts.index(text)] * n
    file = 0 if e < 2 else 1                # two episodes in the first file
    first = 0 if e in (0, 2) else len(episodes[0]["action"])
    meta.append({"episode_index": e, "tasks": [text], "length": n, "data/chunk_index": 0, "data/file_index": file,
                 f"videos/{FILM}/chunk_index": 0, f"videos/{FILM}/file_index": file, f"videos/{FILM}/from_timestamp": first / FPS})
    greys.append((file, [60 * e + 16 * t for t in range(n)]))
(dst / "meta/episodes/chunk-000").mkdir(parents=True)
(dst / "data/chunk-000").mkdir(parents=True)
for file in (0, 1):
    mine = [i for i, e in enumerate(rows["episode_index"]) if meta[e]["data/file_index"] == file]
    pq.write_table(pa.table({k: [v[i] for i in mine] for k, v in rows.items()}), dst / f"data/chunk-000/file-{file:03d}.parquet")
pq.write_table(pa.Table.from_pylist(meta), dst / "meta/episodes/chunk-000/file-000.parquet")
pq.write_table(pa.table({"task_index": list(range(len(texts))), "__index_level_0__": texts}), dst / "meta/tasks.parquet")
features = {k: {"dtype": "image"} for k in rows if "images" in k} | {"observation.state": {"dtype": "float32"}, "action": {"dtype": "float32"}}
if av:
    features[FILM] = {"dtype": "video"}
    (dst / f"videos/{FILM}/chunk-000").mkdir(parents=True)
    for file in (0, 1):
        with av.open(str(dst / f"videos/{FILM}/chunk-000/file-{file:03d}.mp4"), "w") as out:
            stream = out.add_stream("mpeg4", rate=FPS)
            stream.width = stream.height = SIDE
            stream.pix_fmt, stream.bit_rate = "yuv420p", 4000000
            for grey in (g for f, all_of_it in greys if f == file for g in all_of_it):
                out.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((SIDE, SIDE, 3), grey, np.uint8), format="rgb24")))
            out.mux(stream.encode())
info = {"codebase_version": "v3.0", "total_episodes": len(episodes), "fps": FPS, "features": features, "chunks_size": 1000,
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"}
(dst / "meta/info.json").write_text(json.dumps(info))
