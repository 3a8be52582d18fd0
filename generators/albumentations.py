"""Any `albumentations.Compose` as a synthesizer (Buslaev et al., "Albumentations", Information 11(2), 2020).

The only module that imports albumentations. On its own, a pipeline of albumentations 2.0.8 draws the same numbers
in every worker of a DataLoader; here it is given fresh generators for each picture, made from that picture's key.

Not by `compose.set_random_seed`: that gives every transform a generator of the same seed, so that a horizontal and
a vertical flip of one probability always come together. `set_random_state` lets them share one generator.
"""

from __future__ import annotations

import inspect
import json
import os
import random
import sys
import threading
import warnings
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from augforge import chance
from augforge.data.durable import read_file
from augforge.data.strict_json import MOST_JSON, parse_json
from augforge.generators.shared.support import choose_parents
from augforge.networks.pixels import check_levels
from augforge.types import Bank, Examples, InputError, Space

_QUIET = "NO_ALBUMENTATIONS_UPDATE"  # without it the import asks the network for a newer version
_EXPECTED = "expected a pipeline that `albumentations.save` wrote as JSON"


@dataclass
class AlbumentationsCompose:
    """Pictures through an albumentations pipeline, one parent each.

    `compose` is the pipeline as `albumentations.to_dict` gives it, or the name of a JSON file that
    `albumentations.save` wrote; the file is read at once, so that the settings hold the pipeline and not its name.
    `AlbumentationsCompose.of(pipeline)` starts from a live one. A `seed` of the pipeline is of no account: every
    number comes from the keys.

    Only albumentations' own transforms that JSON can hold are taken, and only such as leave pictures pictures:
    no lambdas, no `Normalize`, no `ToTensorV2`. Raises InputError for anything else.
    """

    space: ClassVar[Space] = "image"
    one_parent: ClassVar[bool] = True
    support_needed: ClassVar[int] = 1

    compose: dict | str = ""
    _pipelines: dict[int, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Read the file where `compose` names one, and build the pipeline once to see that it can be built."""
        if not self.compose:
            raise InputError(f"albumentations needs compose=FILE.json; {_EXPECTED}")
        where = "compose"
        if isinstance(self.compose, str):
            where, self.compose = repr(self.compose), _read(self.compose)
        self._pipelines[threading.get_ident()] = _build(self.compose, where)

    @classmethod
    def of(cls, pipeline: Any) -> Self:
        """The part that does what a live `albumentations.Compose` does; raises InputError where JSON cannot hold it."""
        library = _albumentations()
        if not isinstance(pipeline, library.BaseCompose | library.BasicTransform):
            raise InputError(f"{type(pipeline).__name__} was given; expected an albumentations.Compose")
        try:
            return cls(json.loads(json.dumps(library.to_dict(pipeline))))
        except (ValueError, TypeError, NotImplementedError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"the albumentations pipeline cannot be written as JSON ({_first_line(error)})") from error

    def __getstate__(self) -> dict[str, Any]:
        """Live pipelines are left behind: a copy builds its own."""
        return {**self.__dict__, "_pipelines": {}}

    def fit(self, base: Bank, rng: torch.Generator) -> Self:
        """Nothing is learnt."""
        return self

    def synthesize(self, support: Examples, want: Tensor, keys: Tensor) -> Examples:
        """Make a row of class `want[i]` from one of the support pictures of that class, by `keys[i]` alone.

        Takes pictures [m, c, h, w], uint8 or floating in [0, 1], or a list of [c, h, w]; gives the same type on the
        same device. Floats are float32 inside of the pipeline. Where the made pictures differ in size (a crop of
        random size), `x` is a list. Raises InputError where a wanted class has no support row, for features and
        floats that are not in [0, 1], and where the pipeline fails.
        """
        parent = choose_parents(support.y, want, keys)
        if isinstance(support.x, Tensor) and support.x.ndim != 4:
            raise InputError(f"albumentations takes pictures [n, c, h, w], not {list(support.x.shape)}")
        check_levels(support.x, "picture {} of the support")
        if not len(want):
            return Examples(support.x[:0], want, parent)
        seeds = chance.integers(chance.fork(keys, "albumentations"), 1)[:, 0] & 0x7FFFFFFFFFFFFFFF
        pairs = zip(parent.tolist(), seeds.tolist(), strict=True)
        made = [self._augment(support.x[i], seed) for i, seed in pairs]
        if isinstance(support.x, list) or len({picture.shape for picture in made}) > 1:
            return Examples(made, want, parent)
        return Examples(torch.stack(made), want, parent)

    def _augment(self, picture: Tensor, seed: int) -> Tensor:
        """One picture [c, h, w] through the pipeline."""
        pipeline = self._pipeline()
        pipeline.set_random_state(np.random.default_rng(seed), random.Random(seed))
        before = _to_array(picture)
        try:
            after = pipeline(image=before)["image"]
        except Exception as error:  # whatever a transform raises, it is the user's pipeline or picture
            raise InputError(
                f"the albumentations pipeline failed on a picture {list(picture.shape)} ({_first_line(error)})"
            ) from error
        if not isinstance(after, np.ndarray) or after.dtype != before.dtype:
            raise InputError(
                f"the albumentations pipeline made {getattr(after, 'dtype', type(after))} of {before.dtype}; expected "
                "pictures of the same type (leave Normalize, ToFloat and ToTensorV2 to what comes after)"
            )
        return _to_tensor(after, picture)

    def _pipeline(self) -> Any:
        """This thread's live pipeline: it holds its generators, so threads must not share one."""
        thread = threading.get_ident()
        if thread not in self._pipelines:
            self._pipelines[thread] = _build(self.compose, "compose")
        return self._pipelines[thread]


def _to_array(picture: Tensor) -> np.ndarray:
    """A picture [c, h, w] as a new array [h, w, c], uint8 or float32: transforms may write on it."""
    dtype = torch.uint8 if picture.dtype == torch.uint8 else torch.float32
    return picture.detach().permute(1, 2, 0).to("cpu", dtype, copy=True).contiguous().numpy()


def _to_tensor(array: np.ndarray, like: Tensor) -> Tensor:
    """An array [h, w] or [h, w, c] as a picture [c, h, w] of the type and device of `like`, within its range."""
    array = array[..., None] if array.ndim == 2 else array
    picture = torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))
    return (picture if picture.dtype == torch.uint8 else picture.clamp(0, 1)).to(like.device, like.dtype)


