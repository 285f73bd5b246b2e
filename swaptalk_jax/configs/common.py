"""What all stages share: sizes, folders, what must stand before a stage runs, defaults of the loop.

Sizes are other numbers for the same code:

- `paper` (the default): 512 px, the paper's recipe with the public networks that it names.
- `open`: the same numbers; every network and the proxy are free for commercial use.
- `small`: 128 px, for real clips on one GPU or, patiently, a CPU.
- `live`: 256 px, 25 frames a second on 2 cores; on the embedded synthetic set. Builds what is
  missing upstream.
- `demo`: 128 px on the embedded synthetic set, an hour or two on 2 cores. Builds what is missing
  upstream.
- `tiny`: 64 px on the embedded synthetic set, minutes on 2 cores. Builds what is missing upstream.
- `micro`: 32 px, seconds; for the tests, its pictures show nothing.

Every folder hangs on `config.root`: `--config.root=X` moves all that was not set itself. Public
networks hang on `config.pretrained` instead. They are the same whatever is trained, so all roots
share one copy, at the place where `python -m swaptalk_jax.pretrained` puts it.

A number marked `ours` is one that the paper states and that our copy of its text has lost.
"""

from absl import flags
from ml_collections import ConfigDict, config_dict

# px of a side
IMAGE_SIZE = {
    "paper": 512,
    "open": 512,
    "small": 128,
    "live": 256,
    "demo": 128,
    "tiny": 64,
    "micro": 32,
}

# Public networks by slot. Elsewhere: our own recogniser, edge maps, log-mel.
PUBLIC = {
    "paper": {"recogniser": "arcface_r50", "perceptual": "vgg16", "speech": "hubert_base"},
    "open": {"recogniser": "sface", "perceptual": "stlpips", "speech": "whisper_tiny_en"},
}


def size_name(size):
    """The part after the colon of --config=configs/x.py:size, checked; none is "paper".

    Raises flags.Error: of a ValueError, ml_collections would tell the whole traceback.
    """
    size = size or "paper"
    if size not in IMAGE_SIZE:
        known = ", ".join(IMAGE_SIZE)
        raise flags.IllegalFlagValueError(f"there is no size {size!r}; the sizes are {known}")
    return size


def full(size):
    """Whether a size has the paper's numbers."""
    return size in PUBLIC


def by_size(size, **values):
    """The value of a size out of paper=, small=, live= and so on; `open` has the paper's."""
    return values["paper" if full(size) else size]


# The embedded set of a size.
SYNTHETIC = {
    "live": {
        "identities": 224,
        "val_identities": 24,
        "frames": 16,
        "triples": 1200,
        "frame_size": 480,  # an aligned crop has 0.55 of a frame's side
    },
    "demo": {
        "identities": 624,
        "val_identities": 24,
        "frames": 16,
        "triples": 20000,
        "frame_size": 240,
    },
    "tiny": {
        "identities": 424,
        "val_identities": 24,
        "frames": 16,
        "triples": 2400,
        "frame_size": 128,
    },
    "micro": {
        "identities": 6,
        "val_identities": 2,
        "frames": 20,
        "triples": 16,
        "val_triples": 4,
        "frame_size": 96,
    },
}


def config(stage, size):
    """A config without model, loss and step counts.

    Its paths are lazy: they follow `root` and `pretrained` until they are set themselves.
    """
    c = ConfigDict()
    c.stage, c.size, c.seed = stage, size, 0
    c.root = config_dict.FieldReference(f"runs/{size}")
    c.pretrained = config_dict.FieldReference("runs/pretrained")
    c.workdir = below(c, stage)
    c.mesh = {"data": -1}  # all devices
    # What is cut over the mesh instead of lying whole on every device; results stay the same.
    c.sharding = {
        "params": False,
        "opt_state": False,  # of the averages too
        "min_size": 2**16,  # elements; smaller arrays stay whole
    }
    c.distributed = False  # True: one of several processes (TPU pod, SLURM, several nodes)
    c.join_seconds = 300  # how long they wait for one another at the start
    c.precision = "auto"  # bfloat16 compute on TPU and GPU, float32 on CPU
    # Compute blocks again on the way back instead of keeping what they made: norms, activations and
    # attention's scores. remat_all: with remat, convolutions and dense layers too.
    c.remat = False
    c.remat_all = False
    c.compile_cache = below(c, "compiled")  # what XLA made, for a fast restart; "": none
    c.data = _data(c)
    c.train = {
        "log_every": 50,
        "eval_every": 500,
        "save_every": 500,
        "keep": 2,
        "accumulate": 1,  # microbatches, one after the other, that a batch is cut into
        "ema": 0.0,  # decay of running averages of the generator, which are then what is kept
        "hang_seconds": 1800,  # a step (or compiling it) that takes longer ends the run; 0: never
        "profile_step": 0,  # jax.profiler traces `profile_steps` steps from here on; 0: none
        "profile_steps": 3,
    }
    c.frozen = {}
    c.optimizer = {"default": adam(1e-4)}
    # What must stand first, in this order: "data", "codes" or stages. See training/upstream.py.
    c.needs = ()
    c.build_upstream = size in SYNTHETIC  # whether what is missing is built
    c.build = build(size)
    # What stages have to agree on, with its value here. The command that builds something upstream
    # carries those of these fields that were set to something else.
    c.agreed = (
        ("root", c.root),
        ("pretrained", c.pretrained),
        ("data.features", c.data.features),
        ("data.window", c.data.window),
    )
    return c


