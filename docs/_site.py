"""What the site has beside docs/: README as its first page, pages of the root, notebooks, scripts and results.

mkdocs calls the two functions. Links of the pages lead to files of the project; here they become links of the site.
"""

import base64
import json
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
    for path in sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")):
        content = _as_markdown(files, config, path)
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=content))
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


def _as_markdown(files: Files, config: MkDocsConfig, path: Path) -> str:
    """A notebook as a page; its pictures become files of the site."""
    parts = [f"[This page as a notebook]({path.name})\n"]
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source if number else f"{source}\n\n{parts.pop()}")
            continue
        parts.append(f"```python\n{source}\n```")
        for place, one in enumerate(cell["outputs"]):
            if one["output_type"] == "stream":
                parts.append(f"```text\n{''.join(one['text'])}```")
            else:
                name = f"{path.stem}-{number}-{place}.png"
                data = base64.b64decode(one["data"]["image/png"])
                files.append(File.generated(config, f"notebooks/{name}", content=data))
                parts.append(f"![What the cell draws]({name})")
    return "\n\n".join(parts) + "\n"
