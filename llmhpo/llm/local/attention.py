"""Attention as plain products of matrices: on a CPU in bfloat16 half the time of torch's fused kernel, and less still for few rows."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import pad
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

PRODUCTS = "llmhpo-products"  # the name that transformers knows it by
_SCORES = 1 << 19  # that are worked on at a time: 1 MB, which a core's own cache holds
_UNKNOWN = ("position_bias", "softcap", "s_aux", "cache")  # what some models ask of attention beside the mask


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of the queries (1, heads, n, size) to keys and values (1, groups, m, size); as (1, n, heads, size).

    Only under a mask of numbers (1, 1, n, m or more), as `Loaded` makes them; all else is left to transformers.
    """
    asked = any(more.get(name) is not None for name in _UNKNOWN)
    if attention_mask is None or not attention_mask.is_floating_point() or len(query) > 1 or asked:
        form = {"attention_mask": attention_mask, "scaling": scaling, **more}
        found: tuple[torch.Tensor, None] = sdpa_attention_forward(module, query, key, value, **form)
        return found
    (heads, n, size), groups, m = query.shape[1:], key.shape[1], attention_mask.shape[-1]
    if (more_columns := m - key.shape[2]) > 0:
        key, value = (pad(one, (0, 0, 0, more_columns)) for one in (key, value))
    shared = heads // groups  # that attend to one group of keys
    rows = (query * (size**-0.5 if scaling is None else scaling)).reshape(groups, shared * n, size)
    out = query.new_empty(groups, shared * n, value.shape[-1])
    hidden = attention_mask[0, 0, :, (first := _seen_by_all(attention_mask[0, 0])) :]
    at_once = min(max(1, _SCORES // (n * m)), heads)
    held = query.new_empty(at_once * n * m)  # memory asked for anew each time costs more than the product
    for group in range(0, groups, wide := max(1, at_once // shared)):
        some = group if wide == 1 else slice(group, group + wide)  # a batch of one product is slower than the product
        for row in range(0, shared * n, long := min(at_once, shared) * n):
            these = rows[some, row : row + long]
            scores = held[: these.numel() // size * m].view(*these.shape[:-1], m)
            torch.matmul(these, key[0, some].mT, out=scores)
            scores.view(-1, n, m)[..., first:].add_(hidden)
            torch.softmax(scores, -1, out=scores)
            torch.matmul(scores, value[0, some], out=out[some, row : row + long])
    return out.view(1, heads, n, -1).transpose(1, 2).contiguous(), None


def _seen_by_all(mask: torch.Tensor) -> int:
    """How many of the first columns hide nothing."""
    return int(torch.cumprod(mask.amin(0) == 0, 0).sum())


AttentionInterface.register(PRODUCTS, attend)
AttentionMaskInterface.register(PRODUCTS, sdpa_mask)
