"""Kills a training run over and over, and checks that it ends with the bits of one left alone.

    python launch/soak.py --config=configs/identity.py:micro --kills=50
    python launch/soak.py --config=configs/vqgan.py:micro --kills=10 --processes=2

One run goes through; another, of the same config, is killed at random moments (--seed) and started
again by the same command: mostly SIGKILL, some SIGTERM; while it starts, amid steps, amid saves.
Then params.safetensors and metrics.jsonl must be the same bytes, SIGTERM must have lost no step and
SIGKILL no more than lie between three saves, and nothing must lie about. Exit code 1 where any of
that fails. More fields of the config go after --. GPUs need
XLA_FLAGS=--xla_gpu_deterministic_ops=true.

A life costs a start, so 50 kills take minutes at the micro size.
"""

import argparse
import json
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import local
from soak_life import Kill, Life

STARTUP = 10.0  # seconds within which a start takes its kill; its first step ends it earlier


class Soak:
    """Both runs and what became of them."""

    def __init__(self, options):
        self.options, self.rng = options, random.Random(options.seed)
        self.out = Path(options.out).absolute()
        self.steps = options.steps or 12 * (options.kills + 1)
        self.kills, self.failures, self.lives = [], [], []

    def command(self, workdir):
        """The training command, or the launcher with it, for a run in `workdir`."""
        o = self.options
        train = [
            *(sys.executable, "-m", "swaptalk_jax.train", f"--config={o.config}"),
            *(f"--config.workdir={workdir}", f"--config.train.steps={self.steps}"),
            f"--config.train.save_every={o.save_every}",
            f"--config.train.eval_every={3 * o.save_every + 1}",
            *("--config.train.log_every=1", f"--config.compile_cache={self.out}/compiled"),
            *o.more,
        ]
        if o.processes == 1:
            return train
        launcher = [sys.executable, "launch/local.py", f"--processes={o.processes}"]
        return [*launcher, "--restarts=0", "--", *train]

    def life(self, workdir):
        """Starts the command."""
        self.lives.append(Life(self.command(workdir)))
        return self.lives[-1]

    def whole(self):
        """The run that nobody disturbs; its seconds."""
        began = time.monotonic()
        life = self.life(self.out / "whole")
        code = life.end()
        if code:
            self.give_up("the undisturbed run", code, life)
        return time.monotonic() - began

    def give_up(self, what, code, life):
        """A run that ends by itself is a failure of its own."""
        raise SystemExit(f"{what} ended with exit code {code}:\n{''.join(life.tail)}")

    def killed(self):
        """The run that is killed."""
        workdir, kills = self.out / "killed", self.options.kills
        resumed = 0
        while True:
            life = self.life(workdir)
            done = len(self.kills)
            if done == kills:
                code = life.end()
            else:
                # Spread over the run, so that it does not end before all kills are spent.
                bound = self.steps * (done + 1) // (kills + 1)
                target = self.rng.randint(resumed, max(resumed, bound))
                code = self.strike(life, target)
            if self.kills and life.begun is not None:
                # Of starts that were killed before they told anything, the next that tells.
                for kill in self.kills[: len(self.kills) - (len(self.kills) > done)]:
                    kill.resumed = life.begun if kill.resumed is None else kill.resumed
                resumed = life.begun
            if len(self.kills) == done:  # it ended by itself
                if code:
                    self.give_up(f"life {done + 1}", code, life)
                return

    def strike(self, life, target):
        """Kills a life once its moment has come; notes it unless the run ended before."""
        rng, workdir = self.rng, self.out / "killed"
        number = signal.SIGTERM if rng.random() < 0.2 else signal.SIGKILL
        moment = rng.choices(("start", "step", "save"), (2, 4, 4))[0]
        if moment == "start":
            end = time.monotonic() + rng.uniform(0, STARTUP)
            alive = life.wait_for(lambda: time.monotonic() >= end or life.step is not None)
        else:
            alive = life.wait_for(lambda: (life.step or -1) >= max(target, 1))
            if alive and moment == "save":
                alive = life.wait_for(lambda: unfinished(workdir))
            if alive:
                time.sleep(rng.uniform(0, 0.05))
        code = life.kill(number, rng) if alive else life.end()
        if code != 0:
            # Before its first step a life may have met what the one before has left.
            amid = life.step is not None and bool(unfinished(workdir))
            self.kills.append(Kill(number.name, moment, life.step, amid, code, None))
            if code not in EXPECTED[number]:
                self.give_up(f"life {len(self.kills)}, after {number.name},", code, life)
        return code

    def compare(self):
        """Notes every way in which the killed run is not like the undisturbed one."""
        whole, killed, every = self.out / "whole", self.out / "killed", self.options.save_every
        if len(self.kills) < self.options.kills:
            told = f"it ended after {len(self.kills)} of {self.options.kills} kills"
            self.failures.append(f"{told}: more --steps")
        for name in ("params.safetensors", "metrics.jsonl"):
            same = (killed / name).read_bytes() == (whole / name).read_bytes()
            self.note(same, f"{name} has other bytes than that of the undisturbed run")
        rows = [json.loads(line) for line in (killed / "metrics.jsonl").open()]
        steps = [row["step"] for row in rows]
        self.note(steps == sorted(steps), "the steps of metrics.jsonl go backwards")
        train = [row["step"] for row in rows if "loss" in row]
        self.note(train == list(range(1, self.steps + 1)), "metrics.jsonl lacks steps or has twice")
        for folder in ("", "checkpoints"):
            left = {p.name for p in (killed / folder).iterdir()}
            left ^= {p.name for p in (whole / folder).iterdir()}
            self.note(not left, f"differ in what lies in {folder or 'the folder'}: {sorted(left)}")
        for kill in self.kills:
            # A save is durable when the next begins; until then the one before counts.
            most = 0 if kill.code == local.PREEMPTED else 2 * every
            self.note(kill.lost <= most, f"{kill.lost} steps lost, at most {most} expected: {kill}")

    def note(self, good, failure):
        """Keeps what went wrong."""
        if not good:
            self.failures.append(failure)

    def report(self, alone, seconds):
        """Prints the table and the verdict."""
        rows = [("kill", "when", "number", "amid a save", "steps lost", "most")]
        for key in sorted({(k.kind, k.moment) for k in self.kills}):
            of = [k for k in self.kills if (k.kind, k.moment) == key]
            lost = [k.lost for k in of]
            rows.append((*key, len(of), sum(k.amid_save for k in of), sum(lost), max(lost)))
        lost = [k.lost for k in self.kills] or [0]
        amid = sum(k.amid_save for k in self.kills)
        rows.append(("all", "", len(self.kills), amid, sum(lost), max(lost)))
        for row in rows:
            print("".join(f"{cell!s:<13}" for cell in row).rstrip())
        resumed = ", ".join(str(k.resumed) for k in self.kills)
        print(f"went on from steps: {resumed}")
        print(
            f"{self.steps} steps, saved every {self.options.save_every}; "
            f"undisturbed {alone:.0f} s, killed {seconds:.0f} s"
        )
        for failure in self.failures:
            print(f"FAILED: {failure}")
        if not self.failures:
            print("same bits: params.safetensors, metrics.jsonl; nothing lies about")


