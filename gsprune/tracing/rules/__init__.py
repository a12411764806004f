"""Rules: what each operation does to channels. One file per family; importing the package registers them all."""

from gsprune.tracing.rules import (
    attention,
    convolutions,
    elementwise,
    indexing,
    norms,
    parts,
    products,
    quantised,
    recurrent,
    reductions,
    spatial,
    views,
)

__all__ = [
    "attention",
    "convolutions",
    "elementwise",
    "indexing",
    "norms",
    "parts",
    "products",
    "quantised",
    "recurrent",
    "reductions",
    "spatial",
    "views",
]
