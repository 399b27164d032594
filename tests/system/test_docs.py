"""What the documents name is there: links and headings, files and folders of the tree, tests."""
import os
import re
import subprocess

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FOLDERS = "actor|cli|coordinator|deploy|docs|env_worker|learner|lib|prm_server|proto|tests"


def tracked():
    """Every file of the tree, and every folder that holds one."""
    names = set(subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).split("\n")) - {""}
    folders = set()
    for name in names:
        while name := os.path.dirname(name):
            folders.add(name)
    return names, folders


def anchors(text):
    """The anchors of a document's headings, as they are made where it is shown."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
    headings = re.findall(r"^#+ (.*)$", prose, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def missing(name, texts, names, folders):
    """What document `name` of `texts` (path -> text) speaks of that is not in the tree."""
    text = texts[name]
    gone = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        target = os.path.normpath(os.path.join(os.path.dirname(name), path)) if path else name
        if "://" in link:
            continue
        if target not in names | folders or anchor and anchor not in anchors(texts.get(target, "")):
            gone.append(f"{name}: link {link}")
    for path in re.findall(rf"`((?:{FOLDERS})/[\w./-]+)`", text):
        path = path.rstrip("/")
        if path not in names | folders and not any(other.startswith(path + ".") for other in names):
            gone.append(f"{name}: file {path}")
    for test in re.findall(r"\btest_\w+", text):
        if not any(os.path.basename(other).startswith(test) for other in names):
            gone.append(f"{name}: test {test}")
    return gone


def documents(names):
    texts = {}
    for name in sorted(names):
        if name.endswith(".md") and not name.startswith("tests/"):
            with open(os.path.join(ROOT, name), encoding="utf-8") as file:
                texts[name] = file.read()
    return texts


def test_what_documents_name_is_there():
    names, folders = tracked()
    texts = documents(names)
    assert {"README.md", "CONTRIBUTING.md", "docs/operations.md"} <= set(texts)
    assert [line for name in texts for line in missing(name, texts, names, folders)] == []


def test_what_is_not_there_is_told():
    texts = {"docs/a.md": "# One word\n[a](b.md) [b](#no-word) [c](#one-word) `lib/gone.c` `lib/x.c` test_gone test_x"}
    names = {"docs/a.md", "lib/x.c", "tests/unit/test_x.c"}
    assert missing("docs/a.md", texts, names, {"docs", "lib"}) == [
        "docs/a.md: link b.md", "docs/a.md: link #no-word", "docs/a.md: file lib/gone.c", "docs/a.md: test test_gone"]
