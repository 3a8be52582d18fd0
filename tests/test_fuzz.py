"""Damaged files, in every reader: each is read, or refused by one sentence of an InputError or LackError.

A valid file is damaged by a seed: bits, cuts, repeats and numbers in bytes, and nodes of JSON in place of others. A
few hundred of each reader here; `make fuzz` goes on for SECONDS each, and prints how to repeat what it found.
"""

import io
import json
import os
import struct
import tarfile
import time
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from augforge.bench.files import read_results
from augforge.cli.options import json_object
from augforge.data.embeddings import open_embeddings
from augforge.data.features import open_features
from augforge.data.source import open_source
from augforge.episodes import draw_episodes
from augforge.episodes.files import read_episodes, write_episodes
from augforge.parts import catalog
from augforge.parts.saving import load_part, save_part
from augforge.predict import load_predictor, make_predictor, save_predictor
from augforge.protocols.low_shot_files import open_low_shot_folder
from augforge.synth.manifest import read_rows
from augforge.synth.run_folder import read_run
from augforge.types import InputError, LackError

SECONDS = float(os.environ.get("AUGFORGE_FUZZ", 0))
TRIES = 60
HOSTILE = (None, True, -1, 0, 2**63, 10**400, 0.5, 1e308, "", "\ud800", "x" * 70000, [], {}, [[]], [None], {"": 0})
ODD_JSON = ("1e999", "-Infinity", "NaN", "[" * 100_000, '{"a":' * 5_000, '"\\ud800"', "1" * 5000, "\x00")


def _picture(kind: str) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def _features(folder: Path) -> Path:
    path = folder / "rows.safetensors"
    tensors = {"features": torch.arange(24.0).reshape(8, 3) % 5, "labels": torch.arange(8) % 2, "weight": torch.ones(8)}
    tensors["split"] = torch.zeros(8, dtype=torch.int64)
    save_file(tensors, path, {"classes": '["a", "b"]', "names": json.dumps([str(i) for i in range(8)])})
    return path


def _bank(folder: Path):
    return next(iter(open_features(_features(folder)).values()))


def _pictures(folder: Path) -> list[Path]:
    for i, kind in enumerate(("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP")):
        for name in ("cat", "dog"):
            path = folder / name / f"{i}.{kind.lower()}"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(_picture(kind))
    return sorted(folder.rglob("*.*"))


