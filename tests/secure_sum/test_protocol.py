"""The whole protocol in one process: sums, losses at every step, liars, and what nobody learns."""

import copy
import pickle

import numpy as np
import pytest
from summed_cohort import SESSION, SHAPES, SummedCohort, secret_of

from fl_ppseg.secure_sum.errors import SumError
from fl_ppseg.secure_sum.node import Released, Seat, advertise, deal, unmask
from fl_ppseg.secure_sum.node_secret import NodeSecret
from fl_ppseg.secure_sum.roster import Roster, check_roster

STEPS = ("advertise", "share", "train", "confirm", "unmask")


def lost_at(step: str, cohort: SummedCohort, number: int) -> tuple[tuple[str, ...], ...]:
    names = tuple(cohort.secrets)[1::3][:number]
    return tuple(names if name == step else () for name in STEPS)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("number", [0, 2, 6])
def test_the_sum_is_exact_whoever_is_lost_at_whatever_step(step: str, number: int) -> None:
    cohort = SummedCohort(18)
    lost = lost_at(step, cohort, number)
    total, ring = cohort.run(lost)
    clients = set(cohort.secrets) - {*lost[0], *lost[1], *lost[2]}
    assert set(total.survivors) == clients
    found = dict(total.decode(ring))
    for name, value in cohort.expected(ring, clients).items():
        assert (found[name] == value).all()
    mean = sum(cohort.updates[c]["weight"] * cohort.examples[c] for c in clients)
    num = sum(cohort.examples[c] for c in clients)
    worst = ring.worst_error(len(clients), num)
    assert 0 < np.abs(found["weight"] / num - mean / num).max() <= worst * (1 + 1e-6)


def test_some_lost_at_every_step() -> None:
    cohort = SummedCohort(18)
    names = tuple(cohort.secrets)
    total, ring = cohort.run((names[:1], names[1:2], names[2:4], names[4:5], names[5:6]))
    for name, value in cohort.expected(ring, names[4:]).items():
        assert (dict(total.decode(ring))[name] == value).all()


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("share", "shares: expected at least 12 of the 18 clients of the roster, got 11"),
        ("train", "updates: expected at least 12 of the 18 clients of the roster, got 11"),
        ("confirm", "expected the signatures of at least 12 of them for this set, got 11"),
        ("unmask", "secrets of city000: expected 12 shares of a secret, got 11"),
    ],
)
def test_below_the_threshold_there_is_no_sum(step: str, words: str) -> None:
    cohort = SummedCohort(18)
    names = tuple(cohort.secrets)[11:]
    lost = tuple(names if name == step else () for name in STEPS)
    with pytest.raises(SumError, match=words):
        cohort.run(lost)


