"""The curriculum through the real daemons: its state survives kill -9 of the coordinator to the bit, and the report shows the schedule."""
import re
import sqlite3

import pytest
from conftest import gantry

TESTED = {"eval": {"episodes": 2, "val_episodes": 2, "policies": ["last"], "temperatures": [1]}}


def rl(curriculum, **more):
    return {"rl": {"iterations": 4, "episodes": 6, "preset": "tabletop", "curriculum": curriculum, "reward": "sparse", "critic_prm": False,
                   "eval_every": 0, "critic_warmup": 3, **more}}


def told(cluster):
    """What was drawn, what is remembered, and the schedule that was shown."""
    with sqlite3.connect(cluster.run / "ledger.sqlite") as db:
        drawn = db.execute("select episode, iteration, task, state_seed, success from episodes where stage = 0 order by episode").fetchall()
        memory = db.execute("select bytes from blobs where name = 'memory'").fetchone()[0].decode()
        shown = db.execute("select iteration, name, value from scalars where name like 'curriculum/%' or name like 'estimate/%'"
                           " order by iteration, name").fetchall()
    return drawn, re.search("^curriculum .*$", memory, re.M).group(), shown


@pytest.mark.parametrize("curriculum", ["frontier-centred", "levels"])
def test_survives_kill9(make_cluster, curriculum):
    runs = []
    for kills in ([], [1, 3]):
        more = {"levels": [0, 1]} if curriculum == "levels" else {}
        cluster = make_cluster({"suite": {"tasks": ["pick_up_object", "open_drawer"]}}, stages=[rl(curriculum, **more), TESTED])
        cluster.start()
        for at in kills:
            cluster.until(lambda s: s and s["iteration"] >= at, f"iteration {at}")
            cluster.of("coordinator")[0].kill()
        cluster.until_finished()
        cluster.history()
        runs.append(told(cluster))
    assert runs[0] == runs[1]
    drawn, memory, shown = runs[0]
    assert len(drawn) == 24 and "0x" in memory and len(shown) >= 4 * 4
    assert gantry("report", cluster.run).returncode == 0
    page = (cluster.run / "report.html").read_text()
    assert "Curriculum: share of the draws" in page and ("Curriculum: level" in page) == (curriculum == "levels")
    # one update of the policy is a point and no curve: no plot without a line in it
    plots = re.findall(r"<svg class='plot'.*?</svg>", page, re.S)
    assert plots and all("<polyline" in plot for plot in plots) and "Divergence" not in page, page
    if curriculum == "levels":
        assert {task for _, _, task, _, _ in drawn} == {"pick_up_object"}       # nothing was climbed in four iterations
    # the policies tested, here one alone, and task by task
    assert "<td>last</td>" in page and "no test figures" not in page
    assert re.search(r"<td>open_drawer</td><td>\d+ % <span class='note'>\d+ to \d+</span></td>", page)
