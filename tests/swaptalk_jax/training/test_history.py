"""What a run says of itself."""

import threading
from types import SimpleNamespace

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
    history.counting.join()
    told = capsys.readouterr().out.splitlines()
    assert "1,000 parameters" in told[0] and "step compiled in 1.0 s" in told[0]
    assert len(told) == 2 and "FLOPs unknown (ValueError: " in told[1]
    assert history.speed(1) == {}
    speed = history.speed(2)
    assert speed["steps_per_second"] > 0
    assert not {"teraflops_per_device", "share_of_peak"} & speed.keys()


def test_steps_do_not_wait_for_the_compilers_text_to_be_read(capsys):
    read = threading.Event()

    def costs():
        assert read.wait(60)
        return SimpleNamespace(flops=2e9, memory=None)

    history = History(identity.get_config("micro"), start=0)
    history.compiled(1.0, costs, 1000)  # returns, though nothing is read yet
    history.speed(1)
    assert "teraflops_per_device" not in history.speed(2)
    read.set()
    history.counting.join()
    assert "a step: 2 GFLOP and ? GiB a device" in capsys.readouterr().out
    assert history.speed(3)["teraflops_per_device"] > 0