def _zip(folder: Path) -> list[Path]:
    with zipfile.ZipFile(folder / "all.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(4):
            archive.writestr(f"{'ab'[i % 2]}/{i}.png", _picture("PNG"))
    return [folder / "all.zip"]


def _tar(folder: Path) -> list[Path]:
    with tarfile.open(folder / "all.tar", "w") as archive:
        for i in range(4):
            info = tarfile.TarInfo(f"{'ab'[i % 2]}/{'long' * 40 * (i == 3)}{i}.png")
            info.size = len(_picture("PNG"))
            archive.addfile(info, io.BytesIO(_picture("PNG")))
    return [folder / "all.tar"]


def _npz(folder: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    arrays = {"labels": np.arange(6) % 2, "classes": np.array(["a", "b"]), "split": np.array(["train"] * 6)}
    np.savez(folder / "pictures.npz", images=rng.integers(0, 256, (6, 5, 4, 3), dtype=np.uint8), **arrays)
    np.savez_compressed(folder / "rows.npz", features=rng.normal(size=(6, 3)).astype(np.float32), **arrays)
    return [folder / "pictures.npz", folder / "rows.npz"]


def _embeddings(folder: Path) -> list[Path]:
    np.save(folder / "mine.npy", np.arange(12.0).reshape(4, 3))
    (folder / "mine_labels.csv").write_text("label\na\nb\na\nb\n")
    (folder / "table.csv").write_text("label,x0,x1\na,1,2\nb,3,4\na,5,6\n")
    return [folder / "mine.npy", folder / "mine_labels.csv", folder / "table.csv"]


def _low_shot(folder: Path) -> list[Path]:
    for name, n in (("train", 80), ("val", 16)):
        with h5py.File(folder / f"{name}.hdf5", "w") as file:
            file["all_feats"] = np.random.default_rng(0).random((n + 3, 4)).astype(np.float32)
            file["all_labels"], file["count"] = np.arange(n + 3) % 4, np.array([n])
    groups = {"base_classes_1": [0], "novel_classes_1": [1], "base_classes_2": [2], "novel_classes_2": [3]}
    (folder / "label_idx.json").write_text(json.dumps(groups))
    (folder / "splitfile_1.json").write_text(json.dumps([list(range(k, 80, 4)) for k in range(4)]))
    return sorted(folder.iterdir())


def _episodes(folder: Path) -> list[Path]:
    bank = _bank(folder)
    episodes = draw_episodes(bank.y, way=2, shot=1, n_query=2, trials=3, seed=0)
    write_episodes(folder / "e.jsonl", episodes, bank, task="t", seed=0)
    return [folder / "e.jsonl"]


def _part(folder: Path) -> list[Path]:
    part = catalog.make("noise", {}).fit(_bank(folder), torch.Generator().manual_seed(0))
    save_part(part, folder / "part")
    return sorted((folder / "part").iterdir())


def _predictor(folder: Path) -> list[Path]:
    save_predictor(make_predictor(_bank(folder), catalog.make("logistic", {}, "classifier")), folder / "mine")
    return sorted(path for path in (folder / "mine").rglob("*") if path.is_file())


def _results(folder: Path) -> list[Path]:
    (folder / "bench.jsonl").write_text('{"digest": "a", "accuracy": 1.5}\n{"digest": "b", "rows": [1, 2]}\n')
    return [folder / "bench.jsonl"]


def _run(folder: Path) -> list[Path]:
    row = dict.fromkeys(("file", "class", "method", "settings", "member", "parent", "parent_sha256", "version"), "a")
    (folder / "manifest.jsonl").write_text(json.dumps(row | {"seed": 0, "index": 1, "bytes": 3}) + "\n")
    (folder / "run.json").write_text(json.dumps({"order": {"seed": 0}, "method": {"name": "copies", "settings": {}}}))
    return [folder / "manifest.jsonl", folder / "run.json"]


def _read_run(folder: Path) -> None:
    read_run(folder)
    list(read_rows(folder / "manifest.jsonl"))


def _settings(folder: Path) -> list[Path]:
    (folder / "set.json").write_text('{"preset": "photographs", "rotate": 10, "flip_y": 0.5}')
    return [folder / "set.json"]


def _decoded(banks: dict) -> None:
    for bank in banks.values():
        for row in range(len(bank)):
            bank.examples(torch.tensor([row]))


def _read_embeddings(folder: Path) -> None:
    for name in ("mine.npy", "table.csv"):
        open_embeddings(folder / name)


READERS = {
    "pictures": (_pictures, lambda f: _decoded(open_source(f))),
    "zip": (_zip, lambda f: _decoded(open_source(f / "all.zip"))),
    "tar": (_tar, lambda f: _decoded(open_source(f / "all.tar"))),
    "npz": (_npz, lambda f: [_decoded(open_source(f / name)) for name in ("pictures.npz", "rows.npz")]),
    "safetensors": (lambda f: [_features(f)], lambda f: open_features(f / "rows.safetensors")),
    "embeddings": (_embeddings, _read_embeddings),
    "low-shot": (_low_shot, open_low_shot_folder),
    "episodes": (_episodes, lambda f: read_episodes(f / "e.jsonl", _bank(f))),
    "part": (_part, lambda f: load_part(f / "part")),
    "predictor": (_predictor, lambda f: load_predictor(f / "mine")),
    "results": (_results, lambda f: read_results(f / "bench.jsonl")),
    "run": (_run, _read_run),
    "settings": (_settings, lambda f: catalog.make("classical", json_object(f / "set.json", "--config"))),
}


def _damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Bytes with one to four of: a bit, a cut, a repeat, a run of one byte, a hostile number."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(0, max(1, len(out))))
        match rng.integers(0, 6):
            case 0:
                out[at : at + 1] = bytes([rng.integers(0, 256)])
            case 1:
                del out[at:]
            case 2:
                out[at:at] = out[at : at + int(rng.integers(1, 64))]
            case 3:
                out[at : at + 8] = bytes([rng.choice([0, 32, 255])]) * 8
            case 4:
                out[at : at + 8] = struct.pack("<q", int(rng.choice([-1, 2**31, 2**62, 2**40])))
            case _:
                del out[at : at + int(rng.integers(1, 16))]
    return bytes(out)


def _damaged_json(text: str, rng: np.random.Generator) -> str:
    """JSON, or lines of it, with a node in place of another, or a text that json alone takes."""
    lines = text.splitlines() or [""]
    which = int(rng.integers(0, len(lines)))
    try:
        found = json.loads("\n".join(lines))
        lines, which = ["\n".join(lines)], 0
    except ValueError:
        found = json.loads(lines[which])
    if rng.random() < 0.25:
        odd = ODD_JSON[rng.integers(0, len(ODD_JSON))]
        lines[which] = odd if rng.random() < 0.5 else lines[which].replace(":", f":{odd},", 1)
        return "\n".join(lines)
    spots: list = []

    def walk(node, put):
        spots.append(put)
        pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, value in list(pairs)[:50]:
            walk(value, lambda new, node=node, key=key: node.__setitem__(key, new))

    whole = [found]
    walk(found, lambda new: whole.__setitem__(0, new))
    spots[rng.integers(0, len(spots))](HOSTILE[rng.integers(0, len(HOSTILE))])
    lines[which] = json.dumps(whole[0])
    return "\n".join(lines)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_read_or_refused_in_one_sentence(reader, tmp_path):
    make, read = READERS[reader]
    files = make(tmp_path)
    read(tmp_path)
    seed, end = int(os.environ.get("AUGFORGE_FUZZ_SEED", 0)), time.monotonic() + SECONDS
    stop = seed + TRIES
    while seed < stop or (SECONDS and time.monotonic() < end):
        rng = np.random.default_rng(seed)
        path = files[rng.integers(0, len(files))]
        kept = path.read_bytes()
        is_json = path.suffix in (".json", ".jsonl") and rng.random() < 0.7
        bad = _damaged_json(kept.decode(), rng).encode(errors="surrogatepass") if is_json else _damaged(kept, rng)
        path.write_bytes(bad)
        try:
            read(tmp_path)
        except (InputError, LackError) as error:
            sentence = str(error)
            assert len(sentence) < 1000, (reader, seed, path.name, len(sentence))
            assert "\n" not in sentence, (reader, seed, path.name, sentence)
        except Exception as error:
            raise AssertionError(f"AUGFORGE_FUZZ_SEED={seed} of {reader}, {path.name}: {error!r:.200}") from error
        path.write_bytes(kept)
        seed += 1
