"""From safetensors weights to an ONNX graph, through torch's exporter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from .hub import ModelFiles
from .transformers import classifier

_OPSET = 18


class _LogitsOnly(torch.nn.Module):  # type: ignore[misc] # torch counts as untyped
    """A classifier whose output is the bare tensor that a graph needs."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> Any:
        return self.model(input_ids=ids, attention_mask=mask).logits


def export(files: ModelFiles, to: Path) -> Path:
    """Write the ONNX graph of a checkpoint's weights in one file, for batches and lengths of any size; returns its path.

    Raises ModelError when the checkpoint can't be used.
    """
    ids = torch.ones((2, 16), dtype=torch.int64)
    sizes = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    torch.onnx.export(
        _LogitsOnly(classifier(files, torch.float32)).eval(),
        (ids, torch.ones_like(ids)),
        str(to),
        input_names=["input_ids", "attention_mask"],
        output_names=["logits"],
        dynamic_shapes=(sizes, sizes),
        dynamo=True,
        external_data=False,
        opset_version=_OPSET,
        verbose=False,
    )
    return to
