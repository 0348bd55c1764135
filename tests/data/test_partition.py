import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fl_ppseg.data.partition.partitioner import make_partition
from fl_ppseg.data.partition.record import Partition, PartitionKind, SceneRef
from fl_ppseg.system.errors import InputError

TRUE_SIZES = {
    "strasbourg": 365, "bremen": 316, "hamburg": 248, "dusseldorf": 221, "stuttgart": 196,
    "hanover": 196, "aachen": 174, "cologne": 154, "tubingen": 144, "weimar": 142, "zurich": 122,
    "jena": 119, "erfurt": 109, "krefeld": 99, "bochum": 96, "ulm": 95, "monchengladbach": 94,
    "darmstadt": 85,
}  # fmt: skip
KINDS: tuple[PartitionKind, ...] = ("by-city", "iid", "dirichlet")


def scenes_of(sizes: dict[str, int]) -> dict[str, list[SceneRef]]:
    return {city: [(city, f"{city}_{i:06}") for i in range(n)] for city, n in sizes.items()}


CITYSCAPES = scenes_of(TRUE_SIZES)


@st.composite
def requests(draw: st.DrawFn) -> tuple[dict[str, list[SceneRef]], int, PartitionKind, float, int]:
    sizes = draw(st.lists(st.integers(2, 30), min_size=1, max_size=8))
    num_clients = draw(st.integers(1, sum(size // 2 for size in sizes)))
    alpha = 10.0 ** draw(st.integers(-12, 6))
    scenes = scenes_of({f"city{i}": size for i, size in enumerate(sizes)})
    return scenes, num_clients, draw(st.sampled_from(KINDS)), alpha, draw(st.integers(0, 2**31))


@settings(max_examples=30)
@given(requests(), st.randoms(use_true_random=False))
def test_laws_of_every_partition(request, random) -> None:
    scenes, num_clients, kind, alpha, seed = request
    partition = make_partition(scenes, num_clients, kind, alpha, seed)
    dealt = Counter(image for images in partition.clients.values() for image in images)
    assert dealt == Counter(image for images in scenes.values() for image in images)
    assert len(partition.clients) == num_clients
    assert all(list(images) == sorted(images) for images in partition.clients.values())
    for client, images in partition.clients.items():
        train, held_out = partition.split(client)
        assert train and held_out and train + held_out == images
        assert len(held_out) == max(1, len(images) // 10)

    shuffled = {city: random.sample(images, len(images)) for city, images in scenes.items()}
    shuffled = dict(random.sample(list(shuffled.items()), len(shuffled)))
    again = make_partition(shuffled, num_clients, kind, alpha, seed)
    assert again == partition and list(again.clients) == list(partition.clients)
    restored = Partition.from_json(partition.to_json())
    assert restored == partition and list(restored.clients) == list(partition.clients)


def test_eighteen_clients_are_the_cities() -> None:
    partition = make_partition(CITYSCAPES, 18)
    assert {name: len(images) for name, images in partition.clients.items()} == TRUE_SIZES
    assert partition.description == "18 clients, one city each"


def test_144_clients_are_eight_contiguous_shards_a_city() -> None:
    partition = make_partition(CITYSCAPES, 144)
    for city, images in CITYSCAPES.items():
        shards = [partition.clients[f"{city}-{i}"] for i in range(1, 9)]
        assert [image for shard in shards for image in shard] == images
        assert max(map(len, shards)) - min(map(len, shards)) <= 1
    assert "every city is split into 8" in partition.description


def test_the_nineteenth_client_splits_the_largest_city() -> None:
    partition = make_partition(CITYSCAPES, 19)
    assert set(partition.clients) == set(TRUE_SIZES) - {"strasbourg"} | {
        "strasbourg-1",
        "strasbourg-2",
    }
    assert partition.description.startswith("19 clients for 18 cities")
    assert "strasbourg into 2" in partition.description


def test_small_cities_split_less_when_they_must() -> None:
    partition = make_partition(scenes_of({"big": 20, "tiny": 2}), 6)
    assert Counter(name.split("-")[0] for name in partition.clients) == {"big": 5, "tiny": 1}


def test_fewer_clients_merge_cities_in_balance() -> None:
    partition = make_partition(scenes_of({"aachen": 6, "bochum": 4, "cologne": 9}), 2)
    assert {name: len(images) for name, images in partition.clients.items()} == {
        "aachen+bochum": 10,
        "cologne": 9,
    }
    assert "merged" in partition.description
    sizes = [len(images) for images in make_partition(CITYSCAPES, 5).clients.values()]
    assert max(sizes) / min(sizes) < 1.1  # 2975 images; the largest city alone is 365


def test_iid_clients_are_equal_in_size_and_mixed() -> None:
    partition = make_partition(CITYSCAPES, 18, "iid", seed=1)
    assert {len(images) for images in partition.clients.values()} == {165, 166}
    assert all(len({city for city, _ in images}) >= 15 for images in partition.clients.values())
    assert make_partition(CITYSCAPES, 18, "iid", seed=2).clients != partition.clients


def main_city_share(alpha: float) -> float:
    """Mean share of a client's most frequent city."""
    partition = make_partition(CITYSCAPES, 18, "dirichlet", alpha, seed=0)
    shares = [
        max(Counter(city for city, _ in images).values()) / len(images)
        for images in partition.clients.values()
    ]
    return float(np.mean(shares))


def test_alpha_goes_from_one_city_a_client_to_iid() -> None:
    shares = [main_city_share(alpha) for alpha in (0.01, 1.0, 1000.0)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.5  # exactly 1 only while no city runs out
    assert shares[-1] < 0.25  # strasbourg's share of all images is 0.12


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_clients", [0, -3, 6])
def test_impossible_numbers_of_clients_are_refused(kind: PartitionKind, num_clients: int) -> None:
    with pytest.raises(InputError, match=f"^{num_clients} clients .*(at least|at most)"):
        make_partition(scenes_of({"a": 5, "b": 6}), num_clients, kind)


def test_a_city_of_one_image_cannot_be_a_client_but_can_join_one() -> None:
    scenes = scenes_of({"a": 9, "b": 1})
    with pytest.raises(InputError, match="'b' has 1 image;"):
        make_partition(scenes, 2)
    assert list(make_partition(scenes, 1).clients) == ["a+b"]
    with pytest.raises(InputError, match="single image"):
        make_partition(scenes_of({"a": 9, "b": 1, "c": 1, "d": 1}), 3)


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan"), float("inf")])
def test_alpha_out_of_range_is_refused(alpha: float) -> None:
    with pytest.raises(InputError, match="alpha"):
        make_partition(CITYSCAPES, 18, "dirichlet", alpha)


def test_city_names_that_clash_with_shards_lose_no_image() -> None:
    with pytest.raises(InputError, match="clash"):
        make_partition(scenes_of({"a": 20, "a-1": 4}), 3)


def broken(**changes: object) -> str:
    document = json.loads(make_partition(scenes_of({"a": 4, "b": 4}), 2).to_json())
    return json.dumps(document | changes)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        broken(schema=2),
        broken(kind="by-colour"),
        broken(clients={}),
        broken(clients={"a": {"a": ["x"]}}),
        broken(clients={"a": {"a": ["x", "y"]}, "b": {"a": ["y", "z"]}}),
        broken(clients={"a": ["x", "y"]}),
        broken(extra=1),
    ],
)
def test_a_corrupt_file_is_one_line(text: str) -> None:
    with pytest.raises(InputError) as caught:
        Partition.from_json(text, source="runs/x/partition.json")
    message = str(caught.value)
    assert message.startswith("runs/x/partition.json: ") and "\n" not in message
