"""gantry compare: in what runs differ, and what came of each, on the test states that both have played."""
import copy
import json
import re
import sqlite3
from contextlib import closing

from conftest import gantry

STAGES = [
    {"demos": {"episodes": 4, "style": "slow"}},
    {"sft": {"steps": 2, "batch": 8, "warmup": 1}},
    {"rl": {"iterations": 3, "episodes": 4, "preset": "tabletop", "reward": "sparse", "critic_prm": False, "eval_every": 0, "critic_warmup": 1}},
    {"eval": {"episodes": 24, "policies": ["demonstrator", "last"], "at": [1, 1]}},
]


def run(make_cluster, changes, stages):
    cluster = make_cluster(changes, stages=stages)
    done = gantry("up", cluster.config)
    assert done.returncode == 0, done.stdout + done.stderr
    return cluster


def outcomes(cluster, stage):
    """Of the demonstrator, as the ledger has them."""
    with closing(sqlite3.connect(cluster.run / "ledger.sqlite")) as db:
        rows = db.execute("select task, state_seed, success from episodes where tag = 'test demonstrator' and stage = ?", (stage,))
        return {(task, state): success for task, state, success in rows}


def test_compare(make_cluster, tmp_path):
    slow = run(make_cluster, {}, STAGES)
    clean = copy.deepcopy(STAGES[:2] + STAGES[3:])         # no rl, others' demonstrations, fewer test states
    clean[0]["demos"]["style"] = "clean"
    clean[2]["eval"]["episodes"] = 16
    other = run(make_cluster, {"run": {"seed": 8}}, clean)
    page = tmp_path / "page.html"

    done = gantry("compare", slow.run, other.run, "--policy", "demonstrator", "--json", "-o", page)
    assert done.returncode == 0 and not done.stderr, done.stderr
    told = json.loads(done.stdout)
    differences = {row["key"]: row["values"] for row in told["differences"]}
    assert differences["run.seed"] == [str(slow.settings["run"]["seed"]), "8"] and differences["demos.style"] == ["slow", "clean"]
    assert differences["rl"] == ["rl", None] and differences["eval.episodes"] == ["24", "16"]
    assert set(differences) == {"run.seed", "demos.style", "rl", "eval.episodes"}, differences
    before, after = outcomes(slow, 3), outcomes(other, 2)
    pairs = [(before[state], after[state]) for state in after]
    assert len(before) == 24 and len(pairs) == 16
    over = told["runs"][1]["over_first"]
    assert over["pairs"] == 16 and over["gained"] == sum(b > a for a, b in pairs) > 0 and over["lost"] == sum(b < a for a, b in pairs)
    assert abs(over["difference"] - sum(b - a for a, b in pairs) / 16) < 1e-9
    assert "over_first" not in told["runs"][0] and all(one["finished"] for one in told["runs"])
    assert told["runs"][0]["policies"]["last"]["episodes"] == 24

    text = page.read_text()
    assert text.count("Training success, mean of 10 iterations") == 3 and "demos.style" in text and str(slow.run) in text
    assert "http" not in text.replace("http://www.w3.org", "")      # nothing to load

    table = gantry("compare", slow.run, other.run, slow.run, "-o", "-")
    lines = {line.split("  ")[0]: line.split("  ")[-1].strip() for line in table.stdout.splitlines() if line}
    assert lines["state"] == "finished" and lines["rl"] == "rl" and lines["episodes of rl"] == "12", table.stdout
    assert lines["last over a's, points"].startswith("+0.0 ["), table.stdout         # a run beside itself
    assert not list(slow.root.glob("compare.html")) and "compare.html" not in table.stdout

    alone = gantry("compare", slow.run)
    assert alone.returncode == 2 and "1 runs are named; 2 to 52" in alone.stderr
    untested = gantry("compare", slow.run, other.run, "--policy", "bset", "-o", "-")
    assert untested.returncode == 1 and "has not tested bset; it has tested demonstrator, last" in untested.stderr, untested.stderr
    nothing = gantry("compare", slow.run, tmp_path)
    assert nothing.returncode == 1 and str(tmp_path) in nothing.stderr and not nothing.stdout, nothing.stderr
    nowhere = gantry("compare", slow.run, other.run, "-o", tmp_path / "no" / "page.html")
    assert nowhere.returncode == 1 and "-o names another place" in nowhere.stderr


