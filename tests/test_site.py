"""`make docs`: the guides as a site, with no warning and no broken link."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="mkdocs is not installed, which builds the site")
ROOT = Path(__file__).parent.parent
if not (ROOT / "mkdocs.yml").exists():
    pytest.skip("the guides are not beside the tests", allow_module_level=True)


def test_the_site_is_built_without_a_warning(tmp_path):
    tree = tmp_path / "tree" / "augforge"
    tree.mkdir(parents=True)
    for path in [*(ROOT / "augforge").iterdir(), ROOT / "generators", ROOT / "cli"]:
        (tree / path.name).symlink_to(path)
    site = tmp_path / "site"
    environment = os.environ | {"AUGFORGE_TREE": str(tree.parent), "NO_MKDOCS_2_WARNING": "1"}
    run = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(site)],
                         cwd=ROOT, env=environment, capture_output=True, text=True)  # fmt: skip
    assert run.returncode == 0, run.stderr
    first = (site / "index.html").read_text(encoding="utf-8")
    assert 'href="synth.html"' in first
    assert "fonts.googleapis.com" not in first
    for name in ("open_source", "Online", "Resampler"):
        assert f".{name}" in (site / "api.html").read_text(encoding="utf-8")
    assert (site / "results" / "pool.jsonl").read_bytes() == (ROOT / "benchmarks/results/pool.jsonl").read_bytes()
