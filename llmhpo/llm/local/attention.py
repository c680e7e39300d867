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
    at_once = max(1, _SCORES // (n * m))  # heads
    for group in range(0, groups, wide := max(1, at_once // shared)):
        some = slice(group, group + wide)
        for row in range(0, shared * n, long := min(at_once, shared) * n):
            these = (some, slice(row, row + long))
            scores = torch.matmul(rows[these], key[0, some].transpose(1, 2)).view(-1, n, m).add_(attention_mask[0])
            shares = torch.softmax(scores, -1, out=scores).view(-1, rows[these].shape[1], m)
            torch.matmul(shares, value[0, some], out=out[these])
    return out.view(1, heads, n, -1).transpose(1, 2).contiguous(), None


AttentionInterface.register(PRODUCTS, attend)
AttentionMaskInterface.register(PRODUCTS, sdpa_mask)
