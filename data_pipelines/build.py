"""Videos and stills -> face shards: frames, clips and triples, as records/kinds.py declares them.

    python -m data_pipelines.build --source=synthetic --out=D
    python -m data_pipelines.build --source=videos/ --out=D --size=512
    python -m data_pipelines.build --source=ffhq/ --stills=image --out=D --size=512
    python -m data_pipelines.build --manifest=list.json --out=D --size=256 --triples=10000
    python -m data_pipelines.build --lists=hdtf_lists/ --source=videos/ --out=D --size=512

Writes D/{frames,clips,triples}, D/index.html (the page to judge the data by, before training),
D/report.json (every video and clip: what was measured, what was left out and why), D/landmarks
(kept for the next build) and, for the synthetic set, D/videos. Real videos need the extra `media`.

Still pictures and videos without sound give frames, on which the stages vqgan and identity train.
Clips, triples and codes are made of videos with sound alone; a set without any has frames only.

The work runs on Apache Beam: in --workers processes of this machine, or elsewhere by Beam's own
options, e.g. --runner=FlinkRunner --flink_master=...; see building/runner.py. The same
command goes on where a build was stopped. The shards do not depend on where and by how many they
were made. A finished build is not repeated; another configuration needs another D.
"""

import argparse
import contextlib
import dataclasses
import fcntl
import functools
import itertools
import json
import os
import pathlib
import shutil
import sys

from absl import app

from data_pipelines import command, files
from data_pipelines.building import runner, summary
from data_pipelines.building.config import BuildError, Config, finished, settings_of
from data_pipelines.building.rounds import Rounds
from data_pipelines.errors import STOPPED
from data_pipelines.faces import quality
from data_pipelines.page import page
from data_pipelines.proxies import choice
from data_pipelines.sources import hdtf, listing
from data_pipelines.synthetic import sampling

WORK = ".work"  # below --out, while a build is under way


def build(config: Config, beam: tuple[str, ...] = ()) -> dict:
    """Builds, or returns at once when this was built before; gives the summary of report.json.

    beam: options for Apache Beam; none: `config.workers` processes of this machine.

    Raises:
      SwapTalkError: the arguments, the input, the output folder or Beam cannot be used, or an extra
        is not installed.
    """
    out = pathlib.Path(config.out)
    settings = settings_of(config)
    before = finished(out, settings)
    if before:
        print(f"{out} is already built: {summary.sentence(before)}")
        return before
    # Wrong arguments leave no folder behind.
    swapper = choice.make(settings["proxy"], config.proxy_model, config.proxy_recogniser)
    videos, missing = _videos(config, out)
    work = out / WORK
    with _alone(work):
        files.replace_text(out / "build.json", json.dumps({"settings": settings}, indent=1))
        videos = videos or _draw(config, out)
        log = work / "workers.log"
        run = functools.partial(runner.run, log=log, workers=config.workers, options=beam)
        rounds = Rounds(config, settings, out, work, run)
        rows = rounds.cut(videos) + missing
        rounds.correct_offsets(rows)
        summary.tell_refused(out, rows)
        people = rounds.people(rows)
        kept = rounds.write_clips(rows, people, videos)
        swapped = rounds.write_triples(kept, people, swapper)
        told = summary.summary(rows, swapped)
        files.replace_text(out / summary.REPORT, json.dumps(rows, indent=1))
        reasons = hdtf.REASONS | quality.REASONS
        gates = dataclasses.asdict(config.gates)
        about = {"reasons": reasons, "gates": gates, "identities": people.report()}
        page.write(out, rows, about)
        done = {"settings": settings, "summary": told}
        files.replace_text(out / "build.json", json.dumps(done, indent=1))
        shutil.rmtree(work)
    print(f"{out}: {summary.sentence(told)}")
    return told


@contextlib.contextmanager
def _alone(work):
    """The folder of a build at work, which only one process may have."""
    work.mkdir(parents=True, exist_ok=True)
    with open(work / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BuildError(f"{work.parent}: another build is at work here; wait for it") from None
        yield


# Videos ------------------------------------------------------------------------------------------


def _videos(config, out):
    """(what there is to read, none yet of the synthetic set; rows of what is not there)."""
    if config.manifest:
        manifest = pathlib.Path(config.manifest)
        return listing.from_manifest(manifest, pathlib.Path(config.source or manifest.parent)), []
    if config.source == "synthetic":
        return [], []
    if config.proxy == "exact":
        raise BuildError("--proxy=exact is for the synthetic set; take --proxy=classical")
    if config.lists:
        found, left = hdtf.from_hdtf(pathlib.Path(config.lists), pathlib.Path(config.source))
        return found, _left_out(left)
    source = pathlib.Path(config.source)
    return listing.from_folder(source, leave_out=out, own=config.stills == "image"), []


def _left_out(told):
    """Rows, as cutting.clips returns them, of what hdtf.from_hdtf tells of each video."""
    rows = {}
    for line in told:
        name, refused = line["video"], {"clip": line["video"]} | line
        row = {"video": name, "identity": None, "split": None, "refused": [], "clips": []}
        del refused["video"]
        rows.setdefault(name, row)["refused"].append(refused)
    return list(rows.values())


def _draw(config, out):
    """The videos of the synthetic set, made now unless they stand already."""
    val, folder = config.val_identities, out / "videos"
    names = itertools.product(range(config.identities), range(config.clips))
    made = [(folder / sampling.file_of(*name),) for name in names]
    try:
        with runner.progress("drawings", made, pathlib.Path.exists):
            manifest = sampling.write(
                folder,
                seed=config.seed,
                identities=config.identities,
                clips=config.clips,
                frames=config.frames,
                size=config.frame_size,
                val=val if val < 1 else val / config.identities,
                workers=config.workers,
            )
    except ValueError as error:
        raise BuildError(str(error)) from error
    return listing.from_manifest(manifest)


# Command line ------------------------------------------------------------------------------------


def _parse(argv):
    """Command line -> (Config, options for Beam). Not absl flags, global to every importer."""
    parser = command.Parser(
        prog="python -m data_pipelines.build",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--out", required=True)
    own = [f for f in dataclasses.fields(Config) if f.name not in ("out", "gates")]
    gates = dataclasses.fields(quality.Gates)
    for field in own:
        default = os.cpu_count() if field.name == "workers" else field.default
        _add(parser, f"--{field.name}", field.type, default)
    for field in gates:
        _add(parser, f"--gate_{field.name}", field.type, field.default)
    parsed, beam = parser.parse_known_args(argv[1:])
    if beam and not any(option.startswith("--runner") for option in beam):
        parser.error(f"unknown: {' '.join(beam)} (options of Beam need --runner=...)")
    parsed = vars(parsed)
    chosen = quality.Gates(**{f.name: parsed[f"gate_{f.name}"] for f in gates})
    names = ["out", *(f.name for f in own)]
    return Config(gates=chosen, **{name: parsed[name] for name in names}), tuple(beam)


def _add(parser, name, kind, default):
    parser.add_argument(name, type=kind, default=default, help=f"default: {default}")


def main(parsed):
    """Command line: returns the exit code."""

    def work():
        build(*parsed)

    stopped = "stopped; what is done is kept, run the same command again"
    code = command.run("build", work, stopped=stopped)
    if code == STOPPED:
        sys.stdout.flush()
        os._exit(code)  # Beam's threads would go on, and print that their peers are gone
    return code


if __name__ == "__main__":
    app.run(lambda parsed: sys.exit(main(parsed)), flags_parser=_parse)
