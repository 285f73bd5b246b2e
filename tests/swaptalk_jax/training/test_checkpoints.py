"""Training states on disk: what is cut short is skipped, what does not fit is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from swaptalk_jax import errors
from swaptalk_jax.training import checkpoints, sharding


@pytest.fixture(scope="module")
def everywhere():
    return sharding.replicated(sharding.make_mesh({"data": -1}))


def state(step, everywhere):
    """A state whose every value is its step."""
    tree = {"a": jnp.full(4000, float(step)), "b": {"c": jnp.full((30, 30), step)}}
    return jax.device_put(tree | {"step": jnp.full((), step)}, everywhere)


def saved(folder, steps, everywhere):
    """Saves states, closes, and returns the layout to restore them by."""
    found = checkpoints.Checkpoints(folder, keep=3)
    for step in steps:
        found.save(step, state(step, everywhere))
    found.close()
    shapes = state(0, everywhere)
    return checkpoints.described(shapes, jax.tree.map(lambda _: everywhere, shapes))


def restored(folder, like):
    found = checkpoints.Checkpoints(folder, keep=3)
    step, tree = found.restore(like)
    found.close()
    return step, tree


def test_nothing_saved_is_step_0(tmp_path, everywhere):
    like = saved(tmp_path, [], everywhere)
    assert restored(tmp_path, like) == (0, None)


# Where Orbax keeps the values, and the files without which it cannot find them.
VITAL = ("d/", "manifest.ocdbt", "_METADATA")


def cut(name, data):
    """What is left of a file: half, nothing."""
    return {"half": data[: len(data) // 2], "empty": b""}[name]


@pytest.mark.parametrize("how", ["half", "empty"])
def test_a_checkpoint_cut_short_gives_way_to_the_one_before(tmp_path, everywhere, how, capsys):
    like = saved(tmp_path / "run", [5, 10], everywhere)
    root = tmp_path / "run" / "checkpoints" / "10"
    files = sorted(path for path in root.rglob("*") if path.is_file())
    assert sum(vital(path, root) for path in files) >= 3
    for i, path in enumerate(files):
        run = tmp_path / f"run{i}"
        copy(tmp_path / "run", run)
        copied = run / "checkpoints" / "10" / path.relative_to(root)
        copied.write_bytes(cut(how, path.read_bytes()))
        step, tree = restored(run, like)
        assert step == 5 or not vital(path, root)
        for leaf in jax.tree.leaves(tree):  # never a value that was not saved
            np.testing.assert_array_equal(leaf, step)
        told = capsys.readouterr().out
        assert ("step 10 is not whole, skipped" in told) == (step == 5)
        assert len(told.splitlines()) <= 1
        assert (run / "broken").exists() == (step == 5)
        if step == 5:  # the run comes by step 10 again
            saved(run, [10], everywhere)
            assert restored(run, like)[0] == 10


def vital(path, root):
    name = path.relative_to(root / "state").as_posix() if root / "state" in path.parents else ""
    return name.startswith(VITAL)


def copy(source, target):
    for path in source.rglob("*"):
        if path.is_file():
            to = target / path.relative_to(source)
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(path.read_bytes())


def test_the_only_checkpoint_cut_short_starts_anew(tmp_path, everywhere, capsys):
    like = saved(tmp_path, [5], everywhere)
    (tmp_path / "checkpoints" / "5" / "state" / "manifest.ocdbt").unlink()
    assert restored(tmp_path, like) == (0, None)
    assert "step 5 is not whole" in capsys.readouterr().out


def test_a_checkpoint_of_another_config_is_refused_and_stays(tmp_path, everywhere):
    like = saved(tmp_path, [5], everywhere)
    other = like | {"a": jax.ShapeDtypeStruct((4001,), jnp.float32, sharding=everywhere)}
    with pytest.raises(errors.CheckpointError, match="step 5 does not fit this config"):
        restored(tmp_path, other)
    assert restored(tmp_path, like)[0] == 5
