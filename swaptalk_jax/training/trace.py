"""Profiler traces of a few steps."""

from pathlib import Path

import jax


class Trace:
    """jax.profiler's trace of the steps that the config asks for, in <workdir>/profile.

    every: config.train. Open it with TensorBoard's profile plugin, xprof or Perfetto.
    """

    def __init__(self, workdir, every):
        self.folder, self.first = Path(workdir) / "profile", every.profile_step
        self.end = self.first + every.profile_steps if self.first else 0
        self.on = False

    def at(self, step):
        """Starts before the first of the steps, stops after the last."""
        if self.end and step == self.first:
            jax.profiler.start_trace(str(self.folder))
            self.on = True
        elif step == self.end:
            self.close()

    def close(self):
        """Stops, if it is on."""
        if self.on:
            jax.profiler.stop_trace()
            self.on = False
            print(f"profile of steps {self.first} to {self.end - 1}: {self.folder}", flush=True)
