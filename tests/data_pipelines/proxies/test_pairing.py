"""Pairs: fair to all people, of like pose and light, the same on every run."""

import collections
import pickle

import numpy as np
import pytest
import record_sets

from data_pipelines.proxies import choice, pairing
from data_pipelines.records import kinds

PEOPLE, CLIPS, FRAMES = 6, 3, 40


def runs(seed=0, pose=True, light=True, people=PEOPLE):
    """Clips of people who look one way each and turn their heads, each clip in its own light."""
    rng, found = np.random.default_rng(seed), []
    for identity in range(people):
        usual = rng.normal(0, 15, 3)
        for _ in range(CLIPS + identity):  # of some there is more
            count = FRAMES + 10 * identity
            turned = np.float32(usual + rng.normal(0, 8, (count, 3)))
            lit = np.float32(rng.normal([0.5, 0, 0], [0.1, 0.05, 0.05]))
            found.append(
                pairing.Run(
                    identity,
                    sum(run.count for run in found),
                    count,
                    {"clip": len(found)},
                    turned if pose else None,
                    lit if light else None,
                )
            )
    return found


def apart(pairs, found):
    """|difference| of (yaw, pitch, luma, left-right, top-bottom) of each pair: [n 5]."""
    pose = np.concatenate([run.pose[:, :2] for run in found])
    light = np.concatenate([np.repeat(run.light[None], run.count, 0) for run in found])
    look = np.concatenate([pose, light], axis=1)
    sources, targets = ([getattr(p, name) for p in pairs] for name in ("source", "target"))
    return np.abs(look[sources] - look[targets])


def test_the_same_seed_gives_the_same_pairs_in_any_order_of_clips():
    pairs = pairing.plan(runs(), 100, (1, 0))
    assert len(pairs) == 100
    assert pairing.plan(runs()[::-1], 100, (1, 0)) == pairs
    assert pairing.plan(runs(), 100, (1, 1)) != pairs


def test_a_longer_plan_begins_like_a_shorter_one_in_whole_rounds():
    """So more triples can be asked for without making the first ones anew."""
    assert pairing.plan(runs(), 240, (0,))[:120] == pairing.plan(runs(), 120, (0,))


def test_pairs_name_frames_of_their_identities_and_how_to_draw_them():
    found = runs()
    owner = np.concatenate([np.full(run.count, run.identity) for run in found])
    clip = np.concatenate([np.full(run.count, run.synthetic["clip"]) for run in found])
    for pair in pairing.plan(found, 200, (0,)):
        assert pair.source_identity != pair.target_identity
        assert owner[pair.source] == pair.source_identity
        assert owner[pair.target] == pair.target_identity
        assert clip[pair.source] == pair.source_synthetic["clip"]
        assert clip[pair.target] == pair.target_synthetic["clip"]


def test_everybody_is_source_and_target_equally_often_whatever_they_have_of_clips():
    pairs = pairing.plan(runs(), 60 * PEOPLE, (0,))
    for role in ("source_identity", "target_identity"):
        counts = collections.Counter(getattr(pair, role) for pair in pairs)
        assert set(counts.values()) == {60}


@pytest.mark.parametrize("known, columns", [("pose", [0, 1]), ("light", [2, 3, 4])])
def test_most_pairs_look_the_same_way_or_stand_in_the_same_light(known, columns):
    found = runs()
    chance = apart(pairing.plan(runs(pose=False, light=False), 600, (0,)), found)[:, columns]
    only = runs(pose=known == "pose", light=known == "light")
    chosen = apart(pairing.plan(only, 600, (0,)), found)[:, columns]
    assert chosen.mean() < 0.75 * chance.mean()  # with the quarter that is left to chance
    both = apart(pairing.plan(found, 600, (0,)), found)[:, columns]
    assert both.mean() < 0.95 * chance.mean()


def test_a_quarter_is_left_to_chance_so_every_two_people_meet():
    found = runs()
    pairs = pairing.plan(found, 1200, (0,))
    met = collections.Counter((p.source_identity, p.target_identity) for p in pairs)
    assert len(met) == PEOPLE * (PEOPLE - 1)
    rounds = apart(pairs, found)[:, :2].sum(1).reshape(-1, pairing.CHANCE, PEOPLE)
    assert rounds[:, -1].mean() > 2 * rounds[:, :-1].mean()


def test_targets_are_frames_of_all_clips():
    pairs = pairing.plan(runs(), 1200, (0,))
    seen = {pair.target_synthetic["clip"] for pair in pairs}
    assert len(seen) == len(runs())
    last = runs()[-1]
    own = [p.target for p in pairs if p.target_synthetic["clip"] == last.synthetic["clip"]]
    assert min(own) < last.first + 0.2 * last.count
    assert max(own) > last.first + 0.8 * last.count


@pytest.mark.parametrize("pose, light", [(False, False), (True, False), (False, True)])
def test_what_is_unknown_keeps_nobody_apart(pose, light):
    pairs = pairing.plan(runs(pose=pose, light=light), 600, (0,))
    met = collections.Counter((p.source_identity, p.target_identity) for p in pairs)
    assert len(met) == PEOPLE * (PEOPLE - 1)


def test_a_frame_without_a_pose_is_like_any_other():
    found = runs()
    found[0].pose[:] = np.nan
    assert len(pairing.plan(found, 60, (0,))) == 60


def test_two_people_swap_with_each_other_and_one_with_nobody():
    pairs = pairing.plan(runs(people=2), 21, (0,))
    assert len(pairs) == 21
    assert {(p.source_identity, p.target_identity) for p in pairs} == {(0, 1), (1, 0)}
    assert pairing.plan(runs(people=1), 10, (0,)) == []
    assert pairing.plan([], 10, (0,)) == []


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    """Two people of one frame each; the second one's landmarks are in one point."""
    root, rng = tmp_path_factory.mktemp("frames"), np.random.default_rng(0)
    good = np.float32(rng.uniform(8, 56, (68, 2)))
    with record_sets.Writer(root, "frames", {"size": 64, "identities": ["a", "b"]}) as writer:
        for identity, points in ((0, good), (1, np.full_like(good, 30))):
            image = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
            writer.write(
                "train",
                {
                    "image": kinds.encode_image(image),
                    "landmarks": points,
                    "matrix": np.eye(2, 3, dtype=np.float32),
                    "identity": identity,
                    "clip": "c",
                    "frame": 0,
                },
            )
    return root


def test_a_pair_that_cannot_be_swapped_is_none_and_the_others_stand(frames):
    onto_good = pairing.Pair(0, 0, 0, 0, None, None)
    onto_point = pairing.Pair(0, 1, 0, 1, None, None)
    results = pairing.swap(frames, "train", choice.make("classical"), [onto_good, onto_point])
    assert results[1] is None
    assert kinds.decode_image(results[0]).shape == (64, 64, 3)


@pytest.mark.parametrize("name", ["exact", "classical"])
def test_swappers_travel_to_workers(name):
    swapper = choice.make(name)
    assert pickle.loads(pickle.dumps(swapper)) is swapper
