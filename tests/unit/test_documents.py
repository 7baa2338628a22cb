"""Docs and docstrings name files, links and functions that exist."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = subprocess.check_output(["git", "ls-files"], cwd=ROOT, text=True).split()
PAGES = [name for name in FILES if name.endswith(".md")]
TEXTS = [name for name in FILES if name.endswith((".md", ".py")) and not name.startswith("tests/")]
ROOMS = {name.split("/")[0] for name in FILES if "/" in name}
PATH = re.compile(rf"`((?:(?:{'|'.join(map(re.escape, sorted(ROOMS)))})/[\w./-]*)|[\w/-]+\.py)`")
LINK = re.compile(r"\]\(([\w./-]*)(#[\w-]+)?\)")


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {"#" + re.sub(r"[^\w -]", "", head).lower().replace(" ", "-") for head in headings}


@pytest.mark.parametrize("text", TEXTS)
def test_a_named_path_is_the_end_of_a_file_or_folder_of_the_repository(text: str) -> None:
    known = {str(path) for name in FILES for path in (Path(name), *Path(name).parents)}
    named = {path.rstrip("/") for path in PATH.findall((ROOT / text).read_text())}
    assert [
        path for path in named if not any(f"/{name}".endswith(f"/{path}") for name in known)
    ] == []


@pytest.mark.parametrize("page", PAGES)
def test_a_link_leads_to_a_file_and_a_heading(page: str) -> None:
    for name, anchor in LINK.findall((ROOT / page).read_text()):
        target = (ROOT / page).parent / name if name else ROOT / page
        assert target.exists(), name
        assert not anchor or anchor in anchors(target), name + anchor


def test_the_table_of_architecture_names_what_its_files_define() -> None:
    table = (ROOT / "docs/architecture.md").read_text()
    named = re.findall(r"((?:`\w+`(?:, )?)+) in `([\w/]+\.py)`", table)
    assert len(named) > 5
    for names, file in named:
        code = (ROOT / file).read_text()
        for name in re.findall(r"\w+", names):
            assert re.search(rf"^((async )?def|class) {name}\b|^{name}\b.* =", code, re.M), name
