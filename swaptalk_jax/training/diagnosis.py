"""What looks wrong in a run's metrics: a line each, with the likely cause and the field to change.

A finding is told once, and again only after it was away for a while. Thresholds stand well beyond
what runs in good order showed, where a number stands beside them, or follow from what a loss means:
a finding missed costs less than one that makes users look away. What is known of a run begins anew
when it goes on after a stop. No jax here: metrics are plain floats.
"""

import collections
import math
import statistics

from data_pipelines.loading.views import VIEWS
from swaptalk_jax import stages
from swaptalk_jax.stages.rules import WINDOW, Rule, rate_field

# Experts of Wav2Lip's kind leave guessing late and may then learn well: a patient rule waits for
# 5 % of a long run.
PATIENCE_STEPS, PATIENCE_SHARE = 50, 0.05
DIVERGED = 2.0  # x the loss before training
EXPLODED = 100.0  # x the gradient's lowest level, which falls or stays: 6.1 to 0.9 (small, VQGAN)
WAITING = 0.25  # of the time, in three log lines running; a loader that keeps up takes none
EARLY = 0.2  # of the steps: until then a network may still copy, which some start with


class Diagnosis:
    """Findings of one run. config: the run's (configs/), whose fields the findings name.

    What is watched is RULES, and what the run's stage declares (stages.Stage).
    """

    def __init__(self, config):
        self.config, self.stage = config, stages.named(config.stage)
        self.loss = self.stage.learns
        self.newest = collections.defaultdict(lambda: collections.deque(maxlen=WINDOW))
        self.level, self.lowest, self.highest = {}, {}, {}  # of metrics with WINDOW steps
        self.start = None  # the loss before training, or its first level after a restart
        self.turn = self.stage.turns(config)  # inf, also once it is behind
        self.lines = collections.deque(maxlen=3)  # input_wait of the newest log lines
        self.best = None  # worth of the best evaluation, and the training loss then
        self.worse = 0  # evaluations since then
        patience = max(PATIENCE_STEPS, int(PATIENCE_SHARE * config.train.steps))
        self.watches = {
            of: [
                _Watch(rule.function, rest, patience if rule.patient else 1)
                for rule in (*self.stage.rules, *RULES)
                if rule.of == of
            ]
            for of, rest in (("steps", WINDOW), ("evaluations", 2))
        }

    def step(self, step: int, metrics: dict[str, float]) -> list[str]:
        """Findings that a step's metrics bring up; to be called for every step, in order.

        metrics: of one step, finite; `input_wait`, if there, is that of the step's log line.
        """
        if self.start is None and step == 1:
            self.start = metrics.get(self.loss)
        if step > self.turn:  # a discriminator joins, say: norms of 1.2, then 93 (vqgan, small)
            self.turn = math.inf
            for known in (self.newest, self.level, self.lowest):
                known.pop("gradient_norm", None)
        for name, value in metrics.items():
            values = self.newest[name]
            values.append(value)
            if len(values) < WINDOW:
                continue
            level = self.level[name] = statistics.median(values)
            self.lowest[name] = min(level, self.lowest.get(name, math.inf))
            self.highest[name] = max(level, self.highest.get(name, -math.inf))
        if self.start is None:
            self.start = self.level.get(self.loss)
        line = [metrics.get(k) for k in ("steps_per_second", "input_wait")]
        if line[1] is not None and line not in self.lines:
            self.lines.append(line)
        return [told for watch in self.watches["steps"] if (told := watch(self, step, metrics))]

    def evaluation(self, step: int, values: dict[str, float]) -> list[str]:
        """Findings that the numbers of an evaluation ("val/...") bring up."""
        if self.stage.worth:
            name, sign, _ = self.stage.worth
            worth = sign * values[name]
            if self.best is None or worth > self.best[0]:
                self.best, self.worse = (worth, self.level.get(self.loss)), 0
            else:
                self.worse += 1
        return [
            told for watch in self.watches["evaluations"] if (told := watch(self, step, values))
        ]

    def not_finite(self, step: int, rows: list[tuple[int, dict[str, float]]]) -> str:
        """Why the metrics of `step`, the last of `rows` ((step, metrics), ...), are not finite."""
        metrics = rows[-1][1]
        broken = [name for name, value in metrics.items() if not math.isfinite(value)]
        parts = [name for name in broken if name not in ("loss", "gradient_norm")]
        first = (parts or broken)[0]
        optimizer = self.config.optimizer
        group = "discriminator" if first == "loss/disc" and "discriminator" in optimizer else ""
        path = f"config.optimizer.{group or 'default'}"
        rates = optimizer[group or "default"]
        what = f"first not finite: {', '.join(parts or broken)} ({metrics[first]})"
        rate = rate_field(rates)
        if not math.isfinite(rates[rate]):
            return f"{what}; {path}.{rate} is {rates[rate]}."
        norms = [m["gradient_norm"] for _, m in rows[:-1] if "gradient_norm" in m]
        usual = self.lowest.get("gradient_norm", norms[0] if norms else 0.0)
        advice = _slower(path, rates)
        if norms and norms[-1] > 10 * usual > 0:
            return (
                f"{what}; the gradient's norm had grown from {usual:.3g} to {norms[-1]:.3g}, so"
                f" the steps are too long: {advice}."
            )
        if step <= max(rates.warmup, 5):
            return f"{what}, as early as step {step}: {advice}, or warm up longer ({path}.warmup)."
        exact = "" if self.config.precision == "float32" else "; or config.precision=float32"
        if parts:
            return f"{what}, with no growth of the gradient's norm before: {advice}{exact}."
        return (
            f"{what} while all losses are finite, so the way back overflows or divides by 0:"
            f" {advice}{exact}."
        )


