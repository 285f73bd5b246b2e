"""The embedded set: procedural talking heads with exact ground truth. NumPy only.

`sample_identity` and `sample_clip` are pure functions of (seed, index); `render` draws any
identity in any clip's state, so the truth of a face swap is render(source identity, target state)
and the truth of lip-sync is the clip's own mouth. `write` makes video files with sound through
the same code that reads users' files.

    python -c "from data_pipelines.synthetic import sampling
    sampling.write('D/videos', identities=24)"

Drawing is in face.py on canvas.py, geometry in head.py, speech in
speech.py.
"""

import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from fractions import Fraction
from functools import cached_property, partial
from pathlib import Path

import numpy as np

from data_pipelines import files
from data_pipelines.rates import SAMPLE_RATE
from data_pipelines.synthetic import speech
from data_pipelines.synthetic.face import render
from data_pipelines.synthetic.head import Identity, State, ramp

__all__ = [
    "SyntheticClip",
    "Identity",
    "State",
    "clip_of",
    "render",
    "render_frame",
    "sample_clip",
    "sample_identity",
    "write",
]

VERSION = 1  # of the drawing and the voice; a folder of another version is not continued
MARK = {"synthetic": "drawn by data_pipelines.synthetic"}  # what a drawn video says of itself
_STRATA = 16  # identities in a block spread evenly over every trait's range
_MOTION = ("yaw", "pitch", "roll", "x", "y", "scale", "gaze_x", "gaze_y", "smile", "brow")


@dataclass(frozen=True)
class SyntheticClip:
    """One talking head over time: who (identity), how it moves, what it says, where it stands.

    parameters: the arguments of sample_clip that make this clip again, JSON-able. motion
    float32 [t 11]: the columns named by State's yaw, pitch, roll, x, y, scale, gaze_x, gaze_y,
    smile, brow, then blink. mouth float32 [t 5]: columns speech.MOUTH, at the middle of each
    frame, (i + 0.5) / fps. scene: State's light, tint, backdrop, blobs, clothes, collar.
    """

    parameters: dict
    identity: Identity
    motion: np.ndarray
    mouth: np.ndarray
    scene: dict
    speech: speech.Speech

    @property
    def fps(self) -> int:
        return self.parameters["fps"]

    @cached_property
    def audio(self) -> np.ndarray:
        """float32 [round(frames / fps * 16000)] in [-1, 1] at 16 kHz: the identity's voice."""
        p = self.parameters
        bearded = ramp(self.identity.beard, 0.66, 0.78)  # as drawn: a beard speaks lower
        return speech.synthesise(
            self.speech,
            round(len(self) * SAMPLE_RATE / self.fps),
            pitch=85 * 2 ** (1.5 * self.identity.voice_pitch * (1 - 0.5 * bearded)),  # to 240 Hz
            tract=0.86 + 0.30 * self.identity.voice_tract,
            breath=self.identity.voice_breath,
            rng=_rng(p["seed"], p["identity"], p["clip"], 5),
        )

    def __len__(self) -> int:
        return len(self.motion)

    def state(self, i: int) -> State:
        """All of the clip at frame i but the identity; draw any identity in it with `render`."""
        motion = dict(zip((*_MOTION, "blink"), map(float, self.motion[i]), strict=True))
        mouth = dict(zip(speech.MOUTH, map(float, self.mouth[i]), strict=True))
        return State(**motion, **mouth, **self.scene)


def sample_identity(seed: int, index: int) -> Identity:
    """The person number `index` of set `seed`.

    Every trait is uniform in [0, 1]; within each block of 16 consecutive indices a trait visits
    each sixteenth of its range once (a Latin hypercube), so small sets cover it too.
    """
    block, place = divmod(index, _STRATA)
    traits = len(fields(Identity))
    order = _rng(seed, 1, block).permuted(np.tile(np.arange(_STRATA), (traits, 1)), axis=1)
    jitter = _rng(seed, 2, index).random(traits)
    return Identity(*map(float, (order[:, place] + jitter) / _STRATA))


