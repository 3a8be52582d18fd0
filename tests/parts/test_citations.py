"""Every part of the catalog has its papers, or says that it has none; names, folders and recipes are cited."""

import re

import pytest

from augforge.parts import catalog
from augforge.parts.citations import CITED, PAPERS, bibtex, cite
from augforge.types import InputError


def test_every_name_of_the_catalog_is_there_and_every_paper_is_used():
    assert set(CITED) == {name for table in catalog.TABLES.values() for name in table} | set(catalog.SHIPPED)
    assert {key for keys in CITED.values() for key in keys} | {"torchvision"} == set(PAPERS)


@pytest.mark.parametrize("key", PAPERS)
def test_an_entry_is_bibtex(key):
    entry = bibtex(key)
    assert re.match(rf"@(article|inproceedings|misc)\{{{key},\n", entry)
    assert entry.count("{") == entry.count("}")
    for name in ("author", "title", "year"):
        assert f"  {name} = {{" in entry


def test_papers_come_once_and_what_has_none_is_named():
    found, without = cite(["gaussian", "posterior", "classical", "photos+timm:resnet18"])
    assert found.count("@") == 5
    assert without == ["classical"]
    with pytest.raises(InputError, match="the nearest is 'prototype'"):
        cite(["protype"])


def test_folders_and_records_are_cited(tmp_path):
    (tmp_path / "recipe.json").write_text(
        '{"candidate": {"classifier": "simpleshot", "n": [3, "photos"]}, "classes": ["knn"]}'
    )
    for name in (tmp_path, tmp_path / "recipe.json"):
        assert re.findall(r"@\w+\{(\w+)", cite([str(name)])[0]) == ["wang2019", "tan2019", "wightman2019"]
    (tmp_path / "recipe.json").write_text("{}")
    with pytest.raises(InputError, match="names no method"):
        cite([str(tmp_path)])