@pytest.mark.parametrize(("size", "threshold"), [(2, 2), (3, 2), (4, 3), (18, 12), (144, 96)])
def test_the_threshold_withstands_less_than_a_third(size: int, threshold: int) -> None:
    roster = SummedCohort(size).roster()
    assert roster.threshold == threshold
    colluding = -(-size // 3) - 1
    assert 2 * threshold > size + colluding  # no two kinds of share for one client
    assert threshold > colluding


def test_a_node_that_got_other_weights_turns_the_sum_into_noise() -> None:
    cohort = SummedCohort(18)
    total, ring = cohort.run(weights={"city004": "crafted"})
    with pytest.raises(SumError, match="the masks did not cancel"):
        dict(total.decode(ring))
    words = np.concatenate([each.ravel() for each in total._total.values()])
    assert (words > 2**30).mean() > 0.4  # uniform: 3 of 4


def test_what_a_node_sends_is_noise_to_the_coordinator() -> None:
    """With its own mask or with all of its pairs' masks taken off, an update still is."""
    cohort = SummedCohort(18)
    cohort.updates = {c: {k: np.zeros(s) for k, s in SHAPES.items()} for c in cohort.updates}
    roster = cohort.roster()
    sent = cohort.masked("city003", roster, roster.names, "common")
    words = np.concatenate([value.ravel() for value in sent.values()])
    assert len(np.unique(words)) == words.size  # zeros before they were masked
    again = cohort.masked("city003", roster, roster.names, "common")
    assert all((sent[name] == again[name]).all() for name in sent)


def test_no_session_reuses_a_mask() -> None:
    first, second = (
        SummedCohort(3),
        SummedCohort(3, session=SESSION.__class__("9", "plain", 0, 1, 0)),
    )
    one, two = (c.masked("city000", c.roster(), c.roster().names, "w") for c in (first, second))
    assert not any((one[name] == two[name]).any() for name in one)


def refused(cohort: SummedCohort, roster: Roster, words: str) -> None:
    own = cohort.adverts()[0]
    with pytest.raises(SumError, match=words):
        check_roster(roster, SESSION, cohort.keys, own, cohort.least)


def test_a_forged_signature_is_refused() -> None:
    cohort = SummedCohort(4)
    adverts = cohort.adverts()
    swapped = adverts[2].model_copy(update={"mask_key": adverts[1].mask_key})
    roster = Roster(adverts=(*adverts[:2], swapped, adverts[3]))
    refused(cohort, roster, "the keys of city002 are not signed by its cohort key")


def test_a_signature_counts_in_its_own_session_alone() -> None:
    cohort = SummedCohort(4)
    for change in ({"round": 2}, {"attempt": 1}, {"arm": "other"}, {"seed": 1}, {"run_id": "x"}):
        session = SESSION.__class__(**{**SESSION.__dict__, **change})
        other = SummedCohort(4, session=session)
        refused(cohort, Roster(adverts=(cohort.adverts()[0], *other.adverts()[1:])), "not signed")


def test_a_client_that_the_owner_does_not_know_is_refused() -> None:
    cohort = SummedCohort(4)
    made_up = advertise(secret_of(99), "zzz", SESSION, 5)
    refused(cohort, Roster(adverts=(*cohort.adverts(), made_up)), "zzz is not in the cohort")


def test_a_coordinator_cannot_play_the_other_clients() -> None:
    """17 of 18 with keys of its own: their cohort keys are not those that the owner knows."""
    cohort = SummedCohort(18)
    own, *others = cohort.adverts()
    played = [advertise(secret_of(500 + n), o.client, SESSION, 10) for n, o in enumerate(others)]
    refused(cohort, Roster(adverts=(own, *played)), "city001 are not signed by its cohort key")


def test_a_cohort_below_the_least_is_refused() -> None:
    cohort = SummedCohort(4, least=4)
    refused(cohort, Roster(adverts=tuple(cohort.adverts()[:3])), "at least 4 clients, got 3")
    alone = SummedCohort(1, least=1)
    refused(alone, alone.roster(), "at least 2 clients, got 1")


def test_a_roster_without_this_nodes_own_keys_is_refused() -> None:
    cohort = SummedCohort(5)
    refused(cohort, Roster(adverts=tuple(cohort.adverts()[1:])), "does not hold this node's own")


def test_a_roster_is_sorted_and_names_each_client_once() -> None:
    adverts = SummedCohort(3).adverts()
    for wrong in (adverts[::-1], [adverts[0], *adverts]):
        with pytest.raises(ValueError, match="distinct clients, sorted by name"):
            Roster(adverts=tuple(wrong))


def test_a_node_gives_one_kind_of_share_for_each_peer() -> None:
    cohort = SummedCohort(18)
    roster = cohort.roster()
    sealed = {p: deal(cohort.seat(p, roster)).shares["city000"] for p in roster.names[1:]}
    found = unmask(cohort.seat("city000", roster), roster.names[:12], sealed)
    assert set(found.self_seeds) == set(roster.names[:12])
    assert set(found.mask_keys) == set(roster.names[12:])


def test_shares_open_for_their_receiver_alone() -> None:
    cohort = SummedCohort(4)
    roster = cohort.roster()
    sealed = deal(cohort.seat("city001", roster)).shares["city002"]
    found = unmask(cohort.seat("city000", roster), roster.names, {"city001": sealed})
    assert set(found.self_seeds) == {"city000"}
    with pytest.raises(SumError, match="shares of the other clients"):
        unmask(cohort.seat("city000", roster), roster.names, {"city000": sealed})


@pytest.mark.parametrize("kind", ["self_seeds", "mask_keys"])
def test_a_client_that_lies_about_shares_is_noticed(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort = SummedCohort(6)

    def lying(seat: Seat, survivors: tuple[str, ...], sealed: dict[str, str]) -> Released:
        released = unmask(seat, survivors, sealed)
        if seat.client != "city000":
            return released
        shares = {peer: "00" * 66 for peer in getattr(released, kind)}
        return released.model_copy(update={kind: shares})

    monkeypatch.setattr("summed_cohort.unmask", lying)
    with pytest.raises(
        SumError, match=r"city00\d.* (wrong: it, or one that gave|not of one secret)"
    ):
        cohort.run(((), (), ("city005",), (), ()))


def test_an_update_counts_once_and_has_the_models_form() -> None:
    cohort = SummedCohort(3)
    total, _ = cohort.run()
    update = {name: np.zeros(shape, np.uint32) for name, shape in SHAPES.items()}
    with pytest.raises(SumError, match="added before"):
        total.add("city000", update, 1)
    with pytest.raises(SumError, match="other array names"):
        total.add("new", {"bias": update["bias"]}, 1)
    with pytest.raises(SumError, match="weight: expected uint32"):
        total.add("new", update | {"weight": np.zeros((4, 5), np.float32)}, 1)


def test_secrets_have_no_text_and_do_not_travel() -> None:
    secret = NodeSecret(bytes(range(32)))
    content = bytes(range(32)).hex()
    assert content not in repr(secret)
    assert secret.public_key in repr(secret)
    for travel in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="neither pickled nor copied"):
            travel(secret)
    cohort = SummedCohort(3)
    roster = cohort.roster()
    dealt = {name: deal(cohort.seat(name, roster)) for name in roster.names}
    sealed = {peer: d.shares["city000"] for peer, d in dealt.items() if peer != "city000"}
    released = unmask(cohort.seat("city000", roster), roster.names, sealed)
    for each in (*dealt.values(), released):
        assert "shares" not in repr(each)
        assert "seeds" not in repr(each)


def test_nothing_that_is_sent_holds_a_secret() -> None:
    """Every byte of the answers of a round, against every private value in hex."""
    cohort = SummedCohort(5)
    roster = cohort.roster()
    seat = cohort.seat("city001", roster)
    digest = roster.digest(SESSION)
    private = [
        seat.secret.to_hex(),
        seat.secret.mask_key(SESSION).private_bytes_raw().hex(),
        seat.secret.share_key(SESSION).private_bytes_raw().hex(),
        seat.secret.self_seed(digest).hex(),
    ]
    sealed = {
        p: deal(cohort.seat(p, roster)).shares["city001"] for p in roster.names if p != "city001"
    }
    sent = [
        roster.model_dump_json(),
        deal(seat).model_dump_json(),
        unmask(seat, roster.names, sealed).model_dump_json(),
        *(
            value.tobytes().hex()
            for value in cohort.masked("city001", roster, roster.names, "w").values()
        ),
    ]
    assert not any(value in text for value in private for text in sent)
    shares = [share.hex() for share in seat._shares()[0]]  # of the mask key: none is released
    assert not any(share in text for share in shares for text in sent)
