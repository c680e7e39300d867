"""The local model, as the rest of llmhpo sees it: one request at a time, each within its deadline."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llmhpo.errors import ConfigError, LLMHPOError, LLMPromptError, LLMRequestError, LLMUnavailableError
from llmhpo.llm.base import Completion, Request, Scores, Several
from llmhpo.llm.local.chat import Chat, Prompt
from llmhpo.llm.local.clock import ENDING, Clock
from llmhpo.llm.local.memory import exhausted, give_back
from llmhpo.llm.local.place import choose_device, choose_dtype, find_source
from llmhpo.llm.weights import converted, need_packages
from llmhpo.usage import Price, Usage

if TYPE_CHECKING:
    from llmhpo.llm.local.loaded import Loaded
    from llmhpo.llm.local.prefixes import Prefixes
    from llmhpo.llm.local.write import Manner, Row

_LAST_WAIT_S = 20.0  # at the program's end; loading the weights cannot be cut short
_TEMPERATURE = 1.0  # with the schema held, the measure that keeps a small model from repeating itself: dev/LOG.md


class LocalModel:
    """A model from a folder of safetensors, a `.gguf` file (converted once) or a hub id.

    Weights are loaded at the first request; requests queue, one is answered at a time. The same request gets the same
    reply on a CPU. What was read stays in a cache, so that the next prompt which begins alike costs its new tokens only.
    Where memory runs out, less is done at a time.

    `device`: "cpu", "cuda", "cuda:1" or "mps", by default the best there is, of several GPUs the one with the most free
    memory. `dtype`: "bfloat16", "float16" or "float32", by default what the device is fast at. `threads` is for the CPU:
    one by default, because training jobs run beside the model, and with a busy neighbour two threads are far slower than
    one. torch counts threads per process, so the count is set while a reply is made and put back after it.
    `thinking_tokens`: how long a model that knows thoughts may think before each reply; by default it does not.
    `resident=False` gives the device's memory back after every request, for training jobs on the same GPU.

    Raises: MissingExtraError, ConfigError (no such file or folder, device or dtype).
    """

    price: Price | None = Price(0, 0)

    def __init__(
        self,
        path_or_id: str,
        *,
        name: str,
        device: str | None = None,
        dtype: str | None = None,
        threads: int | None = None,
        thinking_tokens: int = 0,
        resident: bool = True,
    ) -> None:
        need_packages(f"the local model {path_or_id!r}", gguf=path_or_id.endswith(".gguf"))
        self.name = name
        self._source = find_source(path_or_id)
        self._device = choose_device(device)
        self.compact = self._device == "cpu"  # a reason of 15 words takes seconds there
        self._dtype = choose_dtype(dtype, self._device)
        self._threads = 1 if threads is None else threads
        if self._threads < 1:
            raise ConfigError(f"threads={threads!r} of the local model {name!r} is not a count; give 1 or more")
        if thinking_tokens < 0:
            raise ConfigError(f"thinking_tokens={thinking_tokens!r} of the local model {name!r} is below 0; 0 is none")
        self.overhead_tokens = thinking_tokens
        self._resident = resident
        self._lock = threading.Lock()
        atexit.register(_let_go, weakref.ref(self))
        self._chat: Chat | None = None
        self._tokenizer: Any = None
        self._model: Any = None
        self._loaded: Loaded | None = None
        self._prefixes: Prefixes | None = None

    def describe(self) -> str:
        """The model, and the device and number type it runs in."""
        threads = f", {self._threads} thread{'s' * (self._threads > 1)}" if self._device == "cpu" else ""
        return f"{self.name} ({self._source}) on {self._device}, {self._dtype}{threads}"

    def complete(self, request: Request) -> Completion:
        """Answer in the form of the schema, within the deadline, which is checked between tokens.

        Loading the weights counts against the deadline but is not cut by it.
        Raises: LLMUnavailableError (deadline, memory), LLMRequestError (schema, weights), LLMPromptError (context).
        """
        start = time.monotonic()
        with self._held(request) as clock:
            rows, usage = self._write(request, 1, clock)
            texts = self._texts(rows, request)
        row, seconds = rows[0], time.monotonic() - start
        logprobs = tuple(row.logprobs) if request.top_logprobs else None
        return Completion(texts[0], usage, self.name, row.finish or "length", seconds, logprobs)

    def complete_many(self, request: Request, n: int) -> Several:
        """See `Sampler.complete_many`: all are written side by side, for little more time than one takes.

        Raises: as `complete`.
        """
        start = time.monotonic()
        with self._held(request) as clock:
            rows, usage = self._write(request, n, clock)
            texts = self._texts(rows, request)
        return Several(texts, usage, time.monotonic() - start)

    def score(self, request: Request, candidates: Sequence[str]) -> Scores:
        """See `Scorer.score`; for ranking take dtype="float32": bfloat16 is off by up to 0.1.

        Raises: as `complete`.
        """
        from llmhpo.llm.local.score import score

        start = time.monotonic()
        with self._held(request) as clock:
            loaded, prefixes = self._load()
            texts = [loaded.tokenizer(text, add_special_tokens=False)["input_ids"] for text in candidates]
            prompt = self._prompt(request, loaded, max(map(len, texts), default=1))
            prefix, cached = prefixes.read(prompt.ids, clock)
            rows = score(texts, prefix, loaded, clock)
        read = len(prompt.ids) + sum(map(len, texts))
        usage = Usage(1, input_tokens=read, cached_tokens=cached, output_tokens=0, usd=0.0)
        return Scores(tuple(map(tuple, rows)), usage, time.monotonic() - start)

    def count_tokens(self, text: str) -> int:
        """Tokens of `text` in the model's own tokenizer; loads that alone, not the weights."""
        with self._lock:
            return len(self._load_tokenizer()(text, add_special_tokens=False)["input_ids"])

    def release(self) -> None:
        """Give the device's memory back: caches are freed, and weights on a GPU go to main memory until the next request."""
        with self._lock:
            self._step_aside()

    def close(self) -> None:
        """Free the weights and the caches. The next request loads them again."""
        with self._lock:
            self._free()

    def _write(self, request: Request, n: int, clock: Clock) -> tuple[list[Row], Usage]:
        from llmhpo.llm.local.write import Row, write

        loaded, prefixes = self._load()
        prompt = self._prompt(request, loaded)
        manner = self._manner(request, prompt, loaded)
        grammars = [None if request.schema is None else loaded.grammar(request.schema) for _ in range(n)]
        # What the schema forces at once is read with the prompt.
        opening = [] if prompt.thinks else [grammar.forced() for grammar in grammars if grammar is not None]
        first = opening[0] if opening else []
        prefix, cached = prefixes.read(prompt.ids + first, clock)
        rngs = [np.random.default_rng(_seed(prompt.ids, request.number + i)) for i in range(n)]
        rows = [Row(g, first, manner, rng, loaded.tokenizer) for g, rng in zip(grammars, rngs, strict=True)]
        write(rows, prefix, loaded, clock)
        thought = sum(row.thought for row in rows)
        said = thought + sum(len(row.said) for row in rows)
        spent = Usage(1, len(prompt.ids), min(cached, len(prompt.ids)), said, 0.0, thought)
        return rows, spent

    def _texts(self, rows: Sequence[Row], request: Request) -> tuple[str, ...]:
        assert self._chat is not None
        shown = self._chat.without_thoughts if request.schema is None else str
        return tuple(shown(row.text) for row in rows)

    def _prompt(self, request: Request, loaded: Loaded, least: int = 1) -> Prompt:
        assert self._chat is not None
        prompt = self._chat.prompt(request.messages)
        if loaded.context_tokens - len(prompt.ids) < least:
            raise LLMPromptError(
                f"the prompt has {len(prompt.ids)} tokens and the context of {self.name!r} {loaded.context_tokens}; "
                "shorten the task text or use a model with a longer context"
            )
        return prompt

    def _manner(self, request: Request, prompt: Prompt, loaded: Loaded) -> Manner:
        from llmhpo.llm.local.write import Manner

        assert self._chat is not None
        room = loaded.context_tokens - len(prompt.ids)
        closing: tuple[int, ...] = ()
        if prompt.thinks and self._chat.marks is not None:
            text = f"\n{self._chat.marks[1]}\n\n"
            closing = tuple(loaded.tokenizer(text, add_special_tokens=False)["input_ids"])
        thought = min(self.overhead_tokens, room // 2) if closing else 0
        temperature = _TEMPERATURE if request.temperature is None else request.temperature
        limit = max(1, min(request.max_tokens, room - thought - len(closing)))
        return Manner(limit, temperature, frozenset(loaded.ends), closing, thought, request.top_logprobs)

    @contextlib.contextmanager
    def _held(self, request: Request) -> Iterator[Clock]:
        """The model for this request alone, until it is answered."""
        clock = Clock(time.monotonic() + request.deadline_s, request.deadline_s, self.name)
        if not self._lock.acquire(timeout=max(0.0, request.deadline_s)):
            raise clock.passed("while another request held the model")
        try:
            with self._threads_set(), self._memory_guarded():
                yield clock
        finally:
            try:
                if not self._resident:
                    self._step_aside()
            finally:
                self._lock.release()

    def _step_aside(self) -> None:
        if self._prefixes is not None:
            self._prefixes.forget()
        if self._model is not None and self._device != "cpu":
            self._model.to("cpu")
        give_back(self._device)

    def _free(self) -> None:
        self._loaded = self._prefixes = self._model = self._tokenizer = self._chat = None
        give_back(self._device)

    def _load_tokenizer(self) -> Any:
        if self._tokenizer is None:
            from transformers import AutoTokenizer

            with self._loading():
                self._tokenizer = AutoTokenizer.from_pretrained(self._folder())
            self._chat = Chat(self._tokenizer, thinks=self.overhead_tokens > 0)
        return self._tokenizer

    def _load(self) -> tuple[Loaded, Prefixes]:
        tokenizer = self._load_tokenizer()
        if self._model is None:
            import torch
            from transformers import AutoModelForCausalLM

            with self._loading():
                model = AutoModelForCausalLM.from_pretrained(
                    self._folder(), dtype=getattr(torch, self._dtype), use_safetensors=True
                )
            self._model = model.eval()
        if self._model.device.type != self._device.partition(":")[0]:
            self._model.to(self._device)
        if self._loaded is None or self._prefixes is None:
            from llmhpo.llm.local.loaded import Loaded
            from llmhpo.llm.local.prefixes import Prefixes

            self._loaded = Loaded(self._model, tokenizer, self._device)
            self._prefixes = Prefixes(self._loaded)
        return self._loaded, self._prefixes

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
        try:
            yield
        except (MemoryError, RuntimeError) as error:
            if not exhausted(error):
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


def _seed(prompt: list[int], number: int) -> int:
    content = np.array([number, *prompt], dtype="<i8").tobytes()
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "little")