def _albumentations() -> Any:
    """The library, imported without its look at PyPI; the environment is left as it was."""
    if "albumentations" not in sys.modules:
        before = os.environ.get(_QUIET)
        os.environ[_QUIET] = "1"
        try:
            import albumentations  # noqa: F401
        finally:
            os.environ.pop(_QUIET)
            if before is not None:
                os.environ[_QUIET] = before
    return sys.modules["albumentations"]


def _read(name: str) -> Any:
    """The JSON of a file; raises InputError where it is missing or none."""
    try:
        return parse_json(read_file(name, MOST_JSON))
    except OSError as error:
        raise InputError(f"{name!r} cannot be read ({error.strerror}); {_EXPECTED}") from error
    except ValueError as error:
        raise InputError(f"{name!r} is not JSON ({error}); {_EXPECTED}") from error


def _build(recipe: Any, where: str) -> Any:
    """The live pipeline of a serialised one; raises InputError where it is none."""
    root = recipe.get("transform") if isinstance(recipe, dict) else None
    if not isinstance(root, dict) or "__class_fullname__" not in root:
        raise InputError(f"{where} is not an albumentations pipeline; {_EXPECTED}")
    _check(root, where)
    library = _albumentations()
    try:
        with warnings.catch_warnings():
            # Of what to_dict itself wrote: for some transforms it names their bases' arguments too.
            warnings.filterwarnings("ignore", message=r"Argument\(s\) .* not valid")
            built = library.from_dict(recipe)
    except Exception as error:
        raise InputError(f"{where} is not a pipeline that albumentations can build ({_first_line(error)})") from error
    return built if isinstance(built, library.Compose) else library.Compose([built])


def _check(node: Any, where: str) -> None:
    """Raise InputError where a serialised transform, or one inside of it, is not albumentations' own.

    `from_dict` builds whatever class is registered and only warns of an unknown argument.
    """
    name = node.get("__class_fullname__") if isinstance(node, dict) else node
    found = _transform_class(name)
    if found is None:
        raise InputError(f"{where} names {name!r}, which is not a transform of albumentations that JSON can hold")
    known = {argument for base in found.__mro__ for argument in inspect.signature(base.__init__).parameters}
    unknown = set(node) - known - {"__class_fullname__"}
    if unknown:
        raise InputError(f"{where}: albumentations' {found.__name__} has no argument {min(unknown)!r}")
    if "p" not in node and found.__name__ not in ("Compose", "Sequential"):
        raise InputError(f"{where}: {found.__name__} has no probability 'p'; {_EXPECTED}")
    inner = node.get("transforms", [])
    for child in inner if isinstance(inner, list | tuple) else [inner]:
        _check(child, where)


def _transform_class(name: Any) -> Any:
    """The class of albumentations that a serialised transform names, or None."""
    library = _albumentations()
    head, _, last = name.rpartition(".") if isinstance(name, str) else ("elsewhere", "", "")
    if head.partition(".")[0] not in ("", "albumentations"):
        return None
    named = getattr(library, last, None)
    is_transform = inspect.isclass(named) and issubclass(named, library.BaseCompose | library.BasicTransform)
    found: Any = named if is_transform and named.__module__.startswith("albumentations.") else None
    return found if found is not None and found.is_serializable() else None


def _first_line(error: Exception) -> str:
    """An error's message on one line: that of pydantic and of OpenCV has several."""
    return " ".join(str(error).split())[:200] or type(error).__name__
