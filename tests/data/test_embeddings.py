"""Embeddings as people keep them, in files of every kind: the same rows, labels, names and splits come out."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from augforge.data.embeddings import is_embeddings, is_embeddings_folder, read_rows
from augforge.data.notes import Note
from augforge.data.source import open_source
from augforge.types import InputError, LackError

LABELS = np.array(["cat", "eel", "dog", "cat", "dog", "eel", "cat"])
X = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
NAMES = [f"photos/{i}.jpg" for i in range(7)]


def column(path, lines):
    path.write_text("\n".join(map(str, lines)) + "\n")


def checked(bank, names=None):
    assert bank.x.dtype == torch.float32
    assert bank.classes == ("cat", "dog", "eel")
    np.testing.assert_allclose(bank.x.numpy(), X, atol=2e-3)  # some are kept in float16
    assert [bank.classes[y] for y in bank.y.tolist()] == LABELS.tolist()
    assert [bank.name(row) for row in range(7)] == (names or [f"features[{row}]" for row in range(7)])


@pytest.mark.parametrize(
    ("name", "labels"),
    [("a.npy", "labels.npy"), ("a.npy", "a_labels.npy"), ("a.npy", "a.labels.csv"), ("a.npy", "labels.txt"),
     ("X.npy", "y.npy"), ("X_few.npy", "y_few.npy"), ("few_features.npy", "few_labels.csv"), ("a.npz", "labels.csv"),
     ("embeddings.npz", "labels.npy"), ("a.safetensors", "a_labels.npy")],
)  # fmt: skip
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_labels_beside(tmp_path, name, labels, dtype):
    x = X.astype(dtype)
    if name.endswith(".npy"):
        np.save(tmp_path / name, x)
    elif name.endswith(".npz"):
        np.savez(tmp_path / name, embeddings=x)
    else:
        save_file({"embeddings": torch.from_numpy(x).to(torch.bfloat16)}, tmp_path / name)
        x = torch.from_numpy(x).to(torch.bfloat16).float().numpy()
    if labels.endswith(".npy"):
        np.save(tmp_path / labels, LABELS)
    else:
        column(tmp_path / labels, LABELS)
    bank = open_source(tmp_path / name)["all"]
    np.testing.assert_array_equal(bank.x.numpy(), x.astype(np.float32))
    assert [bank.classes[y] for y in bank.y.tolist()] == LABELS.tolist()


WITH_FILES = ["drawer,Class", *(f"x,{c}" for c in LABELS)]


@pytest.mark.parametrize("lines", [LABELS, ["label", *LABELS], ["species", *LABELS], WITH_FILES])
def test_a_column_of_labels_with_a_header_or_none(tmp_path, lines):
    np.save(tmp_path / "a.npy", X)
    column(tmp_path / "labels.csv", lines)
    checked(open_source(tmp_path / "a.npy")["all"])


def test_names_and_groups_beside(tmp_path):
    np.save(tmp_path / "a.npy", X)
    lines = [f"{name},{label},day {i % 2}" for i, (name, label) in enumerate(zip(NAMES, LABELS, strict=True))]
    column(tmp_path / "labels.csv", ["path,label,group", *lines])
    bank = open_source(tmp_path / "a.npy")["all"]
    checked(bank, NAMES)
    assert bank.groups["group"] == tuple(f"day {i % 2}" for i in range(7))
    for name in ("embeddings", "features"):
        np.savez(tmp_path / "b.npz", **{name: X}, labels=LABELS, group=np.arange(7) % 2)
        assert open_source(tmp_path / "b.npz")["all"].groups == {"group": tuple("0101010")}


def test_whole_numbers_are_classes_in_their_order(tmp_path):
    np.save(tmp_path / "a.npy", X)
    column(tmp_path / "labels.csv", [10, 9, 10, 9, 100, 9, 9])
    assert open_source(tmp_path / "a.npy")["all"].classes == ("9", "10", "100")


def test_arrays_by_other_names(tmp_path):
    np.savez(tmp_path / "a.npz", X=X.astype(np.float64), y=LABELS, paths=np.array(NAMES))
    checked(open_source(tmp_path / "a.npz")["all"], NAMES)
    ids = np.unique(LABELS, return_inverse=True)[1]
    np.savez(tmp_path / "b.npz", embeddings=X, targets=ids, classes=np.array(["cat", "dog", "eel"]))
    checked(open_source(tmp_path / "b.npz")["all"])
    save_file({"embeddings": torch.from_numpy(X), "y": torch.from_numpy(ids)}, tmp_path / "c.safetensors",
              {"classes": '["cat", "dog", "eel"]', "paths": str(NAMES).replace("'", '"')})  # fmt: skip
    checked(open_source(tmp_path / "c.safetensors")["all"], NAMES)


def as_table(tmp_path, kind, **columns):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    table = pandas.DataFrame(columns)
    path = tmp_path / f"table{kind}"
    table.to_csv(path) if kind == ".csv" else table.to_parquet(path)
    return path


NUMBERS = {f"f{i}": X[:, i] for i in range(5)}


@pytest.mark.parametrize("kind", [".csv", ".parquet"])
def test_tables(tmp_path, kind):
    path = as_table(tmp_path, kind, **NUMBERS, label=LABELS, path=NAMES, drawer=list("abcdefg"))
    bank = open_source(path)["all"]  # without the column of row numbers that pandas adds
    checked(bank, NAMES)
    assert bank.groups == {"drawer": tuple("abcdefg")}
    path = as_table(tmp_path, kind, **NUMBERS, label=LABELS, group=[1, 1, 2, 2, 3, 3, 3])
    assert open_source(path)["all"].groups == {"group": tuple("1122333")}
    with pytest.warns(Note, match="columns are left out, beside those called 'f0' and so on: 'age'"):
        checked(open_source(as_table(tmp_path, kind, age=range(7), **NUMBERS, **{"Class": LABELS}))["all"])


def test_a_table_of_lists_and_splits(tmp_path):
    path = as_table(
        tmp_path, ".parquet", embedding=list(X), age=range(7), label=LABELS, split=["train"] * 4 + ["Dev"] * 3
    )
    banks = open_source(path)
    assert {split: bank.counts().tolist() for split, bank in banks.items()} == {"train": [2, 1, 1], "val": [1, 1, 1]}
    np.testing.assert_array_equal(banks["val"].x.numpy(), X[4:])


def test_a_table_without_labels_is_rows_alone(tmp_path):
    rows = read_rows(as_table(tmp_path, ".csv", **NUMBERS, path=NAMES))
    assert rows.labels is None
    assert rows.names == tuple(NAMES)
    np.testing.assert_allclose(rows.x.numpy(), X, rtol=1e-6)


def test_names_that_occur_twice_stay_apart(tmp_path):
    np.savez(tmp_path / "a.npz", embeddings=X, labels=LABELS, names=np.array(["a", "b", "a", "c", "d", "e", "f"]))
    bank = open_source(tmp_path / "a.npz")["all"]
    assert bank.names == ("a[0]", "b", "a[2]", "c", "d", "e", "f")


def test_a_file_for_each_class(tmp_path):
    for name in ("cat", "dog", "eel"):
        np.save(tmp_path / f"{name}.npy", X[name == LABELS])
    bank = open_source(tmp_path)["all"]
    assert bank.classes == ("cat", "dog", "eel")
    assert bank.counts().tolist() == [3, 2, 2]
    assert bank.name(4) == "dog.npy[1]"
    np.testing.assert_array_equal(bank.x[3:5].numpy(), X[LABELS == "dog"])


def test_folders_of_arrays(tmp_path):
    for split, part in (("Train", slice(0, 6)), ("test", slice(1, 7))):
        (tmp_path / "folders" / split).mkdir(parents=True)
        (tmp_path / "files").mkdir(exist_ok=True)
        for name in ("cat", "dog", "eel"):
            np.save(tmp_path / "folders" / split / f"{name}.npy", X[part][LABELS[part] == name])
        np.save(tmp_path / "files" / f"X_{split}.npy", X[part])
        np.save(tmp_path / "files" / f"y_{split}.npy", LABELS[part])
    for source in ("folders", "files"):
        banks = open_source(tmp_path / source)
        assert list(banks) == ["train", "test"]
        assert banks["train"].counts().tolist() == [2, 2, 2]
        assert sorted(map(tuple, banks["test"].x.tolist())) == sorted(map(tuple, X[1:].tolist()))
    np.save(tmp_path / "one.npy", X)
    (tmp_path / "single").mkdir()
    (tmp_path / "one.npy").rename(tmp_path / "single" / "one.npy")
    np.save(tmp_path / "single" / "labels.npy", LABELS)
    checked(open_source(tmp_path / "single")["all"])


def test_a_folder_of_pictures_with_an_array_beside_is_one_of_pictures(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.png").touch()
    np.save(tmp_path / "features.npy", X)
    assert not is_embeddings_folder(tmp_path)
    assert open_source(tmp_path)["all"].space == "image"


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({"a.npy": X}, "a.npy' has no labels; expected a column of them, called 'label', or beside it a file a_lab"),
        ({"a.npy": X, "labels.npy": LABELS[:3]}, r"labels.npy' has labels \[3\], and .*a.npy' has 7 rows"),
        ({"a.npy": X, "labels.npy": X}, r"has labels \[7, 5\]"),
        ({"a.npy": X[0], "labels.npy": LABELS}, r"holds float32 \[5\]; expected numbers \[n, d\]"),
        ({"a.npy": LABELS[:, None], "labels.npy": LABELS}, r"holds <U3 \[7, 1\]; expected numbers"),
        ({"a.npy": np.where(X > 1, np.nan, X), "labels.npy": LABELS}, r"features\[\d\] is not finite"),
        ({"a.npy": b"\x93NUMPY and then nothing", "labels.npy": LABELS}, "cannot be read as .npy"),
        ({"a.npy": np.array([{}])}, "cannot be read as .npy"),
        ({"a.npy": X, "labels.csv": b"file,kind\nx,cat\n"}, "it has the columns file, kind and none called label"),
        ({"a.npy": X, "labels.csv": b"\xff\xfe\x00"}, "cannot be read as the labels of"),
        ({"a.npy": X, "labels.npy": LABELS, "a.csv": b""}, None),
    ],
)  # fmt: skip
def test_mistakes(tmp_path, files, text):
    for name, content in files.items():
        if isinstance(content, bytes):
            (tmp_path / name).write_bytes(content)
        else:
            np.save(tmp_path / name, content)
    if text is None:
        checked(open_source(tmp_path / "a.npy")["all"])
        return
    with pytest.raises(InputError, match=text):
        open_source(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("files", "text"),
    [
        (["train", "test"], "test.npy, train.npy and no labels; expected train_labels.npy"),
        (["X_train", "y_train", "extra"], "X_train.npy, extra.npy with labels; expected one of them, or one for each"),
        (["cat", "Cat"], "differ by case alone"),
    ],
)
def test_folders_that_are_none(tmp_path, files, text):
    for name in files:
        np.save(tmp_path / f"{name}.npy", LABELS if name.startswith("y") else X)
    with pytest.raises(InputError, match=text):
        open_source(tmp_path)


def test_classes_of_different_sizes_are_refused(tmp_path):
    np.save(tmp_path / "cat.npy", X)
    np.save(tmp_path / "dog.npy", X[:, :2])
    with pytest.raises(InputError, match=r"rows of different sizes \(cat.npy 5, dog.npy 2\); expected one size"):
        open_source(tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [("", r"cannot be read as \.csv"), ("a,b\nx,y\n", "has the columns a, b; expected numbers"),
     ("a,b\n1,2\n3\n", r"cannot be read as \.csv"),
     ("label,f0,label\na,1,b\n", r"more than one column called 'label'; expected each name once"),
     ("label,f0,f0\na,1,2\n", r"more than one column called 'f0'; expected each name once")],
)  # fmt: skip
def test_tables_that_are_none(tmp_path, text, said):
    pytest.importorskip("pyarrow")
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InputError, match=said):
        open_source(tmp_path / "a.csv")


def test_without_pyarrow_the_command_that_gets_it_is_named(tmp_path):
    (tmp_path / "a.csv").write_text("label,f0,f1\ncat,1,2\ndog,3,4\n")
    code = ("import sys; sys.modules['pyarrow'] = None; from augforge.data.source import open_source; "
            "open_source(sys.argv[1])")  # fmt: skip
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.csv")], capture_output=True, text=True, cwd=tmp_path
    )
    assert run.stderr.rstrip().endswith("a.csv' needs pyarrow to be read: pip install 'augforge[tables]'")
    assert LackError.__name__ in run.stderr


def test_files_of_embeddings_are_known_by_suffix():
    assert all(map(is_embeddings, ["a.npy", "b.NPZ", "c.csv", "d.parquet", "e.safetensors"]))
    assert not any(map(is_embeddings, ["a.png", "npy", "labels.txt"]))
