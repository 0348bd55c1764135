"""Training without federation: the lower bound of a comparison."""

from collections.abc import Iterable, Sequence
from typing import ClassVar

from flwr.app import Message

from fl_ppseg.federation.checkpoint_file import OF_CLIENT
from fl_ppseg.federation.message_content import Reply
from fl_ppseg.setr.names import withheld
from fl_ppseg.system.arrays import Arrays
from strategies.rounds.federated import FederatedStrategy
from strategies.rounds.registry import Member
from strategies.rounds.tasks import Task


class LocalOnlyStrategy(FederatedStrategy):
    """Every client trains alone; each model is scored at home and in all val clients.

    Holds the weights of all clients: O(n) memory. Clients that connect after round 1 have no model.
    """

    are_weights_common: ClassVar = False

    def begin_round(self) -> None:
        """Give every client the initial weights in round 1; later each has its own."""
        if not self.checkpoint().has_own_models:
            self.weights = {
                f"{member.client}{OF_CLIENT}{name}": value
                for member in super().trainers()
                for name, value in self.weights.items()
            }

    def trainers(self) -> Sequence[Member]:
        """The nodes of the clients that have a model of their own."""
        clients = {name.partition(OF_CLIENT)[0] for name in self.weights}
        return [member for member in super().trainers() if member.client in clients]

    def weights_for(self, member: Member) -> Arrays:
        """The client's own weights."""
        start = f"{member.client}{OF_CLIENT}"
        return {k.removeprefix(start): v for k, v in self.weights.items() if k.startswith(start)}

    def trainings(self, drawn: Sequence[Member]) -> list[Task]:
        """Each client trains its own model."""
        return [Task(member, self.weights_for(member)) for member in drawn]

    def fold(self, replies: Iterable[Message]) -> None:
        """Replace each client's weights by its update; after a bad reply it keeps those it had."""
        kept = withheld(self.run.request.embedding)
        allowed = self.weights_for(self.trainers()[0]).keys() - kept

        def take(task: Task, reply: Reply) -> None:
            if not reply.num_examples:
                self._warn_left_out(task)
                return
            self.check_reply(task, reply, {name: task.arrays[name] for name in allowed})
            start = f"{task.member.client}{OF_CLIENT}"
            self.weights |= {f"{start}{name}": value for name, value in reply.arrays.items()}

        self.exchange.collect_updates(replies, allowed, take)

    def evaluations(self) -> list[Task]:
        """Each client's model at home and in every val client."""
        trainers, val = self.trainers(), self.run.discovery.registry.with_role("val")
        weights = {member.client: self.weights_for(member) for member in trainers}
        at_home = [Task(member, weights[member.client], member.client) for member in trainers]
        away = [Task(member, weights[client], client) for member in val for client in weights]
        return at_home + away
