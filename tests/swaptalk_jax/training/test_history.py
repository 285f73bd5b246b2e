"""What a run says of itself."""

import pytest

from configs import identity
from swaptalk_jax.costs import count
from swaptalk_jax.training.history import History

GARBAGE = "HloModule m\nENTRY main {\n  ROOT x = f32[] frobnicate(, backend=@@\n"


def test_an_unknown_compilers_text_costs_a_run_no_more_than_the_number(capsys):
    def costs():
        return count.costs_of_text(GARBAGE)

    with pytest.raises(ValueError):  # plans and --scaling must not go on with a wrong number
        costs()
    history = History(identity.get_config("micro"), start=0)
    history.compiled(1.0, costs, 1000)
    told = capsys.readouterr().out
    assert told.count("\n") == 1 and "FLOPs unknown (ValueError: " in told
    assert history.speed(1) == {}
    speed = history.speed(2)
    assert speed["steps_per_second"] > 0
    assert not {"teraflops_per_device", "share_of_peak"} & speed.keys()
