"""What the site has beside docs/: README as its first page, pages of the root, scripts and results of benchmarks.

mkdocs calls the two functions. Links of the pages lead to files of the project; here they become links of the site.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "CONTRIBUTING.md", "CHANGELOG.md": "CHANGELOG.md"}
RESULTS = "benchmarks/results"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages of the root, the citation, and the scripts and results of benchmarks."""
    for name, place in PAGES.items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / name)))
    for path in sorted((ROOT / RESULTS).glob("*.jsonl")):
        files.append(File.generated(config, f"results/{path.name}", abs_src_path=str(path)))
    for path in sorted((ROOT / "benchmarks").glob("*.py")):
        files.append(File.generated(config, f"benchmarks/{path.name}", abs_src_path=str(path)))
    files.append(File.generated(config, "CITATION.cff", abs_src_path=str(ROOT / "CITATION.cff")))
    listing = "".join(f"- [{path.name}]({path.name})\n" for path in sorted((ROOT / RESULTS).glob("*.jsonl")))
    files.append(File.generated(config, "results/index.md", content=f"# Results\n\n{listing}"))
    decisions = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    heads = [(path.name, path.read_text(encoding="utf-8").split("\n")[0].removeprefix("# ")) for path in decisions]
    listing = "".join(f"- [{head}]({name})\n" for name, head in heads)
    files.append(File.generated(config, "decisions/index.md", content=f"# Decisions\n\n{listing}"))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page with links of the project turned into links of the site."""
    up = "../" * page.file.src_uri.count("/")
    at_root = page.file.src_uri in PAGES.values()

    def link(match: re.Match[str]) -> str:
        target, _, anchor = match[1].partition("#")
        path = target
        while path.startswith("../"):
            path = path[3:]
        if at_root:
            path = path.removeprefix("docs/")
        elif path == target:  # a link within docs/
            return match[0]
        if path.rstrip("/") in (RESULTS, "decisions"):
            path = f"{path.rstrip('/').rpartition('/')[2]}/index.md"
        path = PAGES.get(path, path.replace(f"{RESULTS}/", "results/"))
        return f"]({up}{path}{'#' + anchor if anchor else ''})"

    return re.sub(r"\]\((?![a-z]+:|#)([^)\s]+)\)", link, markdown)
