"""The report: everything a reader asks is on the page, nothing foreign acts on it, and a real browser shows it."""

from __future__ import annotations

import functools
import html
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmhpo.comparison import Confirmation, Reruns
from llmhpo.param import Param, param_from_dict
from llmhpo.report.axes import Frame, Scale, Tick, param_ticks
from llmhpo.report.markup import Markup, el, line
from llmhpo.report.page import report_html, write_report
from llmhpo.result import result_of
from llmhpo.revision import Revision
from llmhpo.space import SearchSpace
from llmhpo.steering import Budget, Limit, Note, Steering
from llmhpo.transfer import Transfer
from llmhpo.trial import IMPORTED, Batch, Context, Outcome, Proposal, Provenance, Task, Trial
from llmhpo.usage import Usage

ATTACK = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">\u202e\x1b[2J"
SPACE = SearchSpace.from_dict(
    {
        "lr": {"type": "float", "low": 1e-4, "high": 1.0, "log": True, "default": 0.01, "doc": "peak rate"},
        "layers": {"type": "int", "low": 1, "high": 4, "default": 2},
        "norm": {"type": "categorical", "choices": ["none", ATTACK], "default": "none"},
        "eps": {"type": "float", "low": 0.0, "high": 1.0, "default": 0.5, "when": {"norm": ATTACK}},
    }
)


def study(n: int = 14, *, text: str = ATTACK) -> Context:
    provenance = Provenance("m", "propose.v1", "0" * 12, 1)
    trials = []
    for k in range(n):
        params = SPACE.default() if k == 0 else SPACE.from_unit([(0.37 * k) % 1, (0.61 * k) % 1, k % 2, (0.2 * k) % 1])
        value = 0.1 + (k - 9) ** 2 / 50
        source = "default" if k == 0 else "llm" if k % 3 == 1 else "gp"
        curve = tuple((s, value + 1 / (s + 1)) for s in range(5))
        outcome: Outcome | None = Outcome("ok", value, 1.5, {"time": 2.0}, curve)
        if k == 5:
            outcome = Outcome("failed", None, 0.5, message=text, log_tail=text * 20)
        if k == n - 1:
            outcome = None
        why = text if source == "llm" else ""
        trials.append(Trial(k, Proposal(params, source, why, provenance if source == "llm" else None), outcome))
    batch = Batch("warmstart", 1, 4, usage=Usage(1, 900, 0, 200, 0.0123), error=text)
    return Context(Task(text, "loss"), SPACE, tuple(trials), 6, 3, (batch,))


def page(context: Context) -> str:
    return report_html(result_of(context, "my study", "sqlite:///x.db"), context, command=ATTACK, again="llmhpo run x")


