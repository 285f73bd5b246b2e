"""How much of a frame the latent space keeps."""

import numpy as np

from swaptalk_jax.evaluation.gallery import Gallery
from swaptalk_jax.evaluation.metrics.colour import background_hue
from swaptalk_jax.evaluation.metrics.psnr import psnr
from swaptalk_jax.evaluation.renders import ENROLLED, FRAMES, SHOWN
from swaptalk_jax.evaluation.tally import Tally, chunks, eighths, spread


def edges_of_cells(images, cell):
    """Mean difference of neighbours over borders of cells by that inside of them: [n s s 3] -> [n].

    images: uint8; cell: pixels of a cell's side, 2 or more. A measure of block artefacts (after
    Wang, Bovik and Evan 2000); 1 where the grid cannot be seen.
    """
    total = []
    for axis in (1, 2):
        steps = np.abs(np.diff(images.astype(np.float32), axis=axis)).mean((3 - axis, 3))
        border = np.arange(1, images.shape[axis]) % cell == 0
        total.append((steps[:, border].mean(1), steps[:, ~border].mean(1)))
    across, within = np.sum(total, axis=0)
    return (across + 1e-3) / (within + 1e-3)


def latent_space(pipe, validation):
    """vqgan/psnr: dB between a frame and its reconstruction. blockiness: how much the grid of cells
    shows in it, 1 as in the frame. background_hue: as of colour.background_hue. codes_used_*: share
    of a codebook's rows in use over the whole set. recogniser/retrieval: of frames, in the gallery
    made here.
    """
    tally, pictures = Tally(), []
    codes = np.concatenate([clip["codes"] for clip in validation.clips])
    place = np.concatenate([c["first"] + np.arange(len(c["codes"])) for c in validation.clips])
    embeddings, identities = [], []
    for rows in chunks(spread(len(validation.frames), ENROLLED), pipe.batch_size):
        images, frames = validation.images(rows)
        embeddings.append(pipe.embed(images))
        identities += [int(frame["identity"]) for frame in frames]
    embeddings, identities = np.concatenate(embeddings), np.asarray(identities)
    validation.gallery = Gallery(embeddings, identities)
    tally.add({"recogniser/retrieval": validation.gallery.nearest(embeddings) == identities})

    picked = spread(len(codes), FRAMES)
    for rows in chunks(picked, pipe.batch_size):
        images, frames = validation.images(place[rows])
        results = pipe.decode(pipe.lookup(codes[rows]))
        cell = images.shape[1] // codes.shape[1]
        shows = edges_of_cells(results, cell) / edges_of_cells(images, cell)
        points = [frame["landmarks"] for frame in frames]
        tally.add(
            {
                "vqgan/psnr": psnr(images, results),
                "vqgan/blockiness": shows,
                "vqgan/background_hue": background_hue(images, results, points),
            }
        )
        pictures += zip(images, results, strict=True)
    shape = pipe.config["model"]["vqgan"]
    middle, known = codes.shape[1] // 2, shape["codes"] * shape.get("depth", 1)
    used = {
        "vqgan/codes_used_upper": len(np.unique(codes[:, :middle])) / known,
        "vqgan/codes_used_lower": len(np.unique(codes[:, middle:])) / known,
    }
    return (
        tally.means() | used,
        tally.counts(),
        {"reconstruction": eighths(-np.concatenate(tally.values["vqgan/psnr"]), pictures, SHOWN)},
    )
