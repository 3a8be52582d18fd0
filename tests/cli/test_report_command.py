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
