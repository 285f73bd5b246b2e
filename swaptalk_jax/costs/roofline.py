"""A lower bound of a step's time on a chip (roofline model)."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Bound:
    """Seconds that a call takes at least: by its FLOPs, its memory traffic, its collectives."""

    compute: float
    memory: float
    interconnect: float

    @property
    def seconds(self):
        """The longest of the three: all could overlap, as far as this bound knows."""
        return max(self.compute, self.memory, self.interconnect)

    @property
    def by(self):
        """Which of the three it is."""
        return max(("compute", "memory", "interconnect"), key=lambda name: getattr(self, name))


def roofline(costs, chip, devices):
    """Bound of a call on `devices` devices of a chips.Chip.

    Collectives by the bytes each device has to send at least, on a ring: 2 (n - 1) / n payloads of
    an all-reduce, (n - 1) / n of a gather, scatter or all-to-all, 1 of a permutation; over all
    links at once, without latency.
    """
    share = (devices - 1) / devices
    sends = {"all-reduce": 2 * share, "collective-permute": 1.0 if devices > 1 else 0.0}
    sent = sum(sends.get(kind, share) * c.bytes for kind, c in costs.collectives.items())
    return Bound(
        compute=costs.flops / chip.peak_flops,
        memory=costs.bytes / chip.hbm_bandwidth,
        interconnect=sent / chip.link_bandwidth,
    )
