"""The metrics, one file each.

A metric is a function (pipe, split) -> (numbers, examples, pictures): {name: value},
{name: examples}, {section of the report: {"Worst eighth" and so on: rows of pictures}}.
`reconstruction` comes first, as it makes the gallery that others ask.
"""

from swaptalk_jax.evaluation.metrics.id_retrieve import swap
from swaptalk_jax.evaluation.metrics.lip_expert import expert
from swaptalk_jax.evaluation.metrics.lip_opening import lips
from swaptalk_jax.evaluation.metrics.mouth import joint, sync
from swaptalk_jax.evaluation.metrics.perceptual import lpips
from swaptalk_jax.evaluation.metrics.reconstruction import latent_space
from swaptalk_jax.evaluation.metrics.second_opinion import dlib_retrieval

ALL = (latent_space, expert, swap, lpips, dlib_retrieval, sync, joint, lips)
