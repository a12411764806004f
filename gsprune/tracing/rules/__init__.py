"""Rules: what each operation does to channels. One file per family; importing the package registers them all."""

from gsprune.tracing.rules import (  # noqa: F401  # imported for their registrations
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
    spectral,
    views,
)