class _Watch:
    """A rule that has to hold `patience` calls; told again after `rest` calls without it."""

    def __init__(self, rule, rest, patience=1):
        self.rule, self.rest, self.patience = rule, rest, patience
        self.held, self.away, self.told = 0, 0, False

    def __call__(self, run, step, values):
        finding = self.rule(run, step, values)
        if finding is None:
            self.held, self.away = 0, self.away + 1
            self.told = self.told and self.away < self.rest
            return None
        self.held, self.away = self.held + 1, 0
        if self.told or self.held < self.patience:
            return None
        self.told = True
        return finding


def _slower(path, group):
    """What makes an optimizer's steps shorter."""
    rate = rate_field(group)
    clip = f"lower {path}.clip (now {group.clip:g})" if group.clip else f"set {path}.clip=1"
    return f"lower {path}.{rate} (now {group[rate]:g}) or {clip}"


# Rules: (the run's Diagnosis, step, values) -> the finding while it holds, else None.


def starving(run, step, values):
    """The loop waits for its batches."""
    shares = [share for _, share in run.lines]
    if len(shares) < 3 or min(shares) < WAITING:
        return None
    data = run.config.data
    resident = hasattr(VIEWS[run.stage.view], "resident") and not data.get("resident", False)
    memory = ", keep the codes on the devices (config.data.resident=True)" if resident else ""
    return (
        f"input is too slow: the loop waits for batches in {min(shares):.0%} of the time. More"
        f" processes (config.data.workers, now {data.workers}){memory}, or put the shards of"
        f" {data.root} on a local disk"
    )


def diverging(run, step, values):
    """The loss is far beyond what it was before training."""
    level = run.level.get(run.loss)
    if level is None or not run.start or level < DIVERGED * run.start:
        return None
    default = run.config.optimizer.default
    return (
        f"the loss diverges: {run.loss} is {level:.3g}, and was {run.start:.3g} at the start;"
        f" {_slower('config.optimizer.default', default)}"
    )


def exploding(run, step, values):
    """The gradient grows and the loss with it, but all is finite yet."""
    if step > run.stage.turns(run.config):
        return None  # a discriminator's norm wanders from 1.3 to 155 in order (small)
    norm, loss = run.level.get("gradient_norm"), run.level.get(run.loss)
    if norm is None or loss is None or loss < 1.1 * run.lowest[run.loss]:
        return None
    if norm < EXPLODED * run.lowest["gradient_norm"]:
        return None
    default = run.config.optimizer.default
    return (
        f"the gradient explodes: its norm is {norm:.3g}, and was {run.lowest['gradient_norm']:.3g},"
        f" while {run.loss} rises; {_slower('config.optimizer.default', default)}"
    )


def copying(run, step, values):
    """Leaving the picture as it is would be no worse."""
    steps = run.config.train.steps
    if not run.stage.copies or step < min(steps, max(EARLY * steps, 2 * WINDOW)):
        return None
    error, unchanged, what = run.stage.copies
    if values[error] < values[unchanged]:
        return None
    known = run.level.get(run.loss)
    if known is not None and known < 0.7 * values[error]:
        cause = (
            f"it knows the training people alone ({run.loss} {known:.3g}): more people in"
            f" {run.config.data.root}, or fewer steps (config.train.steps)"
        )
    else:
        default = run.config.optimizer.default
        rate = rate_field(default)
        cause = (
            f"it learns too slowly: raise config.optimizer.default.{rate} (now {default[rate]:g})"
            " or config.train.steps"
        )
    return (
        f"no better than the {what} as it is: {error} {values[error]:.3g}, {unchanged}"
        f" {values[unchanged]:.3g}; {cause}"
    )


def overfitting(run, step, values):
    """Unseen people fare worse and worse while the training set's loss falls."""
    if not run.stage.worth or run.best is None:
        return None
    name, sign, margin = run.stage.worth
    best, then = run.best
    now, lost = run.level.get(run.loss), best - sign * values[name]
    if run.worse < 3 or lost < margin * abs(best) or None in (then, now) or now >= then:
        return None
    return (
        f"overfitting: {name} was {abs(best):.3g}, is {values[name]:.3g} and has been worse for"
        f" {run.worse} evaluations, while {run.loss} fell from {then:.3g} to {now:.3g}; more people"
        f" in {run.config.data.root}, or stop earlier (config.train.steps)"
    )


RULES = (
    Rule(starving),
    Rule(diverging),
    Rule(exploding),
    Rule(copying, "evaluations"),
    Rule(overfitting, "evaluations"),
)
