from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import optuna
import pytest
from optuna.distributions import FloatDistribution

from llmhpo.errors import StoreError, StudyLockedError, StudyMismatchError
from llmhpo.param import Param
from llmhpo.prior import Belief, Prior
from llmhpo.revision import Revision
from llmhpo.space import SearchSpace
from llmhpo.store import Launch, Store, batch_from_dict, load_study
from llmhpo.store.ledger import batch_record, end_record, outcome_from_dict
from llmhpo.trial import Batch, Outcome, Proposal, Provenance, Tally, Task, Trial
from llmhpo.usage import Usage

Open = Callable[..., Store]
PROPOSAL = Proposal(
    {"lr": 0.01, "optimizer": "adam", "batch_size": 32, "layers": 2},
    "llm",
    "a usual start",
    Provenance("openai:m", "warmstart.v1", "abc", 0),
)
OK = Outcome("ok", 0.5, 3.25, {"accuracy": 0.9}, ((0, 0.8), (1, 0.5)))
FAILED = Outcome("timeout", seconds=60.0, message="stopped after 60 s", log_tail="epoch 1")
BATCH = Batch("warmstart", 0, 4, (PROPOSAL,), Usage(1, 900, 0, 200, None), ("x is out of range",), "", False, 1.5)


def test_everything_comes_back_after_closing(open_store: Open) -> None:
    store = open_store(seed=7)
    for outcome in (OK, FAILED):
        store.finish(store.begin(PROPOSAL).number, outcome)
    store.begin(PROPOSAL)
    store.record(BATCH)
    before = store.context()
    store.close()
    assert open_store().context() == before


@pytest.mark.parametrize("edits", [True, False])
def test_what_a_job_printed_is_known_before_a_restart_as_after_it(open_store: Open, edits: bool) -> None:
    store = open_store()
    if edits:
        store.begin_edits(BASELINE)
    printed = "".join(f"epoch {k}\n" for k in range(1000))
    for outcome in (OK, FAILED):
        store.finish(store.begin(PROPOSAL).number, replace(outcome, log_tail=printed))
    before = [t.outcome.log_tail for t in store.trials if t.outcome is not None]
    store.close()
    assert [t.outcome.log_tail for t in open_store().trials if t.outcome is not None] == before
    assert before == [printed[-2000:] if edits else "", printed[-2000:]]


def test_what_the_model_believes_comes_back_after_closing(open_store: Open) -> None:
    prior = Prior((Belief("lr", 0.8, 1e-4, 1e-2), Belief("optimizer", 0.7, choices=("adam", "rmsprop"))))
    store = open_store()
    store.record(replace(BATCH, prior=prior))
    store.close()
    assert open_store().context().prior == prior


EXTRA = Param("dropout", FloatDistribution(0.0, 0.5), default=0.1)
BASELINE = Revision("b" * 40, note="as it was", digest="d0")
CHILD = Revision("c" * 40, "b" * 40, (EXTRA,), "adds dropout", "d1", "draft")
GRANDCHILD = Revision("e" * 40, "c" * 40, (), "wider", "d2", "improve")


def edited_study(store: Store) -> None:
    """A baseline, two edits of it one after the other, and a trial of each."""
    store.begin_edits(BASELINE)
    store.finish(store.begin(PROPOSAL).number, OK)
    store.record(Batch("edit", 1, 2, revisions=(CHILD,), code=BASELINE.id))
    store.record(Batch("edit", 1, 1, revisions=(GRANDCHILD,), code=CHILD.id))
    with_more = {**PROPOSAL.params, "dropout": 0.3}
    store.finish(store.begin(Proposal(with_more, "edit", code=CHILD.id, twin=0)).number, OK)
    store.begin(Proposal(with_more, "gp", code=GRANDCHILD.id))


