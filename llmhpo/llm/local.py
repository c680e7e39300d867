"""A language model in this process: transformers and torch, on a CPU or a GPU, with replies held to a JSON schema."""

from __future__ import annotations

import atexit
import contextlib
import gc
import hashlib
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from llmhpo.errors import ConfigError, LLMHPOError, LLMRequestError, LLMUnavailableError
from llmhpo.llm.base import Completion, Finish, Request, Scores, Several
from llmhpo.llm.loaded import ENDING, Clock, Loaded
from llmhpo.llm.weights import converted, need_packages
from llmhpo.usage import Price, Usage

_LAST_WAIT_S = 20.0  # at the program's end; loading the weights cannot be cut short
_TEMPERATURE = 1.0  # with the schema held, the measure that keeps a small model from repeating itself: dev/LOG.md


class LocalModel:
    """A model from a folder of safetensors, a `.gguf` file (converted once) or a hub id.

    Weights are loaded at the first request; requests queue, one is answered at a time. The same request gets the same
    reply on a CPU. `device`: "cpu", "cuda", "cuda:1" or "mps", by default the best there is. `dtype`: "bfloat16",
    "float16" or "float32", by default what the device is fast at. `threads` is for the CPU: one by default, because
    training jobs run beside the model, and with a busy neighbour two threads are far slower than one. torch counts
    threads per process, so the count is set while a reply is made and put back after it.

    Raises: MissingExtraError, ConfigError (no such file or folder, device or dtype).
    """

    price: Price | None = Price(0, 0)
    overhead_tokens = 0

    def __init__(
        self,
        path_or_id: str,
        *,
        name: str,
        device: str | None = None,
        dtype: str | None = None,
        threads: int | None = None,
    ) -> None:
        need_packages(f"the local model {path_or_id!r}", gguf=path_or_id.endswith(".gguf"))
        self.name = name
        self._source = _existing(path_or_id)
        self._device = _device(device)
        self.compact = self._device == "cpu"  # a reason of 15 words takes seconds there
        self._dtype = _dtype(dtype, self._device)
        self._threads = 1 if threads is None else threads
        if self._threads < 1:
            raise ConfigError(f"threads={threads!r} of the local model {name!r} is not a count; give 1 or more")
        self._lock = threading.Lock()
        atexit.register(_let_go, weakref.ref(self))
        self._tokenizer: Any = None
        self._model: Loaded | None = None

    def describe(self) -> str:
        """The model, and the device and number type it runs in."""
        threads = f", {self._threads} thread{'s' * (self._threads > 1)}" if self._device == "cpu" else ""
        return f"{self.name} ({self._source}) on {self._device}, {self._dtype}{threads}"

    def complete(self, request: Request) -> Completion:
        """Answer in the form of the schema, within the deadline, which is checked between tokens.

        Loading the weights counts against the deadline but is not cut by it.
        Raises: LLMUnavailableError (deadline, memory), LLMRequestError (context, schema).
        """
        start = time.monotonic()
        clock = Clock(start + request.deadline_s, request.deadline_s, self.name)
        if not self._lock.acquire(timeout=max(0.0, request.deadline_s)):
            raise clock.passed("while another request held the model")
        try:
            with self._threads_set(), self._memory_guarded():
                text, usage, finish = _answer(self._loaded(), request, clock)
        finally:
            self._lock.release()
        return Completion(text, usage, self.name, finish, time.monotonic() - start)

    def complete_many(self, request: Request, n: int) -> Several:
        """`n` independent replies, written side by side, for little more time than one takes.

        Raises: as `complete`.
        """
        start = time.monotonic()
        clock = Clock(start + request.deadline_s, request.deadline_s, self.name)
        if not self._lock.acquire(timeout=max(0.0, request.deadline_s)):
            raise clock.passed("while another request held the model")
        try:
            with self._threads_set(), self._memory_guarded():
                return _answers(self._loaded(), request, n, clock)
        finally:
            self._lock.release()

    def score(self, request: Request, candidates: Sequence[str]) -> Scores:
        """See `Scorer.score`; the prompt is read once.

        Raises: as `complete`.
        """
        start = time.monotonic()
        clock = Clock(start + request.deadline_s, request.deadline_s, self.name)
        if not self._lock.acquire(timeout=max(0.0, request.deadline_s)):
            raise clock.passed("while another request held the model")
        try:
            with self._threads_set(), self._memory_guarded():
                scores = _scores(self._loaded(), request, candidates, clock)
        finally:
            self._lock.release()
        return replace(scores, seconds=time.monotonic() - start)

    def count_tokens(self, text: str) -> int:
        """Tokens of `text` in the model's own tokenizer; loads that alone, not the weights."""
        with self._lock:
            return len(self._load_tokenizer()(text, add_special_tokens=False)["input_ids"])

    def close(self) -> None:
        """Free the weights and the cache. The next request loads them again."""
        with self._lock:
            self._free()

    def _free(self) -> None:
        self._model = self._tokenizer = None
        gc.collect()
        if self._device.startswith("cuda"):
            import torch

            torch.cuda.empty_cache()

    def _load_tokenizer(self) -> Any:
        if self._tokenizer is None:
            from transformers import AutoTokenizer

            with self._loading():
                self._tokenizer = AutoTokenizer.from_pretrained(self._folder())
        return self._tokenizer

    def _loaded(self) -> Loaded:
        if self._model is None:
            import torch
            from transformers import AutoModelForCausalLM

            tokenizer = self._load_tokenizer()
            with self._loading():
                model = AutoModelForCausalLM.from_pretrained(
                    self._folder(), dtype=getattr(torch, self._dtype), use_safetensors=True
                )
            self._model = Loaded(model.eval().to(self._device), tokenizer, self._device)
        return self._model

    def _folder(self) -> str:
        if self._source.endswith(".gguf"):
            self._source = str(converted(Path(self._source)))
        return self._source

    @contextlib.contextmanager
    def _loading(self) -> Iterator[None]:
        from safetensors import SafetensorError
        from transformers.utils import logging

        bars = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
        try:
            yield
        except LLMHPOError as error:  # from the conversion of a GGUF file
            raise LLMRequestError(str(error)) from error
        except (OSError, ValueError, SafetensorError) as error:  # transformers: not there, not complete, not known
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            raise LLMRequestError(
                f"the local model {self._source!r} cannot be loaded: {reason[:300]}; "
                "give a folder with config.json, tokenizer and *.safetensors, a .gguf file, or a hub id that can be reached"
            ) from error
        finally:
            if bars:
                logging.enable_progress_bar()

    @contextlib.contextmanager
    def _threads_set(self) -> Iterator[None]:
        import torch

        before = torch.get_num_threads()
        if self._device == "cpu" and before != self._threads:
            torch.set_num_threads(self._threads)
        try:
            yield
        finally:
            if torch.get_num_threads() != before:
                torch.set_num_threads(before)

    @contextlib.contextmanager
    def _memory_guarded(self) -> Iterator[None]:
        import torch

        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and "allocate memory" not in str(error):
                raise
            self._free()
            raise LLMUnavailableError(
                f"no memory left for the local model {self.name!r} on {self._device} ({self._dtype}); "
                "free some, or use a smaller model, dtype='bfloat16' or another device"
            ) from error


