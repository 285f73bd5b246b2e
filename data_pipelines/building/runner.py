"""Runs the jobs of a build on Apache Beam: this machine by default, any of its runners by options.

A job leaves its result in files and may be repeated, so Beam carries names only, and a build that
was killed goes on where it stopped. On several machines --out and the videos must lie where every
worker sees them under one path (NFS, Lustre, gcsfuse).
"""

import contextlib
import logging
import pathlib
import shlex
import sys
import threading
import time
from collections.abc import Callable, Sequence

import cv2

from data_pipelines.errors import SwapTalkError

EVERY = 5.0  # seconds between two lines of progress


class WorkerError(SwapTalkError, ValueError):
    """One clear line: Beam is missing, or its options or workers are at fault."""


def run(
    what: str,
    function: Callable[..., None],
    jobs: Sequence[tuple],
    finished: Callable[..., bool],
    log: pathlib.Path,
    workers: int = 1,
    options: Sequence[str] = (),
) -> None:
    """function(*job) of each job that is not finished; a line of progress every few seconds.

    Args:
      what: the jobs' plural, for the progress.
      function: of a module, as workers import it; what it raises ends the run.
      jobs: arguments that pickle.
      finished: finished(*job) tells whether the job's files stand.
      log: what this machine's workers print goes there.
      workers: processes of this machine; 1: this one. Without meaning where `options` are given.
      options: of Beam, e.g. ("--runner=FlinkRunner", "--flink_master=...").

    Raises:
      WorkerError: Beam is missing, or refuses the options. What `function` raises, as itself or
        as a RuntimeError that tells it. KeyboardInterrupt: Beam's threads go on until the
        process ends.
    """
    waiting = [job for job in jobs if not finished(*job)]
    if waiting != list(jobs):
        print(f"{what}: {len(jobs) - len(waiting)} of {len(jobs)} stand already", flush=True)
    if not waiting:
        return
    beam = _beam()
    with _quiet(), progress(what, waiting, finished):
        try:
            pipeline = beam.Pipeline(**_where(workers, options, log))
        except (ValueError, SystemExit) as error:  # its parser exits
            raise WorkerError(f"Beam refuses {' '.join(options)} ({error})") from error
        work = beam.ParDo(_work(beam, function))
        _ = pipeline | beam.Create(waiting) | beam.Reshuffle() | work
        try:
            pipeline.run().wait_until_finish()
        except RuntimeError as error:
            if str(error).startswith("KeyboardInterrupt"):  # it fell into a worker of this process
                raise KeyboardInterrupt from None
            raise


def _beam():
    logging.disable(logging.WARNING)  # it tells of Google's clients that nobody asked for
    try:
        import apache_beam  # here and not above: reading and training do without
    except ImportError as error:
        raise WorkerError(f"Apache Beam is missing ({error}); pip install -e '.[media]'") from None
    finally:
        logging.disable(logging.NOTSET)
    return apache_beam


def _where(workers, options, log):
    """Arguments of beam.Pipeline."""
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from apache_beam.transforms.environments import SubprocessSDKEnvironment

    if options:
        return {"options": PipelineOptions(list(options))}
    if workers == 1:
        return {"runner": FnApiRunner(), "options": PipelineOptions([])}
    # Workers speak at length on their standard error, and Ctrl-C is for the parent alone: they end
    # when its connection does.
    command = f"{shlex.quote(sys.executable)} -m apache_beam.runners.worker.sdk_worker_main"
    command = f"trap '' INT; exec {command} 2>> {shlex.quote(str(log))}"
    own = SubprocessSDKEnvironment.from_command_string(command)
    local = PipelineOptions([f"--direct_num_workers={workers}"])
    return {"runner": FnApiRunner(default_environment=own), "options": local}


def _work(beam, function):
    """A Beam DoFn that calls the function."""

    class Work(beam.DoFn):
        def setup(self):
            cv2.setNumThreads(1)

        def process(self, job):
            function(*job)

    return Work()


@contextlib.contextmanager
def _quiet():
    """Beam's own log at the level of errors: its lines would bury ours."""
    logger = logging.getLogger("apache_beam")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextlib.contextmanager
def progress(what, jobs, finished):
    """Prints how many jobs are done, how fast, how long still; counts files, whoever made them."""
    ended, started = threading.Event(), time.monotonic()

    def tell(done):
        took = max(time.monotonic() - started, 1e-3)
        left = round(took / done * (len(jobs) - done)) if done else None
        left = "" if left is None else f", {left // 60}:{left % 60:02d} left"
        print(f"{what} {done}/{len(jobs)} ({done / took:.1f}/s){left}", flush=True)

    def watch():
        waiting = list(jobs)
        while not ended.wait(EVERY):
            waiting = [job for job in waiting if not finished(*job)]
            tell(len(jobs) - len(waiting))

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
        tell(len(jobs))
    finally:
        ended.set()
        thread.join()
