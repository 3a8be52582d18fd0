"""The contact sheet: real pictures and what was made of them, to see at a glance whether a run is any good."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image, PngImagePlugin
from torch import Tensor

from augforge import chance
from augforge.curate.copies import Distinct
from augforge.curate.filters import Filter, Implausible, counts_text
from augforge.data.durable import write_file
from augforge.synth.generate import Making, Notes, Parents, load, needs_no_support, synthesized
from augforge.synth.plan import ClassPlan
from augforge.synth.sheet import Block, Layout, Tile, draw_page, layout_of, picture_size
from augforge.types import Examples, InputError, UnreadablePicture

PICTURES = 160  # about so many made ones on a sheet, however large the run
_MOST_LOOKED_AT, _MOST_EXTRA = 9, 14  # pictures: to learn their size; rejected ones, and least good ones
_TEXT = "Description"  # the PNG text that says how many classes are shown


def draw_sheet(making: Making, path: Path, rejected: Mapping[str, int] | None = None) -> str | None:
    """Draw real pictures of every class, and what was made of each, into a PNG at `path`.

    Gives what it says: "17 classes", or "66 of 100 classes" where not all fit. The pictures are made anew from their
    keys, about 160 of them, so the time does not grow with the run. Those of a pool have their weight and confidence,
    and the least sure ones come last; with filters the made ones that came nearest to being rejected, and rejected ones
    with their reasons. `rejected` are the tries of the whole run by reason, where they are known. Nothing is drawn
    where nothing is made.
    """
    classes = [plan for plan in making.plan.classes if plan.make]
    if not classes:
        return None
    pool = making.pool is not None
    most = max(-(-plan.make // max(1, min(len(plan.rows), plan.make))) for plan in classes)
    layout = layout_of(len(classes), _size(making, classes), plan_most(classes, most), PICTURES, pool)
    chosen = [classes[i * len(classes) // layout.shown] for i in range(layout.shown)]
    seen = _Seen()
    blocks = [_block(making, plan, layout, seen) for plan in chosen]
    count = f"{len(chosen)} classes" if len(chosen) == len(classes) else f"{len(chosen)} of {len(classes)} classes"
    count = "1 class" if count == "1 classes" else count
    said = f"taken by {making.method}" if pool else f"made with {making.method}, seed {making.seed}"
    below = "what was taken for it" if pool else "what was made of it"
    title = [f"{said}: {count}", f"A real picture has a dark frame; beside it is {below}."]
    title += [f"Rejected tries of the whole run: {counts_text(dict(rejected))}"] if rejected else []
    page = draw_page(title, blocks, layout, [*_least_sure(making, chosen), *seen.blocks()])
    note = PngImagePlugin.PngInfo()
    note.add_text(_TEXT, count)
    data = io.BytesIO()
    page.save(data, "PNG", pnginfo=note)
    write_file(path, data.getvalue())
    return count


def classes_shown(path: Path) -> str:
    """What `draw_sheet` said of a sheet; "" for one of before, or none."""
    try:
        with Image.open(path) as sheet:
            return str(sheet.info.get(_TEXT, ""))
    except OSError:
        return ""


def plan_most(classes: Sequence[ClassPlan], most: int) -> int:
    """How many made pictures stand behind a real one at most: what a class has of it; of a pool what a class has."""
    return max(plan.make for plan in classes) if classes[0].taken is not None else most


def _size(making: Making, classes: Sequence[ClassPlan]) -> tuple[int, int]:
    """The height and usual width of pictures on the sheet, by the first ones of some classes."""
    shapes = []
    some = classes[:: -(-len(classes) // _MOST_LOOKED_AT)]
    for plan in some:
        for row in plan.rows[:1]:
            try:
                shapes.append(load(making, int(row))[0].shape)
            except UnreadablePicture:
                continue
    return picture_size(shapes)


def _block(making: Making, plan: ClassPlan, layout: Layout, seen: _Seen) -> Block:
    """Of a class as many real pictures as there is room for with what was made of each."""
    groups: list[list[Tile]] = []
    together = layout.together if len(plan.rows) > 1 and plan.taken is None else layout.across
    slots, place = layout.lines * (layout.across // together) * together, 0
    parents = Parents(making, plan, Notes())
    while slots > 1 and place < max(1, min(len(plan.rows), plan.make)):
        most = min(together, slots) - 1
        if plan.taken is not None:
            group = _taken(making, plan, place, most)
        else:
            group = _made(making, plan, parents, place, (most, seen))
        if not group:
            break
        groups.append(group)
        slots, place = slots - len(group), place + 1
    return Block(plan.name, groups)


def _taken(making: Making, plan: ClassPlan, place: int, most: int) -> list[Tile]:
    """A real picture, and of the rows that were taken for its class the next ones."""
    assert plan.taken is not None
    places = range(place * most, min((place + 1) * most, plan.make))
    real = [Tile(load(making, int(plan.rows[place]))[0], real=True)] if place < len(plan.rows) else []
    return [*real, *(_of_pool(making, plan, i) for i in places)] if places else []


def _of_pool(making: Making, plan: ClassPlan, place: int, named: bool = False) -> Tile:
    """A picture of the pool with its weight and confidence."""
    assert plan.taken is not None
    facts = plan.taken.facts(place)
    words = [f"weight {facts['weight']:.2g}"] if "weight" in facts else []
    words += [f"{100 * facts['confidence']:.0f}% sure"] if "confidence" in facts else []
    picture = load(making, int(plan.taken.rows[place]), making.pool)[0]
    return Tile(picture, caption=" ".join([plan.name, *words] if named else words))


def _made(
    making: Making, plan: ClassPlan, parents: Parents, place: int, how: tuple[int, _Seen]
) -> list[Tile]:  # fmt: skip
    """A real picture, and at most so many that were made of it; where none passes the filters, ones that do not."""
    most, seen = how
    indices = np.arange(place, plan.make, max(1, len(plan.rows)))[:most]
    keys = chance.row_keys(making.seed, plan.name, torch.from_numpy(indices))
    places = np.full(len(indices), place)
    filtered = replace(making, filters=tuple(_Watched(one, plan.name, seen) for one in making.filters))
    try:
        distinct = Distinct() if making.distinct else None
        pictures, _ = synthesized(filtered, plan, parents, places, keys, distinct)
    except Implausible:
        pictures, _ = synthesized(replace(making, filters=()), plan, parents, places, keys)
    try:
        parent = parents.picture(place)
    except InputError:
        if not needs_no_support(making.part):
            raise
        return [Tile(picture) for picture in pictures]
    return [Tile(parent, real=True), *map(Tile, pictures)]


def _least_sure(making: Making, classes: Sequence[ClassPlan]) -> list[Block]:
    """Of the rows that were taken from a pool those with the lowest confidence."""
    found = [(plan.taken.confidence[place], i, place) for i, plan in enumerate(classes)
             if plan.taken is not None and plan.taken.confidence is not None for place in range(plan.make)]  # fmt: skip
    tiles = [_of_pool(making, classes[i], place, named=True) for _, i, place in sorted(found)[:_MOST_EXTRA]]
    return [Block("Least sure of those that were taken", [[tile] for tile in tiles])] if tiles else []


@dataclass
class _Seen:
    """What filters said of made pictures, by their bytes: the least margin and its reason, the picture, its class."""

    found: dict[bytes, tuple[float, str, np.ndarray, str]] = field(default_factory=dict)

    def add(self, picture: np.ndarray, name: str, margins: Sequence[float], reasons: Sequence[str]) -> None:
        """Keep the least margin of a picture; what is not a number is below all."""
        values = [margin if margin == margin else -np.inf for margin in margins]
        key, least = picture.tobytes(), min(range(len(values)), key=values.__getitem__)
        if key not in self.found or values[least] < self.found[key][0]:
            self.found[key] = values[least], reasons[least], picture, name

    def blocks(self) -> list[Block]:
        """The accepted pictures that were nearest to being rejected, and rejected ones, each with the reason."""
        ordered = sorted(self.found.values(), key=lambda one: one[0])
        accepted = [Tile(picture, caption=f"{name} nearly {reason}") for margin, reason, picture, name in ordered
                    if margin >= 0]  # fmt: skip
        rejected = [Tile(picture, caption=f"{name} {reason}", bad=True) for margin, reason, picture, name in ordered
                    if not margin >= 0]  # fmt: skip
        titled = {"Kept, but nearest to being rejected": accepted,
                  f"Rejected: {len(rejected)} of the tries for this sheet": rejected}  # fmt: skip
        return [Block(title, [[tile] for tile in tiles[:_MOST_EXTRA]]) for title, tiles in titled.items() if tiles]


@dataclass(frozen=True)
class _Watched:
    """A filter that tells `seen` of every margin that it gives."""

    filter: Filter
    name: str
    seen: _Seen

    @property
    def reasons(self) -> tuple[str, ...]:
        return self.filter.reasons

    def margins(self, part: Any, support: Examples, made: Examples) -> Tensor:
        found = self.filter.margins(part, support, made)
        for i, margins in enumerate(found.tolist()):
            picture = made.x[i].permute(1, 2, 0).contiguous().cpu().numpy()
            self.seen.add(picture, self.name, margins, self.reasons)
        return found

    def for_class(self, name: str) -> Self:
        return replace(self, filter=self.filter.for_class(name))
