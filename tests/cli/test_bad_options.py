"""Options with something wrong in them: one sentence, the right exit code, and nothing written."""

import pytest


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--set", "rotate"), "--set 'rotate' was given; expected name=value"),
        (("--set", "=3"), "--set '=3' was given; expected name=value"),
        (("--set", "rotat=3,4"), "classical has no setting 'rotat'; the nearest is 'rotate'"),
        (("--set", "rotate=a,b"), "rotate='a,b'"),
        (("--set", "rotate=1,2,3"), "rotate='1,2,3'"),
        (("--set", "flip_x=2"), "flip_x"),
        (("--set", "flip_x=nan"), "flip_x"),
        (("--with", "clasical"), "there is no synthesizer 'clasical'; the nearest is 'classical'"),
        (("--with", "a\nb"), "there is no synthesizer 'a\\nb'"),
        (("--with", "/"), "has no part.json; expected a folder that `augforge fit` made"),
        (("--split", "tset"), "--split 'tset'"),
        (("--split", "train"), "--split 'train'"),
        (("--size", 0), "'--size': 0 is not in the range 1<=x<=16384"),
        (("--size", -4), "'--size': -4 is not in the range"),
        (("--size", 16385), "'--size': 16385 is not in the range"),
        (("--quality", 0), "'--quality': 0 is not in the range 1<=x<=100"),
        (("--quality", 101), "'--quality': 101 is not in the range 1<=x<=100"),
        (("--shards", "1"), "--shards '1' was given; expected i/N"),
        (("--shards", "1/2/3"), "--shards '1/2/3' was given; expected i/N"),
        (("--shards", "a/b"), "--shards 'a/b' was given; expected i/N"),
        (("--shards", "-1/3"), "--shards '-1/3' was given; expected i/N"),
        (("--shards", "²/3"), "--shards '²/3' was given; expected i/N"),
        (("--shards", "3/3"), "--shards 3/3 was given; expected i/N with 0 <= i < N"),
        (("--shards", "0/0"), "--shards 0/0 was given"),
        (("--workers", -1), "'--workers': -1 is not in the range x>=0"),
        (("--batch-size", 0), "'--batch-size': 0 is not in the range x>=1"),
        (("--seed", 2**64), "--seed 18446744073709551616 was given; expected a whole number of 64 bits"),
        (("--seed", -(2**63) - 1), "expected a whole number of 64 bits"),
        (("--format", "tar"), "'tar' is not one of 'folder', 'webdataset', 'npz'"),
        (("--encoding", "gif"), "'gif' is not one of"),
        (("--sise", 3), "No such option"),
        (("more",), "unexpected extra argument"),
        (("--config", "nowhere.json"), "--config 'nowhere.json' cannot be read as JSON"),
        (("--counts", "nowhere.json", "--to", 1), "--counts 'nowhere.json' cannot be read as JSON"),
    ],
)
def test_a_wrong_option_is_one_sentence(augforge, source, snapshot, tmp_path, given, said):
    before = snapshot(tmp_path)
    assert said in augforge("synth", source, "--out", tmp_path / "out", "--per-class", 1, *given).error()
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("seed", [2**64 - 1, -(2**63), -1])
def test_every_seed_of_64_bits_is_a_seed(augforge, source, tmp_path, seed):
    assert augforge("synth", source, "--out", tmp_path / "out", "--per-class", 1, "--seed", seed).code == 0


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ('{"rotat": [1, 2]}', "classical has no setting 'rotat'; the nearest is 'rotate'"),
        ('{"rotate": "x"}', "rotate='x'"),
        ('{"rotate": [null, 3]}', "rotate=[None, 3]"),
        ('{"flip_x": [0.5]}', "flip_x=[0.5]"),
        ('{"flip_x": {"a": 1}}', "flip_x={'a': 1}"),
        ("[1]", "holds a list; expected a JSON object"),
        ("null", "holds a NoneType; expected a JSON object"),
        ("{'rotate': 1}", "cannot be read as JSON"),
        ("\xff", "cannot be read as JSON"),
        ("", "cannot be read as JSON"),
    ],
)
def test_a_wrong_config_is_one_sentence(augforge, source, tmp_path, config, said):
    (tmp_path / "config.json").write_bytes(config.encode("latin-1"))
    given = ("--per-class", 1, "--config", tmp_path / "config.json")
    assert said in augforge("synth", source, "--out", tmp_path / "out", *given).error()
    assert not (tmp_path / "out").exists()


