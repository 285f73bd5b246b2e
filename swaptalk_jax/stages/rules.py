"""What a run's diagnosis watches in one stage alone; each stage names its own rules.

A rule is a function (run, step, values) -> the finding while it holds, else None. run is the
training.diagnosis.Diagnosis: `run.level`, `run.highest` and `run.lowest` have a metric's medians
over WINDOW steps, `run.config` the fields that a finding names. Thresholds stand well beyond what
runs in good order showed. No jax here: metrics are plain floats.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from swaptalk_jax.stages import losses

# A metric's level is its median over so many steps: a log line's worth, and no single batch of a
# few examples moves it.
WINDOW = 50

# loss/bce of an expert that tells nothing apart is ln 2 = 0.693. Tiny, 120 steps: 0.69 or more in
# every ten steps with shuffled labels; with true ones below 0.66 from step 21 on, 0.38 at the end.
STUCK = 0.98 * math.log(2.0)
GAP = 0.25  # of accuracy
# Perplexity of a batch, a share of the codes; more than 2048 no batch of ours can use. In order:
# tiny, 2048 codes, 148 and 185 after 70 steps; micro, 256 codes, colour gradients, 26 to 70, and
# without restarts 1 to 6, and 8 % alive.
FEW_CODES, MANY_CODES, FEW_ALIVE = 0.02, 2048, 0.5
# Hinge losses of the discriminator: 1 is guessing, 0 that every patch is told beyond the margin.
WON, LOST = 0.05, 3.0


class Rule(NamedTuple):
    """A rule and when it is asked.

    of: "steps" (every step's metrics) or "evaluations" (their "val/..." numbers). patient: it has
    to hold for a share of the run before it is told.
    """

    function: Callable
    of: str = "steps"
    patient: bool = False


def stuck_expert(run, step, values):
    """An expert that hears nothing; the causes are those that users of Wav2Lip's found."""
    level = run.level.get("loss/bce", 0.0)
    if level < STUCK:
        return None
    c = run.config
    return (
        f"the expert is stuck: loss/bce stays at {level:.2f}, and ln 2 = 0.69 is guessing. Causes"
        f" to rule out, in this order: sound that is late or early or faces that are not aligned"
        f" (index.html of the build; no --unsure=keep), a batch too small (config.train.batch_size,"
        f" now {c.train.batch_size}), no contrast within it (config.loss.contrast, now"
        f" {c.loss.contrast:g}), features that say nothing (config.data.features)"
    )


def knows_by_heart(run, step, values):
    """An expert that is right about the training clips alone."""
    heard, unseen = run.level.get("accuracy"), values["val/accuracy"]
    if not heard or heard - unseen <= GAP:
        return None
    return (
        f"the expert knows the training clips by heart: accuracy {heard:.2f} on them,"
        f" {unseen:.2f} on unseen people; more people in {run.config.data.root}, or stop earlier"
        " (config.train.steps)"
    )


def collapsed_codes(run, step, values):
    """Few codes do all the work."""
    codes, loss = run.config.model.vqgan.codes, run.config.loss
    for half in ("upper", "lower"):
        used, best = (x.get(f"perplexity_{half}", codes) for x in (run.level, run.highest))
        alive = run.level.get(f"codes_alive_{half}", 1.0)
        if used > max(FEW_CODES * min(codes, MANY_CODES), best / 3) and alive > FEW_ALIVE:
            continue
        return (
            f"the {half} codebook collapses: a batch uses {used:.0f} of {codes} codes, {best:.0f}"
            f" at best, {alive:.0%} are alive. Restart unused codes sooner"
            f" (config.loss.restart_after, now {loss.restart_after}), let codes follow the encoder"
            f" (config.loss.codebook_decay, now {loss.codebook_decay:g}; 0.95 is usual), or raise"
            " config.train.batch_size"
        )
    return None


def rate_field(group):
    """The field of an optimizer's group that sets the steps of most of its parameters."""
    return next((name for name in ("muon_lr", "lr_per_example") if group[name]), "lr")


def critic(run, step, values):
    """A discriminator that always wins, or is lost."""
    if step < losses.adversarial_start(run.config) + WINDOW:
        return None
    c = run.config
    group = "discriminator" if "discriminator" in c.optimizer else "default"
    rate = rate_field(c.optimizer[group])
    tell, fool = run.level.get("loss/disc", 1.0), run.level.get("loss/adv", 0.0)
    gentler = (
        f"lower config.optimizer.{group}.{rate} (now {c.optimizer[group][rate]:g}), or start it"
        f" later (config.loss.adversarial_start_share, now {c.loss.adversarial_start_share:g})"
    )
    if tell < WON and fool > 1.0:
        return (
            f"the discriminator always wins: loss/disc {tell:.2g}, loss/adv {fool:.2g}; pictures"
            f" no longer follow it; {gentler}"
        )
    if tell > LOST:
        return f"the discriminator diverges: loss/disc {tell:.3g}, and 1 is guessing; {gentler}"
    if run.level.get("adv_weight", 0.0) >= 0.99e4 * c.loss.adversarial > 0:
        return (
            "adv_weight is at its bound: the discriminator gives the picture no gradient at all;"
            f" {gentler}"
        )
    return None


STUCK_EXPERT = Rule(stuck_expert, patient=True)
BY_HEART = Rule(knows_by_heart, "evaluations")
COLLAPSED_CODES = Rule(collapsed_codes)
CRITIC = Rule(critic)
