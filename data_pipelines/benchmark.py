"""How fast a build is, beside a plain decode of the same files, and the memory it takes; and how
fast the loader makes batches.

    python -m data_pipelines.benchmark --source=videos/ --size=128 --copies=8
    python -m data_pipelines.benchmark --loader --size=512
    python -m data_pipelines.benchmark --loader --records=runs/small/codes

Build: each measure is a process of its own on one core's worth of workers. `decode` reads every
frame with PyAV and throws it away; `build` makes shards of the files (without triples), from
nothing. Prints JSON: frames read and processor seconds of both, frames per processor second, their
ratio, peak MiB, and the frames that the gates kept.
--copies=N builds N copies of the files: the memory should not follow, nor the frames per second.

Loader: of each view examples and frames of video per processor second, batches handed over
included, networks not. The records are your own (--records), or made up with the sizes of --size,
and read as those of sets too large to stay decoded in memory.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from absl import app

from data_pipelines import command
from data_pipelines.errors import SwapTalkError
from data_pipelines.loading import loader, views
from data_pipelines.records import kinds
from data_pipelines.sources import listing
from data_pipelines.synthetic import random_records

# Frames of video that an example of a view holds; of `windows` the reference, too.
FRAMES = {"images": 1, "pairs": 5, "windows": 6, "swaps": 3}
AUDIO_WIDTH, EMBEDDING = 80, 512  # log-mel, and the paper's recogniser
CELL = 16  # pixels of a side of a cell of codes, at the paper's size

DECODE = """
import sys, av
av.logging.set_level(None)
count = 0
for path in sys.argv[1:]:
    with av.open(path) as container:
        count += sum(1 for _ in container.decode(video=0))
print(count)
"""
BUILD = """
import sys
from data_pipelines import build
options = {"size": int(sys.argv[3]), "triples": 0, "same_face": 0.0}
summary = build.build(build.Config(out=sys.argv[2], source=sys.argv[1], workers=1, **options))
print(sum(summary["frames"].values()))
"""


def measure(code, *args):
    """Runs Python code in a process of its own -> {frames, seconds (of processor), mib (peak)}."""
    command = [sys.executable, "-c", code, *map(str, args)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    told = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    if status:
        code = os.waitstatus_to_exitcode(status)
        raise RuntimeError(f"a measured process ended with exit code {code}")
    frames, seconds = int(told.split()[-1]), used.ru_utime + used.ru_stime
    return {"frames": frames, "seconds": round(seconds, 2), "mib": used.ru_maxrss // 1024}


def run(source: pathlib.Path, size: int, copies: int) -> dict:
    """Both measures of the videos below `source`, and their ratio."""
    paths = listing.video_files(source)
    if not paths:
        raise SwapTalkError(f"{source}: holds no video")
    with tempfile.TemporaryDirectory() as scratch:
        videos = pathlib.Path(scratch) / "videos"
        for i, path in enumerate(paths):
            for copy in range(copies):  # a person each: names must not be joined
                folder = videos / f"{i}-{copy}"
                folder.mkdir(parents=True)
                (folder / path.name).symlink_to(path.resolve())
        decode = measure(DECODE, *paths)
        build = measure(BUILD, videos, pathlib.Path(scratch) / "out", size)
    build |= {"frames": decode["frames"] * copies, "kept": build["frames"]}
    for made in (decode, build):
        made["frames_per_second"] = round(made["frames"] / made["seconds"], 1)
    ratio = build["frames_per_second"] / decode["frames_per_second"]
    return {"decode": decode, "build": build, "build_over_decode": round(ratio, 3)}


def rates(root: pathlib.Path, seconds: float = 3.0) -> dict:
    """{view: examples and frames per processor second, of the record sets below `root`}."""
    found = {}
    for view in FRAMES:
        try:
            batches = loader.dataset({"root": root}, "train", view, 32, seed=0)
        except kinds.RecordError:
            if (root / views.VIEWS[view].kind).exists():
                raise
            continue
        for _ in range(loader.PREFETCH + 1):  # files are open, and the buffer is full
            next(batches)
        began, busy, count = time.perf_counter(), time.process_time(), 0
        while time.perf_counter() - began < seconds:
            next(batches)
            count += 32
        each = count / (time.process_time() - busy)
        batches.close()
        found[view] = {"examples": round(each), "frames": round(each * FRAMES[view])}
    if not found:
        raise kinds.RecordError(f"{root}: holds no records that training reads")
    return found


def _parse(argv):
    parser = command.Parser(
        prog="python -m data_pipelines.benchmark",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--source", help="build: a folder of videos")
    what.add_argument("--loader", action="store_true", help="how fast batches are made")
    parser.add_argument("--size", type=int, default=128, help="side of the crops; default: 128")
    parser.add_argument("--copies", type=int, default=1, help="of --source; default: 1")
    parser.add_argument("--records", help="of --loader: a folder of record sets")
    return parser.parse_args(argv[1:])


def _rates(args):
    if args.records:
        return rates(pathlib.Path(args.records))
    views.KEEP_BYTES = 0  # sets of hours are larger than what is kept
    with tempfile.TemporaryDirectory() as scratch:
        grid = (args.size // CELL, args.size // CELL)
        sizes = {"size": args.size, "grid": grid, "audio_width": AUDIO_WIDTH}
        random_records.write(pathlib.Path(scratch), sizes | {"embedding": EMBEDDING})
        return rates(pathlib.Path(scratch))


def main(args):
    """Command line."""
    if args.loader:
        print("per processor second:", json.dumps(_rates(args), indent=1))
    else:
        print(json.dumps(run(pathlib.Path(args.source), args.size, args.copies), indent=1))


if __name__ == "__main__":
    app.run(lambda args: sys.exit(command.run("benchmark", main, args)), flags_parser=_parse)
