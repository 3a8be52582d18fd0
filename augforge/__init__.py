"""augforge: low-shot data augmentation and hallucination, with honest intervals on how much it helped.

The names that most people need are here, and each is imported when it is first used. `augforge.synth` and
`augforge.bench` are the packages of these jobs: `augforge.synth.run.synth(...)`, `augforge.bench.run.run(...)`.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
__all__ = ["Classical", "Hallucinator", "Logistic", "Online", "Prototype", "bench", "contracts", "enlarge", "open_part",
           "open_source", "synth"]  # fmt: skip
_PLACES = {
    "Classical": "augforge.generators.classical:Classical",
    "Hallucinator": "augforge.generators.hallucinator:Hallucinator",
    "Logistic": "augforge.classifiers.logistic:Logistic",
    "Online": "augforge.adapters.online:Online",
    "Prototype": "augforge.classifiers.prototype:Prototype",
    "bench": "augforge.bench",
    "contracts": "augforge.parts.contracts",
    "enlarge": "augforge.imagine:enlarge",
    "open_part": "augforge.parts.saving:open_part",
    "open_source": "augforge.data.source:open_source",
    "synth": "augforge.synth",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _PLACES[name].partition(":")
    found = import_module(module)
    return getattr(found, attribute) if attribute else found


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
