"""Import torchvision.models beside a CPU build of torch, for which torchvision has no compiled extension.

Its Python code registers shapes for a few operators of the missing extension; declaring those operators lets the import
pass. The classifiers themselves use none of them.
"""

from __future__ import annotations

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_libraries: list[torch.library.Library] = []  # a library's operators live as long as it does


def declare_missing_operators() -> None:
    """Declare what torchvision's import asks for, once per process, unless its extension is there."""
    if not _libraries and not hasattr(torch.ops.torchvision, "nms"):
        library = torch.library.Library("torchvision", "DEF")
        for schema in _SCHEMAS:
            library.define(schema)
        _libraries.append(library)
