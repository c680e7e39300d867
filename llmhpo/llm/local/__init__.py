"""A language model in this process: transformers and torch, on a CPU or a GPU, with replies held to a JSON schema.

`model` is the face; `place` says where it runs, `chat` how a conversation reads, `loaded` holds the weights, `prefixes`
what was read before, `branches` what goes on from it, `write` and `score` use them, `decode` holds a reply to its schema.
"""

from __future__ import annotations

from llmhpo.llm.local.model import LocalModel

__all__ = ["LocalModel"]