class Tags(HTMLParser):
    """Counts elements and notes where attributes point."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.count: dict[str, int] = {}
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] = self.count.get(tag, 0) + 1
        self.links += [f"{n}={v}" for n, v in attrs if n in ("src", "href", "action") or n.startswith("on")]


def test_what_a_reader_asks_is_on_the_page() -> None:
    text = page(study())
    for words in ("Best against default", "History", "What matters", "Slices", "Parallel coordinates", "Learning curves",
                  "Where the trials came from", "What the model said", "Failures", "All trials", "How to reproduce it"):  # fmt: skip
        assert f"<h2>{words}</h2>" in text
    assert "better than the default" in text
    assert "$0.0123" in text
    assert "1 running" in text


def test_nothing_foreign_becomes_an_element_and_nothing_is_asked_of_the_network() -> None:
    tags = Tags(page(study()))
    assert "script" not in tags.count
    assert "img" not in tags.count
    assert tags.links == []
    assert not re.search(r"url\(|@import", page(study()))


def test_what_is_not_seen_does_not_reach_the_page() -> None:
    text = page(study())
    assert "\u202e" not in text
    assert "\x1b" not in text


def test_every_trial_with_a_value_is_a_point_of_the_history() -> None:
    context = study()
    history = page(context).split("<h2>History</h2>")[1].split("</section>")[0]
    assert history.count("<circle") == len(context.finished)
    assert history.count('class="failure"') == 1


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_a_study_that_has_hardly_begun_has_a_report(n: int) -> None:
    context = study(14)
    begun = Context(context.task, SPACE, context.trials[:n], None, 0)
    assert "my study" in report_html(result_of(begun, "my study", None), begun)


def test_a_long_study_has_a_report_of_bounded_size() -> None:
    trials = tuple(
        Trial(
            k, Proposal(SPACE.default() | {"lr": 0.01 + k / 1e5}, "gp"), Outcome("ok", 1.0 + (k * 7919 % 5000) / 5000)
        )
        for k in range(5000)
    )
    context = Context(Task("t", "loss"), SPACE, trials)
    assert len(page(context)) < 4_000_000


def test_a_report_is_never_half_written(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    write_report(path, "new")
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


@given(st.text())
def test_foreign_text_is_escaped_wherever_it_stands(text: str) -> None:
    made = el("p", line(text), title=line(text))
    tags = Tags(made)
    assert tags.count == {"p": 1}
    assert isinstance(made, Markup)


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=30))
def test_a_scale_holds_its_values_and_its_ticks_are_in_order(values: list[float]) -> None:
    scale = Scale.over(values)
    assert all(0.0 <= scale.at(v) <= 1.0 for v in values)
    ticks = scale.ticks()
    assert [t.at for t in ticks] == sorted(t.at for t in ticks)
    assert len({t.label for t in ticks}) == len(ticks)


@pytest.mark.parametrize("param", SPACE.params, ids=lambda p: p.name)
def test_ticks_of_a_parameter_lie_within_its_range(param: Param) -> None:
    assert all(0.0 <= t.at <= 1.0 for t in param_ticks(param))
    assert param_ticks(param_from_dict("k", {"type": "int", "low": 3, "high": 3}))


# --- edited code, other studies, the person ---------------------------------------------------------------------------

PATCH = f"--- a/model.py\n+++ b/model.py\n@@ -1 +1 @@\n-WIDTH = 8\n+WIDTH = 16  # {ATTACK}\n"


def edited() -> Context:
    """A baseline, an edit that leads and one of that which failed."""
    good = Revision(
        "a" * 40, "0" * 40, (param_from_dict("width", {"type": "int", "low": 4, "high": 64}),), ATTACK, "1", "draft"
    )
    bad = Revision("b" * 40, good.id, (), "deeper", "2", "improve")
    values = [("", 0.5, {}), (good.id, 0.2, {"width": 16}), (bad.id, None, {"width": 16})]
    trials = tuple(
        Trial(
            k,
            Proposal({**SPACE.default(), **more}, "edit" if code else "default", code=code),
            Outcome("failed", message="boom") if value is None else Outcome("ok", value),
        )
        for k, (code, value, more) in enumerate(values)
    )
    batch = Batch("edit", 1, 2, revisions=(good, bad))
    return Context(Task("t", "loss"), SPACE, trials, 0, 3, (batch,), Revision("0" * 40))


def test_every_version_of_the_code_stands_below_the_one_it_was_made_from_with_its_diff() -> None:
    context = edited()
    asked: list[tuple[str, str]] = []

    def diff(a: str, b: str) -> str:
        asked.append((a[:1], b[:1]))
        return PATCH

    text = report_html(result_of(context, "s", None), context, diff=diff)
    code = text.split("<h2>The code</h2>")[1].split("</section>")[0]
    assert asked == [("0", "a"), ("0", "a"), ("a", "b")]
    assert re.search(
        r"the code as it stood.*<ul><li>.*aaaaaaaa, draft.*tunes width \(best\).*<ul><li>.*failed.*bbbbbbbb", code
    )
    assert code.count('class="added"') == 3 * 2
    assert Tags(text).links == []
    assert "script" not in Tags(text).count


def test_a_diff_of_any_length_takes_bounded_room() -> None:
    context = edited()
    long = "\n".join("+" + "x" * 1000 for _ in range(5000))
    text = report_html(result_of(context, "s", None), context, diff=lambda a, b: long)
    assert len(text) < 800_000
    assert "4600 more lines" in text


def test_what_was_imported_is_marked_counted_apart_and_told_with_what_was_left_out() -> None:
    context = study()
    foreign = tuple(replace(t, proposal=replace(t.proposal, source=IMPORTED)) for t in context.trials[:4])
    transfer = Transfer(f"old {ATTACK}", 9, 4, {"lr out of its range or grid": 5})
    context = replace(context, trials=(*foreign, *context.trials[4:]), transfers=(transfer,))
    text = page(context)
    assert "<b>10</b><span>trials, 1 without a value, 1 running, 4 imported</span>" in text
    assert "5 lr out of its range or grid" in text
    assert "script" not in Tags(text).count


def test_what_was_confirmed_stands_beside_the_default_with_its_intervals_and_its_failures() -> None:
    context = study()
    best, default = Reruns({}, (0.1, 0.2, 0.3), 0), Reruns({}, (0.8, None, 0.9), 1)
    kept = [Confirmation(context.task, (1, 2, 3), 9, best, default, split=split) for split in ("search", "test")]
    result = replace(result_of(context, "s", "sqlite:///x.db"), confirmation=kept[0])
    text = report_html(result, context, tested=kept[1])
    assert "On 3 new seeds: better; 1 run of the default failed." in text
    assert "On 3 new seeds and the test split" in text
    assert "0.2 (-0.048414 to 0.44841)" in text


def test_no_label_below_a_chart_reaches_beyond_its_right_end() -> None:
    drawn = "".join(Frame(52, 26, 332, 192).x_axis([Tick(0.0, "128"), Tick(1.0, "a_long_label")]))
    middle = max(float(x) for x in re.findall(r'<text x="([\d.]+)"', drawn))
    assert middle + len("a_long_label") * 3.6 <= 340


def test_what_the_person_said_is_on_the_page() -> None:
    said = Steering(
        (Note(f"smaller models {ATTACK}", 1),),
        {"lr": Limit(0.01, 0.1), "x": Limit(values=(0.1,)), "y": Limit(1234.5678)},
        budget=Budget(n_trials=30),
    )
    text = page(replace(study(), steering=said))
    part = text.split("<h2>What the person said</h2>")[1].split("</section>")[0]
    assert "smaller models" in part
    assert "searched of lr: from 0.01 to 0.1<" in part
    assert "searched of x: 0.1<" in part
    assert "searched of y: from 1234.5678<" in part
    assert "n_trials" in part
    assert "script" not in Tags(text).count


# --- in a browser -----------------------------------------------------------------------------------------------------

CHROMIUM = shutil.which("chromium")
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here; CI installs it")


@functools.cache
def browse(path: str, width: int = 1000, proxy: str = "") -> str:
    """The page's elements as the browser has them once it has run whatever it would run."""
    quiet = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", "--no-sandbox"]  # fmt: skip
    by = [f"--proxy-server={proxy}"] if proxy else []
    # The browser keeps sockets there, whose paths are short; its last process may still write when the first has ended.
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as profile:
        command = [str(CHROMIUM), "--headless", *quiet, *by, f"--user-data-dir={profile}", f"--window-size={width},800",
                   "--virtual-time-budget=2000", "--dump-dom", f"file://{path}"]  # fmt: skip
        return subprocess.run(command, capture_output=True, text=True, timeout=110, check=True,
                              env={**os.environ, "TMPDIR": profile}).stdout  # fmt: skip