# With what a run may end after each: at its start nothing listens to SIGTERM yet; the launcher of
# several processes tells signals as shells do, and a peer may be first to be seen, as it aborts,
# raises, or could not join.
PEERS = (1, local.HUNG, 134, 137)
EXPECTED = {
    signal.SIGKILL: (-9, *PEERS),
    signal.SIGTERM: (local.PREEMPTED, -15, 143, *PEERS),
}


def unfinished(workdir):
    """What lies in the run's checkpoints and is none: saves under way, or cut short."""
    try:
        return [p for p in (workdir / "checkpoints").iterdir() if not p.name.isdigit()]
    except FileNotFoundError:
        return []


def main():
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--steps", type=int, help="of training; 12 a kill if left out")
    parser.add_argument("--save_every", type=int, default=3)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="runs/soak", help="emptied first")
    parser.add_argument("more", nargs="*", help="after --: more of the config, --config.x=y")
    options = parser.parse_args()
    for name in ("kills", "save_every", "processes"):
        if getattr(options, name) < 1:
            parser.error(f"--{name}={getattr(options, name)}: at least 1")
    soak = Soak(options)
    if soak.steps <= options.kills:
        parser.error(f"--steps={soak.steps}: more than --kills={options.kills}")
    for name in ("whole", "killed", "compiled"):
        shutil.rmtree(soak.out / name, ignore_errors=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # by way of `finally`, too
    try:
        alone = soak.whole()
        print(f"undisturbed run done in {alone:.0f} s; now {options.kills} kills", flush=True)
        began = time.monotonic()
        soak.killed()
        soak.compare()
        soak.report(alone, time.monotonic() - began)
    finally:
        for life in soak.lives:
            life.clear()
    sys.exit(bool(soak.failures))


if __name__ == "__main__":
    main()