def sample_clip(
    seed: int, identity_index: int, clip_index: int, frames: int = 50, fps: int = 25
) -> SyntheticClip:
    """SyntheticClip number `clip_index` of a person: a pure function of its arguments.

    More frames continue the same clip. Sound and motion do not depend on the picture's size.
    Raises ValueError where frames or fps is below 1.
    """
    if frames < 1 or fps < 1:
        raise ValueError(f"synthetic.sample_clip: frames {frames}, fps {fps}; both must be >= 1")
    key = (seed, identity_index, clip_index)
    times = (np.arange(frames) + 0.5) / fps
    said = speech.sample_speech(_rng(*key, 3), frames / fps + 0.5)
    return SyntheticClip(
        parameters=dict(
            seed=seed, identity=identity_index, clip=clip_index, frames=frames, fps=fps
        ),
        identity=sample_identity(seed, identity_index),
        motion=np.concatenate(
            [_motion(_rng(*key, 4), times), _blinks(_rng(*key, 6), times)[:, None]], 1
        ).astype(np.float32),
        mouth=speech.mouth_track(said, times),
        scene=_scene(_rng(*key, 7)),
        speech=said,
    )


def clip_of(parameters: dict) -> SyntheticClip:
    """The clip of a manifest row's "synthetic" entry."""
    p = parameters
    return sample_clip(p["seed"], p["identity"], p["clip"], p["frames"], p["fps"])


def render_frame(clip: SyntheticClip, i: int, size: int | tuple[int, int]):
    """Frame i of a clip -> (uint8 [h w 3], float32 [68 2]), see `render`."""
    return render(clip.identity, clip.state(i), size)


def _rng(*key: int) -> np.random.Generator:
    return np.random.default_rng(key)


def _motion(rng: np.random.Generator, times: np.ndarray) -> np.ndarray:
    """Columns _MOTION at times [t]: a pose per clip and slow waves about it -> [t 10]."""
    degree = np.pi / 180
    base = np.array([0, 0, 0, 0, 0.46, 0.237, 0, 0, 0.15, 0])
    clip = np.array([11 * degree, 5 * degree, 4 * degree, 0.06, 0.025, 0.028, 0.25, 0.15, 0.4, 0.5])
    wave = np.array([8 * degree, 4 * degree, 4 * degree, 0.02, 0.012, 0.006, 0.45, 0.2, 0.2, 0.5])
    track = base + clip * rng.uniform(-1, 1, 10)
    for low, high, part in ((0.1, 0.3, 0.55), (0.4, 0.7, 0.3), (0.8, 1.2, 0.15)):
        rate, phase = rng.uniform(low, high, 10), rng.random(10)
        track = track + part * wave * np.sin(2 * np.pi * (rate * times[:, None] + phase))
    return track


def _blinks(rng: np.random.Generator, times: np.ndarray) -> np.ndarray:
    """Blink in [0, 1] at times [t]: 0.2 s each, every 1.5 to 5 s."""
    blink, at = np.zeros(len(times)), rng.uniform(0.2, 3.5)
    while at < times[-1] + 1:
        blink = np.maximum(blink, np.exp(-(((times - at) / 0.075) ** 4)))
        at += rng.uniform(1.5, 5.0)
    return blink


def _scene(rng: np.random.Generator) -> dict:
    """Light, background and clothes of a clip, as State's fields."""
    angle, hue = rng.uniform(-2.6, -0.5), rng.random()
    wall = _colour(hue, rng.uniform(0.08, 0.45), rng.uniform(0.25, 0.85))
    floor = _colour(hue + rng.uniform(-0.1, 0.1), rng.uniform(0.1, 0.5), rng.uniform(0.2, 0.7))
    warmth, gain = rng.uniform(-0.05, 0.05), rng.uniform(0.88, 1.05)
    blobs = tuple(
        (
            *map(float, (rng.uniform(-0.6, 0.6), rng.uniform(0, 0.9), rng.uniform(0.08, 0.25))),
            *map(float, rng.uniform(-0.25, 0.3) * np.array(_colour(rng.random(), 0.5, 1.0))),
        )
        for _ in range(4)
    )
    return dict(
        light=(float(np.cos(angle)), float(np.sin(angle)), float(rng.uniform(0.35, 0.85))),
        tint=(float(gain * (1 + warmth)), float(gain), float(gain * (1 - warmth))),
        backdrop=(wall, floor),
        blobs=blobs,
        clothes=_colour(rng.random(), rng.uniform(0.1, 0.75), rng.uniform(0.2, 0.8)),
        collar=float(rng.random()),
    )


