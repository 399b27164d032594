"""deploy/grafana.json against a coordinator's /metrics: what it draws is there, under these labels."""
import json
import re
import urllib.request

from conftest import TOP, listens_at

BOARD = json.loads((TOP / "deploy" / "grafana.json").read_text())
PROMETHEUS_OWN = {"instance", "job"}


def series(text):
    """{name: [labels, ...]} of an answer of /metrics."""
    found = {}
    for name, labels in re.findall(r"^(\w+)(?:\{(.*)\})? \S+$", text, re.M):
        found.setdefault(name, []).append(dict(re.findall(r'(\w+)="([^"]*)"', labels)))
    return found


def queries():
    for panel in BOARD["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"], target["legendFormat"]
    for annotation in BOARD["annotations"]["list"]:
        yield annotation["name"], annotation["expr"], annotation["textFormat"]


def test_draws_what_there_is(make_cluster):
    cluster = make_cluster({"status": {"http": "127.0.0.1:0"}})
    cluster.run.mkdir()
    coordinator = cluster.spawn("coordinator")
    cluster.until(lambda s: s, "the coordinator")
    port = listens_at(coordinator.popen.pid)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as reply:
        there = series(reply.read().decode())
    short = [name for name in there if re.search(r"_(ns|us|ms|s|kb|mb|gb|b)(_|$)", name)]
    assert not short, "Prometheus' units are seconds and bytes, written out (promtool check metrics)"
    drawn = set()
    for title, expr, legend in queries():
        named = re.findall(r"\b((?:gantry|process)_\w+)\{([^}]*)\}", expr)
        assert named and len(named) == len(re.findall(r"\b(?:gantry|process)_\w+", expr)), (title, expr)
        for name, selector in named:
            assert name in there, (title, name)
            wanted = dict(re.findall(r'(\w+)="([^"]*)"', selector))
            assert any(wanted.items() <= labels.items() for labels in there[name]), (title, name, selector)
        known = PROMETHEUS_OWN.union(*(labels for name, _ in named for labels in there[name]))
        used = re.findall(r"\{\{(\w+)\}\}", legend) + [w for group in re.findall(r"(?:by|on) \((.*?)\)", expr) for w in group.split(", ")]
        assert set(used) <= known, (title, used)
        drawn.update(name for name, _ in named)
    assert set(there) == drawn, "what no panel shows"


def test_fits_together():
    """Panels do not lie over one another; every data source is the variable."""
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken = set()
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken and at["x"] + at["w"] <= 24, panel["title"]
        taken |= cells
    text = json.dumps(BOARD)
    assert set(re.findall(r'"datasource": (\{.*?"\})', text)) == {'{"type": "prometheus", "uid": "${datasource}"}'}
    assert {v["name"] for v in BOARD["templating"]["list"]} == {"datasource", "instance"}