def _data(c):
    """What a stage reads, and how."""
    return {
        # frames, clips, triples (data_pipelines.build); codes, swaps (swaptalk_jax.encode)
        "root": below(c, "data" if c.stage in ("identity", "vqgan") else "codes"),
        "extra": (),  # (root, weight) of more sets to train on, see data_pipelines/loading/roots.py
        "workers": 8 if full(c.size) else 0,
        "flip": c.stage == "vqgan",  # never where identity matters: faces are not symmetric
        "resident": False,  # codes and features lie on the devices, cut over the mesh
        "window": 5,  # frames that the expert sees (chosen)
        "context": 5,  # tokens of sound (50 a second) on either side of a frame's middle (chosen)
        # A name, or the folder of a speech network. The paper hears by HuBERT.
        "features": public(c, "speech", "log_mel"),
        "eval_examples": by_size(
            c.size, paper=1024, small=128, live=128, demo=256, tiny=256, micro=4
        ),
    }


def distillation():
    """Whom a stage learns from beside the data: the folder of a finished run of the same stage.

    teacher: that folder; "": none. weight: of the difference from its results.
    """
    return {"teacher": "", "weight": 1.0}


def below(c, name):
    """The path of `name` below the root, which follows --config.root."""
    return c.get_ref("root") + f"/{name}"


def public(c, slot, without=""):
    """The folder of the public network that a size has in a slot; `without` where it has none."""
    name = PUBLIC.get(c.size, {}).get(slot)
    return c.get_ref("pretrained") + f"/{name}" if name else without


def recogniser(c):
    """The folder of the recogniser: the public one of the size, or our own."""
    return public(c, "recogniser", below(c, "identity"))


def adam(lr=0.0, b1=0.9, b2=0.999, warmup=0, clip=0.0, decay=False, lr_per_example=0.0):
    """One optimizer group.

    lr: the rate. lr_per_example: the rate is this x train.batch_size instead, and lr is 0.
    clip: a global norm (0: none). decay: a cosine to zero.
    """
    return {
        "lr": lr,
        "lr_per_example": lr_per_example,
        "b1": b1,
        "b2": b2,
        "warmup": warmup,
        "clip": clip,
        "decay": decay,
        "muon_lr": 0.0,
    }


def muon(muon_lr, lr, **options):
    """Muon for kernels, `adam` with `lr` for all else: for runs of minutes.

    On an earlier VQGAN's codes, tiny, unseen people: expert's accuracy after 450 steps 0.90, with
    Adam 0.85; sync had after 300 steps the L_code that Adam had after 480. The VQGAN learned no
    faster, and keeps Adam.
    """
    return adam(lr, **options) | {"muon_lr": muon_lr}


def build(size):
    """Options of data_pipelines.build that make a size's face shards.

    What stands in <> is for the user to fill in. The paper has 109,000 triples of HDTF, and Roop,
    whose network is inswapper, for its proxy.
    """
    options = {"size": IMAGE_SIZE[size]}
    if size in SYNTHETIC:
        return options | {"source": "synthetic", "clips": 2} | SYNTHETIC[size]
    if full(size):
        options |= {"triples": 109_000, "proxy": "classical"}
    if size == "paper":
        options |= {
            "proxy": "inswapper",
            "proxy_model": "<inswapper_128.onnx>",
            "proxy_recogniser": "<w600k_r50.onnx>",
        }
    return options | {"source": "<folder of videos>"}