def test_revisions_and_their_trials_come_back_after_closing(open_store: Open) -> None:
    store = open_store(seed=7)
    edited_study(store)
    before = store.context()
    assert (before.baseline, before.revisions) == (BASELINE, (CHILD, GRANDCHILD))
    store.close()
    assert open_store().context() == before


def test_a_revision_has_the_parameters_that_were_declared_on_the_way_to_it(open_store: Open) -> None:
    store = open_store()
    edited_study(store)
    context = store.context()
    assert [r.id for r in context.lineage(GRANDCHILD.id)] == [CHILD.id, GRANDCHILD.id]
    assert context.space_of(GRANDCHILD.id).names == (*context.space.names, "dropout")
    assert context.space_of("") is context.space


def test_a_revision_alone_is_seen_with_its_trials_and_the_whole_bill(open_store: Open) -> None:
    store = open_store()
    edited_study(store)
    store.record(replace(BATCH, at=3))
    context = store.context()
    plain, child = context.within(""), context.within(CHILD.id)
    assert [t.number for t in plain.trials] == [0]
    assert [(b.kind, b.at) for b in plain.batches] == [("warmstart", 1)]
    assert [t.number for t in child.trials] == [1]
    assert child.space == context.space_of(CHILD.id)
    assert plain.usage == child.usage == context.usage


def test_the_code_that_a_study_began_with_stays_its_baseline(open_store: Open) -> None:
    store = open_store()
    store.begin_edits(BASELINE)
    assert store.begin_edits(replace(BASELINE, id="f" * 40)) == BASELINE


def test_a_trial_of_code_that_is_no_revision_is_refused(open_store: Open) -> None:
    store = open_store()
    edited_study(store)
    store._study.storage.set_trial_user_attr(store._study.frozen()[2]._trial_id, "code", "0" * 40)
    store.close()
    with pytest.raises(StudyMismatchError, match="is no revision"):
        open_store()


def test_an_attempt_names_the_code_that_it_ran(open_store: Open) -> None:
    store = open_store()
    edited_study(store)
    attempt = store.attempt(2, Launch("00002", 7, code=GRANDCHILD.id))
    assert attempt.revision == store.context().space_of(GRANDCHILD.id).revision
    store.close()
    assert open_store().attempts(2) == (attempt,)


def test_a_batch_keeps_its_tally() -> None:
    tally = Tally("m", "propose.v1", 4, 4, 3, 2, 1, 1, Usage(1, 200, 0, 40))
    batch = replace(BATCH, tally=tally)
    assert batch_from_dict(json.loads(json.dumps(batch_record(batch)))) == batch


def test_a_batch_of_a_study_older_than_beliefs_is_read() -> None:
    raw = asdict(BATCH)
    del raw["prior"]
    assert batch_from_dict(raw) == BATCH


def test_how_far_an_outcome_is_to_be_trusted_comes_back_after_closing(open_store: Open) -> None:
    outcome = replace(OK, self_reported=True, fingerprint="ab12", flags=("metric jump",), sandbox="bwrap 0.8.0")
    store = open_store()
    store.finish(store.begin(PROPOSAL).number, outcome)
    store.close()
    assert open_store().trials[0].outcome == outcome


def test_how_far_an_outcome_is_to_be_trusted_comes_back_from_the_log() -> None:
    trusted = replace(OK, self_reported=True, fingerprint="ab12", flags=("metric jump",), sandbox="bwrap 0.8.0")
    raw = json.loads(json.dumps(end_record(Trial(0, PROPOSAL, trusted))))["outcome"]
    assert outcome_from_dict(raw) == replace(trusted, curve=())


def test_an_outcome_older_than_scoring_is_recorded_as_it_was() -> None:
    assert set(end_record(Trial(0, PROPOSAL, OK))["outcome"]) == {
        "status", "value", "seconds", "metrics", "curve", "message", "log_tail",
    }  # fmt: skip


def test_trials_are_numbered_from_zero(open_store: Open) -> None:
    store = open_store()
    assert [store.begin(PROPOSAL).number for _ in range(3)] == [0, 1, 2]


