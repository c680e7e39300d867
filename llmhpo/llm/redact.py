"""Keep keys out of every text that leaves the process that talks to a service."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

_MARK = "[key]"
_SHORTEST = 8  # "EMPTY" and "none" are keys that local servers are given: no secrets, and words of ordinary text
_PATTERNS = (
    re.compile(r"\bsk-[\w*.-]{6,}"),  # OpenAI, Anthropic, OpenRouter; with stars where the service masked the middle
    re.compile(r"(?i)\bbearer\s+[^\s\"',}]+"),
    re.compile(r"\b(?:hf|gsk|xai|ghp|github_pat)[_-]\w{12,}"),
    re.compile(r"\bAIza[\w-]{20,}"),
)
_SECRET_NAME = re.compile(r"(?i)(?:KEY|TOKEN|SECRET|PASSWORD)$")
_PROVIDERS = (
    "ANTHROPIC|OPENAI|AZURE_OPENAI|GEMINI|GOOGLE_AI|MISTRAL|GROQ|TOGETHER|COHERE|DEEPSEEK|XAI|OPENROUTER|FIREWORKS|PERPLEXITY"
    "|REPLICATE|CEREBRAS|DASHSCOPE|HF|HUGGINGFACE|HUGGINGFACEHUB|HUGGING_FACE_HUB|LLMHPO"
)
_KEY_NAME = re.compile(
    rf".*_API_KEYS?|.*_API_TOKEN|(?:{_PROVIDERS})_(?:.*_)?(?:KEY|TOKEN|SECRET|PASSWORD)|AWS_BEARER_TOKEN_BEDROCK",
    re.IGNORECASE,
)


class Redactor:
    """Replaces secrets in a text: the exact values, their base64 and URL forms, and strings that look like keys.

    It does not find a value that was cut short or written in another way, unless it looks like a key.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {form for secret in secrets if len(secret) >= _SHORTEST for form in _forms(secret)}
        # Longest first: a form that holds another one must go as a whole.
        self._exact = re.compile("|".join(map(re.escape, sorted(forms, key=len, reverse=True)))) if forms else None

    @classmethod
    def from_environment(cls, *secrets: str) -> Redactor:
        """`secrets`, and the values of all environment variables whose name ends as that of a secret does."""
        return cls([*secrets, *(value for name, value in os.environ.items() if _SECRET_NAME.search(name))])

    def __call__(self, text: str) -> str:
        """`text` with every secret replaced by "[key]"."""
        if self._exact is not None:
            text = self._exact.sub(_MARK, text)
        for pattern in _PATTERNS:
            text = pattern.sub(_MARK, text)
        return text


def is_secret(name: str) -> bool:
    """Whether an environment variable holds, by its name, a key of a model provider or another service."""
    return _KEY_NAME.fullmatch(name) is not None


def keyless_environment() -> dict[str, str]:
    """The environment of this process without API keys: for every process that it starts."""
    return {name: value for name, value in os.environ.items() if not is_secret(name)}


def _forms(secret: str) -> set[str]:
    forms = {secret, quote(secret, safe=""), quote_plus(secret)}
    raw = secret.encode("utf-8", "replace")
    for offset in range(3):  # base64 of a longer text shows one of three pictures of the key inside
        picture = base64.b64encode(bytes(offset) + raw).decode("ascii")
        # The characters at either end mix the key's bits with its neighbours': only those between are known.
        inner = picture[-(-8 * offset // 6) : 8 * (offset + len(raw)) // 6]
        forms |= {inner, inner.replace("+", "-").replace("/", "_")}
    return forms