def _let_go(reference: weakref.ref[LocalModel]) -> None:
    """At the program's end: stop what a daemon thread has the model write, and wait until it has left torch."""
    ENDING.set()
    if (model := reference()) is not None:
        model._lock.acquire(timeout=_LAST_WAIT_S)


def _prompt(model: Loaded, request: Request, clock: Clock) -> tuple[list[int], int]:
    """Its tokens, and how many may be said."""
    prompt = model.prompt(request.messages)
    room = model.context_tokens - len(prompt)
    if room < 1:
        raise LLMRequestError(
            f"the prompt has {len(prompt)} tokens and the context of {clock.name!r} {model.context_tokens}; "
            "shorten the task text or use a model with a longer context"
        )
    return prompt, min(request.max_tokens, room)


def _answers(model: Loaded, request: Request, n: int, clock: Clock) -> Several:
    from llmhpo.llm.several import Row, write

    prompt, limit = _prompt(model, request, clock)
    temperature = _TEMPERATURE if request.temperature is None else request.temperature
    grammars = [None if request.schema is None else model.grammar(request.schema) for _ in range(n)]
    # What the schema forces at once is read with the prompt.
    opening = [grammar.forced() for grammar in grammars if grammar is not None]
    first = opening[0] if opening else []
    cached = model.begin(prompt)
    logits = model.read(prompt + first, clock)
    rngs = [np.random.default_rng(_seed(prompt, request.number + i)) for i in range(n)]
    rows = [Row(grammar, first, model.ends, rng) for grammar, rng in zip(grammars, rngs, strict=True)]
    write(rows, logits, model.branches(n, clock), limit - len(first), temperature)
    form = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
    texts = tuple(model.tokenizer.decode(row.said[:limit], **form) for row in rows)
    said = sum(len(row.said[:limit]) for row in rows)
    return Several(texts, Usage(1, input_tokens=len(prompt), cached_tokens=cached, output_tokens=said, usd=0.0))