def test_optuna_reads_the_same_record(open_store: Open, tmp_path: Path) -> None:
    store = open_store()
    store.finish(store.begin(PROPOSAL).number, OK)
    store.finish(store.begin(PROPOSAL).number, FAILED)
    store.close()
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path / 'study.db'}")
    good, bad = study.trials
    assert good.value == 0.5
    assert good.params == PROPOSAL.params
    assert good.intermediate_values == {0: 0.8, 1: 0.5}
    assert good.user_attrs["source"] == "llm"
    assert good.user_attrs["provenance"]["prompt_hash"] == "abc"
    assert bad.state == optuna.trial.TrialState.FAIL
    assert bad.value is None
    study._storage.remove_session()
    study._storage._backend.engine.dispose()  # type: ignore[attr-defined]


def test_a_long_curve_is_thinned_for_optuna_and_kept_whole_for_us(open_store: Open) -> None:
    store = open_store()
    curve = tuple((i, float(i)) for i in range(1000))
    store.finish(store.begin(PROPOSAL).number, Outcome("ok", 1.0, curve=curve))
    store.close()
    outcome = open_store().trials[0].outcome
    assert outcome is not None
    assert outcome.curve == curve


def test_the_seed_is_the_studys_own(open_store: Open) -> None:
    open_store(seed=7).close()
    assert open_store(seed=8).seed == 7


def test_another_space_is_refused_with_the_difference(open_store: Open, space: SearchSpace) -> None:
    open_store().close()
    table = space.to_dict()
    del table["layers"]
    table["lr"]["high"] = 1.0
    with pytest.raises(StudyMismatchError, match=r"removed layers; changed lr.*another study_name"):
        open_store(space_=SearchSpace.from_dict(table))


def test_another_metric_or_direction_is_refused(open_store: Open) -> None:
    open_store().close()
    with pytest.raises(StudyMismatchError, match="'loss'"):
        open_store(task=Task("t", "accuracy"))
    with pytest.raises(StudyMismatchError, match="'maximize'"):
        open_store(task=Task("t", "loss", "maximize"))


