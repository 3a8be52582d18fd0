"""`augforge report`: what runs of `bench` and `synth` came to, as one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from augforge import __version__
from augforge.bench.files import LOW_SHOT, RESULTS, VERIFICATION
from augforge.data.durable import write_file
from augforge.report.parts import Section
from augforge.report.row_map import HEIGHT, WIDTH, dots_of
from augforge.synth.run_folder import RUN
from augforge.types import InputError, LackError

PAGE = "report.html"  # what `bench --out` and `synth` call their own
_TEMPLATE = Path(__file__).parent / "template"


def page(runs: Sequence[str | Path], out: str | Path, data_root: Path | None = None, map_rows: bool = False) -> Path:
    """Draw a page of `runs`, folders of `bench --out` and of `synth`, into the file `out`; gives its path.

    The page opens from the disk and fetches nothing: styles, script, charts (SVG) and small pictures (JPEG) are in it.
    It has the verdicts first, then for each run its charts, tables, pictures and where it is from. `data_root` is where
    the data of named sources lies, for real pictures; with `map_rows` a map shows which pictures are alike. Raises
    InputError where there is no run, a folder is neither, or `out` cannot be written; then nothing is there of it, or
    what was there before.
    """
    if not runs:
        raise InputError("no run was given; expected at least one folder of `bench --out` or `synth`")
    out = Path(out)
    if out.is_dir():
        raise InputError(f"--out {str(out)!r} is a folder; expected the name of an HTML file")
    sections = [section for run in runs for section in _sections(Path(run), data_root)]
    for section in sections if map_rows else ():
        section.map, section.map_says = dots_of(section.wall)
    text = _render(sections)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_file(out, text.encode("utf-8", "replace"))
    except OSError as error:
        raise InputError(f"--out {str(out)!r} cannot be written ({error.strerror or error})") from error
    return out


def page_beside(run: Path, data_root: Path | None = None) -> str:
    """Draw the page of a run into its own folder; "" or, where that fails, a sentence that says why.

    That is for the end of a run, which has come to its end all the same.
    """
    try:
        page([run], run / PAGE, data_root)
    except (InputError, LackError, OSError) as error:
        return f"{PAGE} was not drawn: {error}"
    return ""


def _sections(run: Path, data_root: Path | None) -> list[Section]:
    """The sections of a folder; raises InputError where it is of neither command."""
    if not run.is_dir():
        raise InputError(f"the run {str(run)!r} is {'a file' if run.exists() else 'not there'}; expected a folder of "
                         "`bench --out` or `synth`")  # fmt: skip
    found = []
    if any((run / name).is_file() for name in (RESULTS, LOW_SHOT, VERIFICATION)):
        from augforge.report.bench_run import bench_section  # here and below: a run of one needs not the other's

        found.append(bench_section(run))
    if (run / RUN).is_file():
        from augforge.report.synth_run import synth_section

        found.append(synth_section(run, data_root))
    if not found:
        raise InputError(f"the folder {str(run)!r} holds neither bench.jsonl nor run.json; expected a folder of "
                         "`bench --out` or `synth`")  # fmt: skip
    return found


def _render(sections: Sequence[Section]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(loader=FileSystemLoader(_TEMPLATE), autoescape=True, undefined=StrictUndefined,
                              trim_blocks=True, lstrip_blocks=True)  # fmt: skip
    names = ", ".join(dict.fromkeys(section.name for section in sections))
    return environment.get_template("page.html").render(
        title=f"Report: {names}", version=__version__, sections=sections, map_size=(WIDTH, HEIGHT)
    )
