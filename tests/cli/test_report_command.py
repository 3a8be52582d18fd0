"""`augforge report`, and the page that `bench --out` draws by itself."""

import json

import torch

from augforge.cli.main import main
from augforge.data.banks import FeatureBank
from augforge.data.features import write_features


def test_a_page_of_both_kinds_of_run(augforge, source, tmp_path):
    made = augforge("synth", source, "--with", "noise", "--per-class", 2, "--workers", 1, "--out", tmp_path / "run")
    assert made.code == 0
    found = augforge("report", tmp_path / "run", "--out", tmp_path / "pages" / "page.html")
    assert found.code == 0
    assert found.out.startswith("drew 1 run in ")
    text = (tmp_path / "pages" / "page.html").read_text()
    assert "4 examples of 2 classes made with noise from 7 real ones" in text
    again = augforge("report", tmp_path / "run", tmp_path / "run", "--out", tmp_path / "two.html", "--json").json()
    assert again["out"] == str(tmp_path / "two.html")
    assert again["runs"] == [str(tmp_path / "run")] * 2
    assert again["bytes"] == (tmp_path / "two.html").stat().st_size


def test_what_is_no_run_is_one_sentence(augforge, tmp_path):
    (tmp_path / "empty").mkdir()
    sentence = augforge("report", tmp_path / "empty", "--out", tmp_path / "page.html").error()
    assert "'" + str(tmp_path / "empty") + "'" in sentence
    assert "bench.jsonl" in sentence
    assert "--out" in augforge("report", tmp_path / "empty").error()
    assert "RUN" in augforge("report", "--out", tmp_path / "page.html").error()
    assert not (tmp_path / "page.html").exists()


def test_synth_draws_it_by_itself(augforge, source, tmp_path):
    how = ("synth", source, "--with", "noise", "--per-class", 3, "--workers", 1, "--out", tmp_path / "run")
    path = tmp_path / "run" / "report.html"
    assert augforge(*how, "--json").json()["report"] == str(path)
    assert "6 examples of 2 classes made with noise from 7 real ones: 46 % of all" in path.read_text()
    assert f"--per-class 3 --out {tmp_path / 'run'}" in path.read_text()
    path.write_text(path.read_text() + "<!-- as it was -->")
    reply = augforge(*how, "--resume")
    assert f"look at {tmp_path / 'run' / '.contact_sheet.png'} and {path}" in reply.out
    assert path.read_text().endswith("<!-- as it was -->")
    next((tmp_path / "run" / "cat").glob("*.png")).unlink()
    augforge(*how, "--resume")  # makes it again
    assert "as it was" not in path.read_text()
    path.unlink()
    augforge(*how, "--resume")
    assert path.exists()
    assert "report" not in augforge(*how, "--overwrite", "--no-report", "--json").json()
    assert not path.exists()


def test_a_page_that_cannot_be_drawn_is_a_note_and_what_lay_there_stays(augforge, source, tmp_path, monkeypatch):
    how = ("synth", source, "--with", "noise", "--per-class", 1, "--workers", 1, "--out", tmp_path / "run")
    assert augforge(*how, "--no-report").code == 0
    path = tmp_path / "run" / "report.html"
    path.write_text("my own")
    for more in ("--resume", "--overwrite"):
        reply = augforge(*how, more)
        assert reply.code == 0
        assert "'report.html', which augforge did not draw" in reply.err
        assert path.read_text() == "my own"
    path.unlink()
    monkeypatch.setattr("augforge.report.write_file", _full)
    reply = augforge(*how, "--resume")
    assert reply.code == 0
    assert "report.html was not drawn" in reply.err
    assert "report.html" not in reply.out


def _full(path, data):
    raise OSError(28, "No space left on device")


def test_a_dry_run_and_a_shard_that_is_not_the_last_draw_none(augforge, source, tmp_path):
    how = ("synth", source, "--with", "noise", "--per-class", 70, "--out", tmp_path / "run")
    augforge(*how, "--dry-run")
    assert not (tmp_path / "run").exists()
    for turn in range(2):
        assert ("report" in augforge(*how, "--shards", f"{turn}/2", "--json").json()) == (turn == 1)
        assert (tmp_path / "run" / "report.html").exists() == (turn == 1)


def test_where_there_are_no_pictures_to_see_none_is_drawn_by_itself(augforge, source, tmp_path):
    write_features(tmp_path / "features.safetensors", {"all": bank("b", 0)})
    how = ("synth", tmp_path / "features.safetensors", "--with", "noise", "--per-class", 5, "--out", tmp_path / "run")
    assert "report" not in augforge(*how, "--json").json()
    assert not (tmp_path / "run" / "report.html").exists()
    augforge("report", tmp_path / "run", "--out", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert "40 examples of 8 classes made with noise from 96 real ones: 29 % of all" in text
    assert "there are no pictures to show" in text


def test_a_run_with_its_page_is_a_source_without_a_word(augforge, source, tmp_path):
    how = ("--with", "noise", "--per-class", 2, "--workers", 1)
    augforge("synth", source, *how, "--out", tmp_path / "run")
    reply = augforge("synth", tmp_path / "run", *how, "--out", tmp_path / "more")
    assert reply.code == 0
    assert "not read" not in reply.err


def bank(prefix, seed):
    y = torch.arange(8).repeat_interleave(12)
    x = torch.randn(8, 6, generator=torch.Generator().manual_seed(seed))[y]
    return FeatureBank(x + torch.randn(96, 6, generator=torch.Generator().manual_seed(seed + 1)), y,
                       tuple(f"{prefix}{i}" for i in range(8)))  # fmt: skip


def test_bench_draws_it_by_itself_with_its_command(tmp_path, capsys):
    task = tmp_path / "features.safetensors"
    write_features(task, {"train": bank("b", 0), "test": bank("n", 2)})
    words = ["bench", str(task), "--shot", "1", "--trials", "20", "--query", "5", "--out", str(tmp_path / "bench")]
    for _ in range(2):
        main(words)
    lines = [json.loads(line) for line in (tmp_path / "bench" / "commands.jsonl").read_text().splitlines()]
    assert [line["command"] for line in lines] == ["augforge " + " ".join(words)]
    text = (tmp_path / "bench" / "report.html").read_text()
    assert lines[0]["command"] in text
    assert lines[0]["date"] in text
    rows = [json.loads(line) for line in (tmp_path / "bench" / "bench.jsonl").read_text().splitlines()]
    assert all(f'data-v="{row["accuracy"]}"' in text for row in rows)
    capsys.readouterr()