def test_a_foreign_study_is_refused(open_store: Open, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    study = optuna.create_study(storage=url, study_name="s")
    study.tell(study.ask(), 1.0)
    study._storage.remove_session()
    study._storage._backend.engine.dispose()  # type: ignore[attr-defined]
    with pytest.raises(StudyMismatchError, match="LLMSampler"):
        open_store()


def test_a_second_controller_is_told_who_holds_the_study(open_store: Open, tmp_path: Path) -> None:
    open_store()
    code = (
        "import sys\nfrom llmhpo.store import Store\nfrom llmhpo.space import SearchSpace\nfrom llmhpo.trial import Task\n"
        "space = SearchSpace.from_dict({'x': {'type': 'float', 'low': 0, 'high': 1}})\n"
        "try:\n    Store(sys.argv[1], 's', space, Task('t', 'loss'))\nexcept Exception as e:\n    print(type(e).__name__, e)\n"
    )
    url = f"sqlite:///{tmp_path / 'study.db'}"
    run = subprocess.run([sys.executable, "-c", code, url], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("StudyLockedError")
    assert "pid" in run.stdout
    with pytest.raises(StudyLockedError):
        open_store()


def test_a_folder_that_cannot_be_written_is_named(space: SearchSpace) -> None:
    with pytest.raises(StoreError, match=r"/proc/nowhere.*can be written"):
        Store("sqlite:////proc/nowhere/study.db", "s", space, Task())


@pytest.mark.parametrize("url", ["nonsense", "nosuchdb://x/y", "postgresql://localhost:1/x"])
def test_an_unusable_url_is_named(url: str, space: SearchSpace) -> None:
    with pytest.raises(StoreError, match=url):
        Store(url, "s", space, Task())


def test_reading_needs_no_lock_and_no_space(open_store: Open, tmp_path: Path) -> None:
    store = open_store()
    store.begin(PROPOSAL)
    context = load_study(f"sqlite:///{tmp_path / 'study.db'}", "s")
    assert context.trials == store.trials
    assert context.space == store.space


def test_reading_a_study_that_is_not_there_says_what_is(open_store: Open, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="llmhpo run"):
        load_study(f"sqlite:///{tmp_path / 'other.db'}", "s")
    open_store()
    with pytest.raises(StoreError, match=r"'nope'.*'s'"):
        load_study(f"sqlite:///{tmp_path / 'study.db'}", "nope")


def test_a_study_lives_in_memory_without_a_storage(space: SearchSpace) -> None:
    store = Store(None, "s", space, Task(), seed=1)
    store.finish(store.begin(PROPOSAL).number, OK)
    assert store.context().best is not None


def test_an_unanswered_question_is_kept_with_what_was_known_then(open_store: Open) -> None:
    store = open_store(seed=1)
    store.finish(store.begin(PROPOSAL).number, OK)
    number = store.begin(PROPOSAL).number
    asked = store.context(7)
    store.ask(asked, 4)
    store.finish(number, FAILED)
    store.begin(PROPOSAL)
    store.close()
    again = open_store()
    assert again.open_question() == asked
    again.record(BATCH)
    assert again.open_question() is None


def test_a_study_that_was_cut_while_it_was_made_is_made_again(open_store: Open, tmp_path: Path) -> None:
    open_store().close()
    url = f"sqlite:///{tmp_path / 'study.db'}"
    storage = optuna.storages.RDBStorage(url)
    study_id = storage.get_study_id_from_name("s")
    with storage.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM study_user_attributes WHERE key LIKE '%space' OR key LIKE '%task'")
    storage.remove_session()
    storage.engine.dispose()
    assert study_id is not None
    with pytest.raises(StoreError, match="was not made by llmhpo"):
        load_study(url, "s")
    assert open_store().trials == ()


def test_a_trial_that_somebody_else_enqueued_is_left_alone(open_store: Open, tmp_path: Path) -> None:
    open_store().close()
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path / 'study.db'}")
    study.enqueue_trial({"lr": 0.01})
    study._storage.remove_session()
    study._storage._backend.engine.dispose()  # type: ignore[attr-defined]
    store = open_store()
    assert store.trials == ()
    assert store.begin(PROPOSAL).number == 1


def test_a_noisy_study_stays_noisy_and_an_exact_one_can_become_it(open_store: Open, tmp_path: Path) -> None:
    open_store().close()
    assert load_study(f"sqlite:///{tmp_path / 'study.db'}", "s").task.noisy is False
    open_store(task=Task("t", "loss", noisy=True)).close()
    store = open_store(task=Task("other words", "loss"))
    assert store.task == Task("other words", "loss", noisy=True)
    assert load_study(f"sqlite:///{tmp_path / 'study.db'}", "s").task.noisy is True


def test_a_study_of_a_version_that_knew_no_noise_is_read(open_store: Open, tmp_path: Path) -> None:
    open_store().close()
    url = f"sqlite:///{tmp_path / 'study.db'}"
    study = optuna.load_study(study_name="s", storage=url)
    study.set_user_attr("llmhpo:task", {k: v for k, v in asdict(Task("t", "loss")).items() if k != "noisy"})
    assert load_study(url, "s").task == Task("t", "loss")
    assert open_store().task.noisy is False


def test_what_was_run_instead_of_the_proposal_comes_back_after_closing(open_store: Open) -> None:
    store = open_store()
    other = {"lr": 0.01, "optimizer": "rmsprop", "batch_size": 64, "layers": 3}
    store.finish(store.begin(PROPOSAL).number, OK, other)
    before = store.context()
    store.close()
    after = open_store().context()
    assert after == before
    assert after.trials[0].params == other
    assert after.trials[0].proposal == PROPOSAL