@pytest.fixture
def asked() -> Iterator[tuple[str, list[str]]]:
    """The address of a proxy that every request of a browser goes through, and what was asked of it."""
    seen: list[str] = []

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.path)
            self.send_response(204)
            self.end_headers()

        do_CONNECT = do_GET

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}", seen
        server.shutdown()
        thread.join()


REACHING = (
    '<img src="http://canary.invalid/a.png"><link rel="stylesheet" href="http://canary.invalid/b.css">'
    "<style>body { background: url(http://canary.invalid/c.png) }</style>"
)


@in_browser
@pytest.mark.parametrize("is_report", [True, False])
def test_a_browser_asks_the_network_for_nothing_that_a_trial_said(
    tmp_path: Path, asked: tuple[str, list[str]], is_report: bool
) -> None:
    path = tmp_path / "page.html"
    path.write_text(
        page(study(text=REACHING)) if is_report else f"<!doctype html>{REACHING}"
    )  # what a report must not do
    browse(str(path), proxy=asked[0])
    assert any("canary.invalid" in request for request in asked[1]) == (not is_report)


@in_browser
def test_a_browser_runs_nothing_and_draws_every_trial(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(page(study()))
    seen = browse(str(path))
    assert "<title>my study - llmhpo</title>" in seen
    assert Tags(seen).count["circle"] == Tags(page(study())).count["circle"]


@in_browser
@pytest.mark.parametrize("width", [360, 1000])
def test_the_page_is_no_wider_than_the_screen(tmp_path: Path, width: int) -> None:
    frame = f'<iframe srcdoc="{html.escape(page(study()))}" style="width:{width}px;height:800px;border:0"></iframe>'
    probe = (
        "<script>onload = () => { const inner = document.querySelector('iframe').contentDocument.documentElement;"
        "document.title = 'too wide by ' + (inner.scrollWidth - inner.clientWidth) }</script>"
    )
    path = tmp_path / "outer.html"
    path.write_text(f"<!doctype html><body>{frame}{probe}")
    assert "<title>too wide by 0</title>" in browse(str(path))


@pytest.mark.parametrize(
    ("lr", "layers", "named"),
    [(1.0, 3, ["lr"]), (1.01e-4, 1, ["lr", "layers"]), (0.01, 4, ["layers"]), (0.02, 3, [])],
)
def test_a_best_configuration_where_its_ranges_end_is_told(lr: float, layers: int, named: list[str]) -> None:
    best = Trial(0, Proposal({"lr": lr, "layers": layers, "norm": "none"}, "gp"), Outcome("ok", 0.1))
    context = Context(Task("", "loss"), SPACE, (best,))
    assert result_of(context, "s", None).at_ends == named
    assert (f"Where its range ends: {', '.join(named)}." in page(context)) == bool(named)


def test_an_end_where_the_default_lies_is_taken_for_the_natural_one() -> None:
    space = SearchSpace.from_dict({"share": {"type": "float", "low": 0.4, "high": 1.0, "default": 1.0}})
    best = Trial(0, Proposal({"share": 1.0}, "default"), Outcome("ok", 0.1))
    assert result_of(Context(Task("", "loss"), space, (best,)), "s", None).at_ends == []


def test_a_long_name_above_a_column_is_cut_at_its_end() -> None:
    space = SearchSpace.from_dict({"min_samples_split": {"type": "float", "low": 0.0, "high": 1.0}})
    trials = tuple(Trial(n, Proposal({"min_samples_split": n / 4}, "gp"), Outcome("ok", float(n))) for n in range(4))
    assert ">min_samples_sp\N{HORIZONTAL ELLIPSIS}</text>" in page(Context(Task("", "loss"), space, trials))
