"""long_run.py - what soak.py, churn.py and swaps.py share: one run of tiny episodes under `gantry up`, something done to it once it is in rl, then
it is drained and `gantry history check` looks at it."""
import copy
import json
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "system"))
from chaos import wait  # noqa: E402
from conftest import TINY, TOP, Cluster, gantry, merged, scratch  # noqa: E402


def long_run(name, args, stages, measure, after=lambda run: {}, **sections):
    """stages end with rl. measure(cluster) -> figures, taken in rl; after(run directory) -> figures, taken once it is drained.
    -> (all of them with args.seed, as printed and written to args.out; history check's exit status)."""
    root = scratch()
    config = merged(copy.deepcopy(TINY), {"policy": {"init": str(TOP / "models" / "tiny")}, "run": {"seed": args.seed}, **sections})
    config["stages"] = stages
    cluster = Cluster(root, config)
    try:
        cluster.up()
        if wait(cluster, lambda s: s and s["stage_number"] == len(stages) - 1 and s["iteration"] >= 1, 300) is None:
            sys.exit(f"{name}: the run did not reach rl\n{cluster.logs()}")
        result = {"seed": args.seed, **measure(cluster)}
        gantry("drain", cluster.run)
        result["drained"] = cluster.supervisor.wait(120) == 0
        result |= after(cluster.run)
        check = gantry("history", "check", cluster.run)
        result["history"] = (check.stdout + check.stderr).strip().splitlines()[-1][:200]
    finally:
        cluster.close()
        shutil.rmtree(root, ignore_errors=True)
    print(json.dumps(result, indent=1))
    if args.out:
        Path(args.out).write_text(json.dumps(result, indent=1) + "\n")
    return result, check.returncode