def _colour(hue: float, saturation: float, value: float) -> tuple[float, float, float]:
    """HSV in [0, 1] -> RGB in [0, 1]."""
    wheel = np.clip(np.abs((hue * 6 + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1, 0, 1)
    return tuple(map(float, value * (1 - saturation * (1 - wheel))))


def write(
    out: str | Path,
    seed: int = 0,
    identities: int = 24,
    clips: int = 4,
    frames: int = 50,
    size: int | tuple[int, int] = 160,
    fps: int = 25,
    val: float = 0.2,
    workers: int = 1,
) -> Path:
    """Write the set as video files with sound; returns the manifest's path.

    <out>/<identity>/<clip>.mp4, `<clip>.landmarks.npz` beside it (float32 [frames 68 2]), and, last
    and atomically, <out>/manifest.json: rows {"file", "identity", "split", "synthetic"}, where
    "synthetic" holds the arguments for `clip_of`, and "height", "width". The last `val` of
    the identities are split "val", the others "train". Restartable: clips whose files stand are
    kept, and a set can grow in identities and clips. workers > 1 spawns that many processes, so
    a script must call this under `if __name__ == "__main__"`. Raises ValueError where `out` holds
    a set of another seed, size or length.
    """
    out, size = Path(out), (size, size) if isinstance(size, int) else tuple(size)
    out.mkdir(parents=True, exist_ok=True)
    _claim(out, dict(version=VERSION, seed=seed, frames=frames, fps=fps, size=list(size)))
    first_val = identities - round(val * identities)
    rows = [
        {
            "file": file_of(who, clip),
            "identity": f"{who:04d}",
            "split": "train" if who < first_val else "val",
            "synthetic": dict(
                seed=seed,
                identity=who,
                clip=clip,
                frames=frames,
                fps=fps,
                height=size[0],
                width=size[1],
            ),
        }
        for who in range(identities)
        for clip in range(clips)
    ]
    if workers > 1:
        context = multiprocessing.get_context("spawn")  # forking a process that holds jax deadlocks
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            list(pool.map(partial(_write_clip, out), rows, chunksize=4))
    else:
        for row in rows:
            _write_clip(out, row)
    return _write_json(out / "manifest.json", rows)


def file_of(identity: int, clip: int) -> str:
    """Where `write` puts a clip, below its folder."""
    return f"{identity:04d}/{clip:03d}.mp4"


def _claim(out: Path, settings: dict) -> None:
    """Note what a folder's files are made of, so that a restart never mixes two sets."""
    note = out / "synthetic.json"
    if note.exists() and (held := json.loads(note.read_text())) != settings:
        raise ValueError(f"{out} holds another synthetic set ({held}); take an empty folder")
    _write_json(note, settings)


def _write_json(path: Path, content) -> Path:
    files.replace_text(path, json.dumps(content, indent=1))
    return path


def _write_clip(out: Path, row: dict) -> None:
    """Render one clip unless both its files stand; the video comes last, it is the larger."""
    from data_pipelines.faces import landmarks
    from data_pipelines.media import write_video  # PyAV is not needed to sample and render

    path, p = out / row["file"], row["synthetic"]
    beside = path.with_suffix(".landmarks.npz")
    if path.exists() and beside.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    clip = clip_of(p)
    drawn = [render_frame(clip, i, (p["height"], p["width"])) for i in range(len(clip))]
    landmarks.save_landmarks(beside, np.stack([points for _, points in drawn]))
    pictures, sound = (image for image, _ in drawn), (clip.audio, SAMPLE_RATE)
    write_video.write_video(path, pictures, Fraction(clip.fps), sound, MARK)