def test_arms(make_cluster):
    """Seeds of two demonstrators: one difference, over those that both have."""
    runs = []
    for style, seed in (("slow", 7), ("clean", 8), ("slow", 8), ("clean", 7), ("clean", 9)):
        stages = [{"demos": {"episodes": 4, "style": style}}, {"sft": {"steps": 2, "batch": 8, "warmup": 1}},
                  {"eval": {"episodes": 12, "policies": ["demonstrator"], "at": [1]}}]
        runs.append(run(make_cluster, {"run": {"seed": seed}, "cluster": {"slots": 2 + seed % 2}}, stages))
    done = gantry("compare", *(r.run for r in runs), "--policy", "demonstrator", "--json")
    assert done.returncode == 0, done.stderr
    slow, clean = json.loads(done.stdout)["arms"]
    ended = [outcomes(r, 2) for r in runs]
    assert slow["runs"] == [0, 2] and clean["runs"] == [1, 3, 4] and "over_first" not in slow
    assert abs(clean["success"] - sum(sum(e.values()) / 12 for e in (ended[1], ended[3], ended[4])) / 3) < 1e-9
    over = clean["over_first"]
    difference = sum(ended[b][state] - ended[a][state] for a, b in ((0, 3), (2, 1)) for state in ended[0]) / 24
    assert (over["seeds"], over["states"]) == (2, 12) and abs(over["difference"] - difference) < 1e-9, over
    assert over["interval95"][0] < difference < over["interval95"][1], over
    said = gantry("compare", *(r.run for r in runs), "--policy", "demonstrator", "-o", "-").stdout.splitlines()
    assert said[-2].startswith("1. a, c (seeds 7, 8): demonstrator 0."), said
    assert said[-1].startswith("2. b, d, e (seeds 8, 7, 9): demonstrator ") and said[-1].endswith("] over the first by 2 seeds and 12 states"), said


    # More than eight: a column for each arm. The same runs again are arms of their own.
    page = runs[0].root / "page.html"
    twice = gantry("compare", *(r.run for r in runs + runs), "--policy", "demonstrator", "-o", page).stdout.splitlines()
    columns = {line.split("  ")[0]: [cell.strip() for cell in line.split("  ")[1:] if cell.strip()] for line in twice if line}
    assert columns["demos.style"] == ["slow", "clean"] * 2 and columns["runs"] == ["a c", "b d e", "f h", "g i j"], twice
    assert columns["seeds"] == ["7 8", "8 7 9"] * 2 and columns["state"] == ["2 of 2 finished", "3 of 3 finished"] * 2
    rates = [sum(e.values()) / 12 for e in (ended[1], ended[3], ended[4])]
    least = f", {min(rates):.3f} to {max(rates):.3f}" if min(rates) < max(rates) else ""
    assert columns["test: demonstrator"][1] == f"{sum(rates) / 3:.3f}{least}", twice
    assert columns["demonstrator over 1's, points"][1].startswith(f"{100 * difference:+.1f} [") and "run.seed" not in columns
    text = page.read_text()
    assert "2: " in text and ", 3 seeds</th>" in text and text.count("<table class='wide'>") == 2, text[:3000]

    many = gantry("compare", *[runs[0].run] * 9, "-o", "-")
    assert many.returncode == 1 and "9 runs of 9 different configurations" in many.stderr and not many.stdout


def curve(svg):
    """Of a plot whose y goes from 0 to 1: (x, y) of its line, the lower and the upper edge of the band around it."""
    grid = [float(y) for y in re.findall(r"<line x1='56' x2='548' y1='([\d.]+)'", svg)]
    value = [[(float(x), 1 - (float(y) - min(grid)) / (max(grid) - min(grid))) for x, y in re.findall(r"([\d.]+),([\d.]+) ", points)]
             for points in re.findall(r"<poly(?:line|gon)[^>]*points='([^']*)'", svg)]
    line, band = value
    return line, band[:len(line)], band[len(line):][::-1]


def test_the_curve_of_an_arm(make_cluster, tmp_path):
    """The mean of its runs, from the least to the most of them."""
    runs = [run(make_cluster, {"run": {"seed": seed}}, STAGES[:3]) for seed in (7, 8, 9)]
    page = tmp_path / "page.html"
    assert gantry("compare", *(r.run for r in runs), "-o", page).returncode == 0
    rates = []
    for r in runs:
        with closing(sqlite3.connect(r.run / "ledger.sqlite")) as db:
            rates.append([row[0] for row in db.execute("select avg(success) from episodes where stage = 2 group by iteration order by iteration")])
    smooth = [[sum(rate[:i + 1]) / (i + 1) for i in range(3)] for rate in rates]
    line, low, high = curve(re.search(r"<svg class='plot'.*?</svg>", page.read_text(), re.S).group())
    for i in range(3):
        assert abs(line[i][1] - sum(s[i] for s in smooth) / 3) < .002 and abs(low[i][1] - min(s[i] for s in smooth)) < .002
        assert abs(high[i][1] - max(s[i] for s in smooth)) < .002 and low[i][0] == line[i][0] == high[i][0]
    assert len(line) == 3 and any(low[i] != high[i] for i in range(3)), (line, rates)


def test_a_run_that_is_up(make_cluster):
    cluster = make_cluster(stages=[{"demos": {"episodes": 2000, "style": "slow"}}])
    cluster.start()
    cluster.until(lambda s: s and s["stage"] == "demos", "the first stage")
    done = gantry("compare", cluster.run, cluster.run, "-o", "-")
    assert done.returncode == 1 and "the run is up and holds its ledger" in done.stderr and f"gantry drain {cluster.run}" in done.stderr, done.stderr
