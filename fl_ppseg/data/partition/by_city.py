"""One client a city; fewer clients merge cities, more split them into contiguous shards."""

from fl_ppseg.data.partition.record import MIN_IMAGES
from fl_ppseg.data.partition.shards import Shards, describe_sizes, equal_parts, numbered
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.wording import counted


def deal_by_city(cities: Shards, num_clients: int) -> tuple[Shards, str]:
    """The shards of the clients, and a sentence that says what was done to the cities."""
    if num_clients < len(cities):
        return _merge(cities, num_clients)
    return _cut(cities, num_clients)


def _merge(cities: Shards, num_clients: int) -> tuple[Shards, str]:
    """Largest city first, each to the client that has the fewest images so far."""
    groups: list[list[str]] = [[] for _ in range(num_clients)]
    sizes = [0] * num_clients
    for city in sorted(cities, key=lambda name: (-len(cities[name]), name)):
        smallest = sizes.index(min(sizes))
        groups[smallest].append(city)
        sizes[smallest] += len(cities[city])
    if min(sizes) < MIN_IMAGES:
        raise InputError(
            f"{counted(num_clients, 'client')}: one would get a single image and needs at least "
            f"{MIN_IMAGES} (one held out); ask for fewer clients or --set partition.kind=iid"
        )
    named = sorted((_merged_name(sorted(group)), group) for group in groups)
    shards = {name: [image for city in group for image in cities[city]] for name, group in named}
    return shards, (
        f"{counted(num_clients, 'client')} for {counted(len(cities), 'city')}: cities are merged, "
        f"{describe_sizes(sizes)} images each"
    )


def _merged_name(cities: list[str]) -> str:
    if len(cities) <= 3:
        return "+".join(cities)
    return f"{cities[0]}+{cities[1]}+{len(cities) - 2}-more"


def _cut(cities: Shards, num_clients: int) -> tuple[Shards, str]:
    """Contiguous shards of cities, sizes within a city differing by one image at most."""
    numbers = _shards_per_city(cities, num_clients)
    shards = {
        name: part
        for city, number in numbers.items()
        for name, part in zip(
            numbered(city, number), equal_parts(cities[city], number), strict=True
        )
    }
    return shards, _describe_cut(numbers)


def _shards_per_city(cities: Shards, num_clients: int) -> dict[str, int]:
    """As many shards a city as divides; what is left goes to the largest shards, one by one."""
    most = {city: len(images) // MIN_IMAGES for city, images in cities.items()}
    if num_clients > sum(most.values()) or min(most.values()) < 1:
        smallest = min(cities, key=lambda city: len(cities[city]))
        raise InputError(
            f"{counted(num_clients, 'client')} for {counted(len(cities), 'city')} of which "
            f"{smallest!r} has {counted(len(cities[smallest]), 'image')}; each client needs at "
            f"least {MIN_IMAGES} of one city (one held out), so ask for fewer clients or --set "
            "partition.kind=iid"
        )
    numbers = {city: min(num_clients // len(cities), most[city]) for city in cities}
    while sum(numbers.values()) < num_clients:
        able = [city for city in cities if numbers[city] < most[city]]
        largest = max(able, key=lambda city: len(cities[city]) / numbers[city])
        numbers[largest] += 1
    return numbers


def _describe_cut(numbers: dict[str, int]) -> str:
    total, most, fewest = sum(numbers.values()), max(numbers.values()), min(numbers.values())
    if most == 1:
        return f"{counted(total, 'client')}, one city each"
    head = f"{counted(total, 'client')} for {counted(len(numbers), 'city')}"
    if most == fewest:
        return f"{head}: every city is split into {most} contiguous shards"
    split = [f"{city} into {number}" for city, number in numbers.items() if number > 1]
    if len(split) <= 3:
        return f"{head}: split into contiguous shards are {', '.join(split)}"
    return f"{head}: cities are split into {fewest} to {most} contiguous shards, large ones first"