def test_set_wins_over_config(augforge, source, tmp_path):
    import json

    (tmp_path / "config.json").write_text('{"rotate": [1, 2], "flip_x": 0.25}')
    given = ("--per-class", 1, "--config", tmp_path / "config.json", "--set", "rotate=3,4")
    assert augforge("synth", source, "--out", tmp_path / "out", *given).code == 0
    settings = json.loads((tmp_path / "out" / "run.json").read_text())["method"]["settings"]
    assert (settings["rotate"], settings["flip_x"]) == ([3.0, 4.0], 0.25)


@pytest.mark.parametrize("device", ["cuda", "cuda:7", "tpu", "mps"])
def test_a_device_that_is_not_there_is_exit_code_4(augforge, source, tmp_path, device):
    import torch

    if device.startswith("cuda") and torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    result = augforge("synth", source, "--out", tmp_path / "out", "--per-class", 1, "--device", device)
    assert result.error(4) == f"--device {device}: this machine has none; expected auto or cpu"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("device", ["cuda:-3", "cudafoo", "cuda:", "cuda:1.5", "cpu:0", "auto2", "cuda:00"])
def test_a_word_that_is_no_device_is_exit_code_2(augforge, source, tmp_path, device):
    result = augforge("synth", source, "--out", tmp_path / "out", "--per-class", 1, "--device", device)
    assert result.error() == f"--device {device!r} was given; expected auto, cpu, cuda or cuda:N"
    assert not (tmp_path / "out").exists()


def test_a_named_source_without_its_data_is_exit_code_4(augforge, monkeypatch, tmp_path):
    monkeypatch.delenv("AUGFORGE_DATA", raising=False)
    arguments = ("synth", "cifar-fs", "--out", tmp_path / "out", "--per-class", 1)
    assert "--data-root or AUGFORGE_DATA" in augforge(*arguments).error(4)
    assert "cifar-fs.zip" in augforge(*arguments, "--data-root", tmp_path).error(4)
    assert "--data-root or AUGFORGE_DATA" in augforge("fit", "noise", "cifar-fs", "--out", tmp_path / "p").error(4)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [(), ("synth",), ("sinth",), ("synth", "glyphs"), ("regen", "a"), ("--verbose",)])
def test_wrong_usage_is_exit_code_2(augforge, arguments):
    result = augforge(*arguments)
    assert (result.code, result.out) == (2, "")
    if arguments:
        assert "--help)" in result.error()
    else:
        assert result.err.startswith("Usage: augforge")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nois", "glyphs"), "there is no method 'nois'; the nearest is 'noise'"),
        (("noise", "glyfs"), "there is no file, folder or source 'glyfs'"),
        (("noise", "glyphs", "--set", "scale=-1"), "scale=-1.0 was given"),
        (("noise", "glyphs", "--split", "tset"), "--split 'tset'"),
        (("noise", "glyphs", "--seed", 2**65), "--seed"),
    ],
)
def test_a_fit_that_cannot_be_is_one_sentence(augforge, tmp_path, arguments, said):
    assert said in augforge("fit", *arguments, "--out", tmp_path / "part").error()
    assert not (tmp_path / "part").exists()


def test_a_fit_that_cannot_be_written_is_one_sentence(augforge, source, tmp_path):
    (tmp_path / "file").touch()
    assert "cannot be written" in augforge("fit", "noise", source, "--out", tmp_path / "file").error()
    assert "cannot be written" in augforge("fit", "noise", source, "--out", tmp_path / "file" / "in").error()


@pytest.mark.parametrize(
    "option", ["--with", "--representation", "--device", "--format", "--class", "--set", "--engine"]
)
def test_a_long_value_is_quoted_without_its_middle(augforge, source, tmp_path, option):
    result = augforge("synth", source, "--out", tmp_path / "out", "--per-class", 1, option, "x" * 5000)
    assert len(result.error(4 if option == "--device" else 2)) <= 620


def test_a_long_command_or_option_is_quoted_without_its_middle(augforge, source):
    for words in (("x" * 5000,), ("synth", source, "--" + "x" * 5000), ("predict", source, "--pool", "x" * 5000)):
        assert len(augforge(*words).error()) <= 620
