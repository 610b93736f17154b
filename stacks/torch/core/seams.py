"""Finds what stands behind each seam. A seam is a class by its name, in one file of seed/ or bindings/; a file may hold several.

Each is made once, in this order, from the backend (shape, device, type, weights, and the seams before it):
- Linear: `linear(x, name)` is x times the matrix NAME.weight (transposed, plus its bias if it has one); `linear.join(names, name)` makes one matrix of
  several, whose products stand one after another, and forgets the single ones.
- Attention: `new_cache()` for one sequence, with `.length`, the positions that it holds; `attention(layer, q, k, v, batch)` keeps the rows' k and v
  and answers rows × (heads · dim). q, k, v: rows × heads × dim, turned already. `begin(batch)` is called once a step.
- Layer: `layer(batch)`, from ids to the normed hidden state of the wanted rows.
- Head: `head(hidden)`, logits.
- Scheduler: `step(parts)` runs one step on the device; logits of the wanted rows in order, and the likeliest token of each.

Where the model is spread over several devices (`model.devices`), each of their processes has all of these, shape and weights are what it has of the model, and every step is
taken by all: what a scheduler does must follow from the steps alone. Linear answers whole sums for o_proj and down_proj, and Head all logits; see parallel.py.
"""

import importlib
import pkgutil
from typing import Any

SEAMS = ("Linear", "Attention", "Layer", "Head", "Scheduler")


def bound(seam: str) -> Any:
    """The class; raises ValueError where no file has it, or two do."""
    import bound as package  # packed by build.py

    found = []
    for entry in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"bound.{entry.name}")
        own = getattr(module, seam, None)
        if own is not None and own.__module__ == module.__name__:
            found.append(own)
    if len(found) != 1:
        raise ValueError(f"seam {seam} is bound by {len(found)} files, needs one")
    return found[0]
