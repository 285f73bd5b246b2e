"""How fast a build is, beside a plain decode of the same files, and the memory it takes.

    python -m data_pipelines.benchmark --source=videos/ --size=128 --copies=8

Each measure is a process of its own on one core's worth of workers: `decode` reads every frame with
PyAV and throws it away; `build` makes shards of the files (without triples), from nothing. Prints
JSON: frames read and processor seconds of both, frames per processor second, their ratio, peak
MiB, and the frames that the gates kept.
--copies=N builds N copies of the files: the memory should not follow, nor the frames per second.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from absl import app
from absl.flags import argparse_flags

from data_pipelines import sources

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
        raise SystemExit(
            f"error: a measured process ended with {os.waitstatus_to_exitcode(status)}"
        )
    frames, seconds = int(told.split()[-1]), used.ru_utime + used.ru_stime
    return {"frames": frames, "seconds": round(seconds, 2), "mib": used.ru_maxrss // 1024}


def run(source: pathlib.Path, size: int, copies: int) -> dict:
    """Both measures of the videos below `source`, and their ratio."""
    paths = sources.video_files(source)
    if not paths:
        raise SystemExit(f"error: {source}: holds no video")
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


def _parse(argv):
    parser = argparse_flags.ArgumentParser(
        prog="python -m data_pipelines.benchmark",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--source", required=True, help="a folder of videos")
    parser.add_argument("--size", type=int, default=128, help="side of the crops; default: 128")
    parser.add_argument("--copies", type=int, default=1, help="default: 1")
    return parser.parse_args(argv[1:])


def main(args):
    """Command line."""
    print(json.dumps(run(pathlib.Path(args.source), args.size, args.copies), indent=1))


if __name__ == "__main__":
    app.run(main, flags_parser=_parse)
