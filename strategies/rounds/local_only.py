"""Training without federation: the lower bound of a comparison."""

from collections.abc import Iterable, Sequence
from typing import ClassVar

from flwr.app import Message

from fl_ppseg.federation.checkpoint_file import OF_CITY
from fl_ppseg.federation.message_content import Reply
from fl_ppseg.setr.names import withheld
from fl_ppseg.system.arrays import Arrays
from strategies.rounds.city_strategy import CityStrategy
from strategies.rounds.registry import Member
from strategies.rounds.tasks import Task


class LocalOnlyStrategy(CityStrategy):
    """Every city trains alone; each model is scored at home and in all val cities.

    Holds the weights of all cities: O(n) memory. Cities that connect after round 1 have no model.
    """

    are_weights_common: ClassVar = False

    def begin_round(self) -> None:
        """Give every city the initial weights in round 1; later each has its own."""
        if not self.checkpoint().is_per_city:
            self.weights = {
                f"{member.city}{OF_CITY}{name}": value
                for member in super().trainers()
                for name, value in self.weights.items()
            }

    def trainers(self) -> Sequence[Member]:
        """The nodes of the cities that have a model of their own."""
        cities = {name.partition(OF_CITY)[0] for name in self.weights}
        return [member for member in super().trainers() if member.city in cities]

    def weights_for(self, member: Member) -> Arrays:
        """The city's own weights."""
        start = f"{member.city}{OF_CITY}"
        return {k.removeprefix(start): v for k, v in self.weights.items() if k.startswith(start)}

    def fold(self, replies: Iterable[Message]) -> None:
        """Replace each city's weights by its update; a city with a bad reply keeps those it had."""
        kept = withheld(self.run.request.embedding)
        allowed = self.weights_for(self.trainers()[0]).keys() - kept

        def take(task: Task, reply: Reply) -> None:
            if not reply.num_examples:
                self._warn_left_out(task)
                return
            self.check_reply(task, reply, {name: task.arrays[name] for name in allowed})
            start = f"{task.member.city}{OF_CITY}"
            self.weights |= {f"{start}{name}": value for name, value in reply.arrays.items()}

        self.exchange.collect_updates(replies, allowed, take)

    def evaluations(self) -> list[Task]:
        """Each city's model at home and in every val city."""
        trainers, val = self.trainers(), self.run.discovery.registry.with_role("val")
        weights = {member.city: self.weights_for(member) for member in trainers}
        at_home = [Task(member, weights[member.city], member.city) for member in trainers]
        away = [Task(member, weights[city], city) for member in val for city in weights]
        return at_home + away