def _answer(model: Loaded, request: Request, clock: Clock) -> tuple[str, Usage, Finish]:
    from llmhpo.llm.decode import draw

    prompt, limit = _prompt(model, request, clock)
    temperature = _TEMPERATURE if request.temperature is None else request.temperature
    grammar = None if request.schema is None else model.grammar(request.schema)
    rng = np.random.default_rng(_seed(prompt, request.number))
    cached = model.begin(prompt)
    said: list[int] = []
    finish: Finish = "length"
    while True:
        if grammar is not None:
            said += grammar.forced()
            if grammar.ended and len(said) <= limit:
                finish = "stop"
                break
        if len(said) >= limit:
            break
        logits = model.read(prompt + said, clock)
        token = draw(logits, None if grammar is None else grammar.allowed(said), temperature, rng)
        if token in model.ends:
            finish = "stop"
            break
        if grammar is not None:
            grammar.say(token)
        said.append(token)
    text: str = model.tokenizer.decode(said[:limit], skip_special_tokens=True, clean_up_tokenization_spaces=False)
    usage = Usage(1, input_tokens=len(prompt), cached_tokens=cached, output_tokens=len(said[:limit]), usd=0.0)
    return text, usage, finish


def _scores(model: Loaded, request: Request, candidates: Sequence[str], clock: Clock) -> Scores:
    prompt, _ = _prompt(model, request, clock)
    texts = [model.tokenizer(text, add_special_tokens=False)["input_ids"] for text in candidates]
    cached = model.begin(prompt)
    first = model.read(prompt, clock)
    tokens = tuple(tuple(model.logprobs(first, ids, clock)) for ids in texts)
    read = len(prompt) + sum(map(len, texts))
    return Scores(tokens, Usage(1, input_tokens=read, cached_tokens=cached, output_tokens=0, usd=0.0))


def _seed(prompt: list[int], number: int) -> int:
    content = np.array([number, *prompt], dtype="<i8").tobytes()
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "little")


def _existing(path_or_id: str) -> str:
    path = Path(path_or_id).expanduser()
    if path.exists():
        return str(path)
    looks_like_path = path_or_id.startswith((".", "~")) or path.is_absolute() or path_or_id.endswith(".gguf")
    if looks_like_path or len(path.parts) > 2:
        raise ConfigError(
            f"the local model {path_or_id!r} is not there (looked at {str(path.absolute())!r}); give a folder with "
            "safetensors, a .gguf file or a hub id, or run: llmhpo model install smollm2"
        )
    return path_or_id


def _device(asked: str | None) -> str:
    import torch

    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if asked is None:
        return "cuda" if cuda else "mps" if mps else "cpu"
    kind = asked.partition(":")[0]
    if kind not in ("cpu", "cuda", "mps"):
        raise ConfigError(f"device={asked!r} of a local model is not known; give 'cpu', 'cuda', 'cuda:N' or 'mps'")
    if (kind == "cuda" and not cuda) or (kind == "mps" and not mps):
        raise ConfigError(f"device={asked!r} of a local model is not on this machine; leave it out or give 'cpu'")
    return asked


def _dtype(asked: str | None, device: str) -> str:
    import torch

    if asked is not None:
        if asked not in ("bfloat16", "float16", "float32"):
            raise ConfigError(f"dtype={asked!r} of a local model is not known; give bfloat16, float16 or float32")
        return asked
    if device == "mps":
        return "float16"
    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    capabilities: dict[str, Any] = getattr(
        torch.cpu, "get_capabilities", dict
    )()  # without native bfloat16 it would be emulated
    return "bfloat16" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "float32"
