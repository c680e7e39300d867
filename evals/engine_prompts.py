"""Prompts whose reading is measured: a long static part, trials as llmhpo shows them, a request."""

from __future__ import annotations

import numpy as np

from llmhpo.agents import questions
from llmhpo.agents.outlook import outlook
from llmhpo.history import trial_rows
from llmhpo.llm.base import Message
from llmhpo.space import Params, SearchSpace
from llmhpo.trial import Context, Outcome, Proposal, Task, Trial

CARD = """You tune the hyperparameters of training jobs.
Task: a network of two layers on 1,797 images of handwritten digits, 8 x 8 pixels each; maximize accuracy on held-out images.
A trial takes about 20 seconds on one core. Images are scaled to 0..1. The training set has 1,200 images, so that overfitting
is likely with many units. The learning rate decays to a tenth over the run. Early stopping is off.
Parameters:
- learning_rate: float from 1e-05 to 0.1 (log scale), default 0.01; step size of the optimizer
- hidden_units: integer from 16 to 256, default 64; units of each layer
- dropout: float from 0 to 0.6, default 0.1; share of the units that are dropped in training
From the literature on such jobs:
- The learning rate matters most: with Adam good values lie around 0.001 to 0.003 for small networks, and a rate that is ten
  times too large ends in loss that does not fall; with larger batches it can grow by the square root of the batch's growth.
- Width pays until the training loss is near zero; beyond that it costs time and needs more dropout to generalize.
- Dropout of 0.1 to 0.3 helps networks that overfit, 0.5 is too much for narrow layers, and none is best for short runs.
- Small batches act as a regularizer and take more steps; 32 is a good default on a CPU, 128 is faster and a little worse.
What the surrogate thinks: learning_rate explains about 60 % of the variation so far, hidden_units 20 %, dropout 10 %. The best region predicted lies at learning_rate 0.002 to 0.01, hidden_units 90 to 200, dropout 0.05 to 0.2;
it is least certain about wide layers with strong dropout. The classical optimizer would try next: learning_rate
0.0042, hidden_units 140, dropout 0.12.
Failures so far: learning rates above 0.06 with more than 200 units ended in a loss that is not a number, three times out of
four; such configurations count as failed and cost a whole trial. No trial ran out of memory. Two trials are pending: learning
rate 0.0021 with 96 units and dropout 0.1, and learning rate 0.0075 with 180 units and dropout 0.25; do not propose these again.
What was learned from the trials, checked against them: more units helped up to about 150 and did nothing beyond; dropout above
0.4 lowered the accuracy in every pair of trials that differed in little else; the learning rate interacts with the number of
units, and narrow layers take a larger one. The noise between two runs of one configuration is about 0.004 in accuracy, so that
smaller differences mean nothing. The accuracy of the defaults is 0.921.
Propose configurations that are likely to beat the best value so far, the most promising one first. Follow the evidence:
move the parameters that separate good trials from bad ones further in the direction that helped, combine what worked, stay
away from what failed. Each must differ from every trial and from the others. Reply with one JSON object.
Trials in the order of their numbers:
"""
SPACE = SearchSpace.from_dict(
    {
        "learning_rate": {"type": "float", "low": 1e-5, "high": 0.1, "log": True, "default": 0.01},
        "hidden_units": {"type": "int", "low": 16, "high": 256, "default": 64},
        "dropout": {"type": "float", "low": 0.0, "high": 0.6, "default": 0.1},
    }
)


def study(trials: int) -> Context:
    """A study that has come so far; its trials are always the same."""
    return Context(Task(CARD, "accuracy", "maximize"), SPACE, tuple(map(_trial, range(trials))))


def _trial(i: int) -> Trial:
    rng = np.random.default_rng(i)
    lr, dropout, accuracy = (float(x) for x in (10 ** rng.uniform(-4, -1), rng.uniform(0, 0.6), rng.uniform(0.8, 0.97)))
    params: Params = {"learning_rate": lr, "hidden_units": int(rng.integers(16, 257)), "dropout": dropout}
    return Trial(i, Proposal(params, "random"), Outcome("ok", round(accuracy, 3)))


def rows(n: int) -> str:
    """Trials as llmhpo's prompts show them, none left out."""
    return trial_rows(study(n), max_tokens=1 << 30).text


def prompt(n: int, card: str = CARD) -> tuple[Message, ...]:
    """The static part first, then `n` trials in their order, then the request."""
    return (Message("user", f"{card}{rows(n)}\nPropose 4 configurations."),)


def question(n: int) -> tuple[Message, ...]:
    """What llmhpo itself asks a small model after `n` trials: of fixed size, with more behind the rows."""
    context = study(n)
    asked = questions.propose(context, 4, reasons=False, view=outlook(context))
    return Message("system", asked.system), Message("user", asked.user)
