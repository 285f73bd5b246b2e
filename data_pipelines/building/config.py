"""What to build, and whether it was built before."""

import dataclasses
import json
import pathlib

from data_pipelines.errors import SwapTalkError
from data_pipelines.faces import quality
from data_pipelines.people.identities import SAME


class BuildError(SwapTalkError, ValueError):
    """One clear line: what cannot be built, where, what to do."""


@dataclasses.dataclass(frozen=True)
class Config:
    """What to build; the fields from `identities` on are of the synthetic set alone."""

    out: str
    source: str = ""  # a folder of videos and stills, or "synthetic"
    manifest: str = ""  # see listing.from_manifest; its files are in `source`, or else beside it
    lists: str = ""  # a folder of HDTF's published lists, whose videos are in `source`
    size: int = 64  # side of the crops in pixels
    proxy: str = ""  # exact | classical | inswapper; "": exact for the synthetic set
    proxy_model: str = ""  # of inswapper: its ONNX file
    proxy_recogniser: str = ""  # of inswapper: the ONNX file of the recogniser it was trained with
    triples: int = 1000  # of the train split
    val_triples: int = 240
    max_seconds: float = 10.0  # longer videos become several clips (paper: 10 s); 0: never
    # Clips of which it cannot be told how late their sound is: refuse | keep. They are kept, too,
    # where the videos are too few to know what is in step (av_offset.ANCHORS).
    unsure: str = "refuse"
    same_face: float = SAME  # distance under which faces are one person; 0: by names
    silent: str = "frames"  # of videos without sound: frames (and no clips) | refuse
    # Whose a still of a folder is that no manifest names: folder (of the folder in which it lies;
    # directly in --source, of its own) | image (each of its own, as in FFHQ).
    stills: str = "folder"
    seed: int = 0
    workers: int = 1  # processes; 1: this one
    gates: quality.Gates = quality.Gates()
    identities: int = 24
    val_identities: float = 0.2  # a share, or from 1 on a number
    clips: int = 4  # of each identity
    frames: int = 50  # of each clip, at 25 fps
    frame_size: int = 160  # side of the videos in pixels


def settings_of(config):
    """What the shards depend on, as build.json keeps it."""
    made = config.source == "synthetic"
    if (
        not (config.source or config.manifest)
        or (made and (config.manifest or config.lists))
        or (config.lists and (config.manifest or not config.source))
    ):
        raise BuildError(
            "give --source=synthetic, or a folder as --source, alone or with --lists (HDTF's),"
            " or a --manifest (JSON)"
        )
    if config.unsure not in ("refuse", "keep"):
        raise BuildError(f"--unsure={config.unsure}: there are refuse and keep")
    if config.silent not in ("frames", "refuse"):
        raise BuildError(f"--silent={config.silent}: there are frames and refuse")
    if config.stills not in ("folder", "image"):
        raise BuildError(f"--stills={config.stills}: there are folder and image")
    settings = dataclasses.asdict(config)
    settings["proxy"] = config.proxy or ("exact" if made else "classical")
    for name in ("out", "workers"):
        settings.pop(name)
    for name in ("source", "manifest", "lists", "proxy_model", "proxy_recogniser"):
        if settings[name] and not (made and name == "source"):
            settings[name] = str(pathlib.Path(settings[name]).resolve())
    if made:
        for name in ("silent", "stills"):
            settings.pop(name)
    else:
        for name in ("identities", "val_identities", "clips", "frames", "frame_size"):
            settings.pop(name)
    return settings


def finished(out, settings):
    """The summary when this was built before. Raises BuildError when something else was."""
    try:
        stored = json.loads((out / "build.json").read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise BuildError(f"{out / 'build.json'} is broken ({error}); take an empty --out") from None
    before = stored["settings"]
    if before != settings:
        names = sorted(k for k in before.keys() | settings if before.get(k) != settings.get(k))
        differ = ", ".join(f"{k} was {before.get(k)} and is {settings.get(k)}" for k in names)
        raise BuildError(f"{out} holds another build ({differ}); take another --out, or delete it")
    return stored.get("summary")
