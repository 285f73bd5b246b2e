"""What all stages share: folders, the order in which stages need one another, loop defaults.

Sizes are other numbers for the same code:

- `paper` (the default): 512 px, the paper's networks, for TPU pods and CUDA nodes.
- `small`: 128 px, for real clips on one GPU or, patiently, a CPU.
- `tiny`: 64 px on the embedded synthetic set, minutes on 2 cores. Builds what is missing upstream.
- `micro`: 32 px, seconds; for the tests, its pictures show nothing.
"""

from ml_collections import ConfigDict

from swaptalk_jax.models import registry

IMAGE_SIZE = {"paper": 512, "small": 128, "tiny": 64, "micro": 32}


def size_name(size):
    """Checks the part after the colon of --config=configs/x.py:size."""
    size = size or "paper"
    if size not in IMAGE_SIZE:
        raise ValueError(f"size {size!r}: one of {', '.join(IMAGE_SIZE)}")
    return size


def config(stage, size):
    """A config without model, loss and step counts.

    Paths hang together by `root`: every stage finds the others below it.
    """
    root = f"runs/{size}"
    c = ConfigDict()
    c.stage, c.size, c.seed = stage, size, 0
    c.root = root
    c.workdir = f"{root}/{stage}"
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
    c.remat = False  # compute blocks again on the way back instead of keeping what they made
    c.compile_cache = f"{root}/compiled"  # what XLA made, so that a restart is fast; "": none
    c.data = {
        # frames, clips, triples (data_pipelines.build); codes, swaps (swaptalk_jax.encode)
        "root": f"{root}/data" if stage in ("identity", "vqgan") else f"{root}/codes",
        "extra": (),  # (root, weight) of more sets to train on, see data_pipelines/loading/roots.py
        "workers": 0 if size in ("tiny", "micro", "small") else 8,
        "flip": stage == "vqgan",  # never where identity matters: faces are not symmetric
        "resident": False,  # codes and features lie on the devices, cut over the mesh
        "window": 5,  # frames that the expert sees (chosen)
        "context": 5,  # frames of sound that one frame of lips hears (chosen)
        "features": "log_mel",
        "eval_examples": {"paper": 1024, "small": 128, "tiny": 256, "micro": 4}[size],
    }
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
    c.build_upstream = size in ("tiny", "micro")
    c.upstream = ()
    return c


def complete(c):
    """Gives c.model every field of its networks, at its default where the config sets none."""
    c.model = {slot: registry.section(slot, **fields) for slot, fields in c.model.items()}


def adam(lr, b1=0.9, b2=0.999, warmup=0, clip=0.0, decay=False):
    """One optimizer group; clip is a global norm (0 = none), decay a cosine to zero."""
    return {
        "lr": lr,
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


def needs(c, *names):
    """What must stand before a stage can run: the path that tells, the command that makes it."""
    suffix = "" if c.size == "paper" else f":{c.size}"
    stages = {
        name: (
            f"{c.root}/{name}/params.safetensors",
            f"python -m swaptalk_jax.train --config=configs/{name}.py{suffix}",
        )
        for name in ("identity", "vqgan", "expert", "swap")
    }
    known = {
        "data": (f"{c.root}/data/triples/1.0.0/dataset_info.json", data_command(c)),
        "codes": (
            f"{c.root}/codes/encode.json",
            f"python -m swaptalk_jax.encode --config=configs/vqgan.py{suffix} --out={c.root}/codes",
        ),
        **stages,
    }
    # The slot tells which of config.frozen the network is: another one there takes its place.
    slots = {"identity": "recogniser", "vqgan": "vqgan", "expert": "expert"}
    c.upstream = tuple(
        ConfigDict({"path": known[n][0], "command": known[n][1], "slot": slots.get(n, "")})
        for n in names
    )


def data_command(c):
    """The command that makes the face shards."""
    size = IMAGE_SIZE[c.size]
    command = f"python -m data_pipelines.build --out={c.root}/data --size={size}"
    if c.size == "tiny":
        return (
            f"{command} --source=synthetic --identities=424 --val_identities=24 --clips=2"
            " --frames=16 --triples=2400"
        )
    if c.size == "micro":
        return (
            f"{command} --source=synthetic --identities=6 --val_identities=2 --frames=20"
            " --clips=2 --triples=16 --val_triples=4 --frame_size=96"
        )
    return f"{command} --source=<folder of videos>"
