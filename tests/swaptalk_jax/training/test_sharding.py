"""The same training on one device, on eight, and with the state cut over them."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from places import ROOT

# Eight devices have to be asked for before JAX starts, so each of these runs in its own process.
RUN = """
import json, jax, jax.numpy as jnp, numpy as np
from ml_collections import ConfigDict
from swaptalk_jax.configs import common
from swaptalk_jax.training import optim, sharding, step

class Stage:
    def init(self, rng, batch):
        first, second = jax.random.split(rng)
        hidden = {"kernel": 0.1 * jax.random.normal(first, (24, 64))}
        out = {"kernel": 0.1 * jax.random.normal(second, (64, 24)), "bias": jnp.zeros(24)}
        return {"net": {"hidden": hidden, "out": out}, "age": jnp.zeros(8)}

    def loss(self, params, frozen, batch, rng, step):
        x = jnp.tanh(batch["x"] @ params["net"]["hidden"]["kernel"])
        found = x @ params["net"]["out"]["kernel"] + params["net"]["out"]["bias"]
        noise = jax.random.normal(rng, batch["x"].shape)
        error = jnp.mean(jnp.square(found - batch["x"] - 0.1 * noise))
        return error, ({"error": error}, {"seen": batch["x"][:, :8]})

    def after_update(self, params, aux, rng):
        return params | {"age": params["age"] + aux["seen"][3]}, {}

    def averaged(self, params):
        return {"net": params["net"]}

c = common.config("identity", "micro")
c.optimizer.default = common.muon(0.02, 0.01)
c.optimizer.constant = ("age",)
c.train.update(steps=6, batch_size=16, ema=0.9)
c.update(ConfigDict(%s))
mesh, stage, key = sharding.make_mesh(c.mesh), Stage(), jax.random.key(0)
batches = np.random.default_rng(0).normal(size=(6, 16, 24)).astype(np.float32)
tx = optim.optimizer(c.optimizer, 6, 8, jax.eval_shape(stage.init, key, None))
init = lambda: step.initial(stage, tx, c, key, None)
layout = sharding.layout(mesh, jax.eval_shape(init), c.sharding)
state = jax.jit(init, out_shardings=layout)()
make = step.make_step(stage, tx, c, sharding.Split(16, mesh))
update = jax.jit(make, donate_argnums=0, out_shardings=(layout, None))
rows = []
for batch in batches:
    state, metrics = update(state, {}, sharding.place({"x": batch}, mesh))
    rows.append([float(metrics[k]) for k in ("loss", "gradient_norm")])

def bytes_here(tree):
    device = jax.devices()[0]
    shards = [s for x in jax.tree.leaves(tree) for s in x.addressable_shards]
    return sum(s.data.nbytes for s in shards if s.device == device)

known = {"params": bytes_here(state.params), "opt_state": bytes_here(state.opt_state)}
known["kernel"] = np.asarray(state.best["net"]["out"]["kernel"]).tolist()
print(json.dumps({"devices": mesh.size, "rows": rows, "age": state.params["age"].tolist()} | known))
"""
CUT = {"params": True, "opt_state": True, "min_size": 256}


def run(devices, **config):
    """What RUN tells of a training on so many CPU devices."""
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", RUN % repr(config)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["devices"] == devices
    return found


@pytest.fixture(scope="module")
def alone():
    return run(1)


def same(found, expected):
    np.testing.assert_allclose(found["rows"], expected["rows"], rtol=1e-4)
    np.testing.assert_allclose(found["kernel"], expected["kernel"], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found["age"], expected["age"], rtol=1e-6)
    assert expected["rows"][-1][0] < expected["rows"][0][0]


def test_eight_devices_train_as_one_does(alone):
    found = run(8)
    same(found, alone)
    assert (found["params"], found["opt_state"]) == (alone["params"], alone["opt_state"])


def test_a_state_that_is_cut_over_the_devices_trains_as_a_whole_one(alone):
    found = run(8, sharding=CUT)
    same(found, alone)
    # All but the bias, the ages and the counters are cut in eight.
    assert found["params"] < alone["params"] / 7
    assert found["opt_state"] < alone["opt_state"] / 6


def test_optimizer_state_can_be_cut_alone(alone):
    found = run(2, sharding=CUT | {"params": False})
    same(found, alone)
    assert found["params"] == alone["params"]
    assert found["opt_state"] < 0.55 * alone["opt_state"]
