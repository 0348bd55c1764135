"""A client of Flower's SuperLink: nodes are registered, runs are submitted, followed, stopped.

Flower's `flwr` asks the same through the same client, but starts a process for every question.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import httpx
from flwr.app import UserConfig
from flwr.common.serde import fab_to_proto, user_config_from_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.proto.run_pb2 import Run
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

from fl_ppseg.flower.log_lines import LINK_FAILED, SERVER_APP_FAILED
from fl_ppseg.system.errors import RunError
from fl_ppseg.system.installation import installed_files


class NoAnswerError(RunError):
    """The SuperLink is unreachable or overloaded; try again."""


@dataclass(frozen=True)
class Node:
    """A node that the SuperLink knows."""

    node_id: int
    client: str
    is_online: bool
    public_key: bytes
    """In PEM."""


@dataclass(frozen=True)
class RunState:
    """State of a submitted run."""

    run_id: int
    status: str
    """pending, starting, running, finished"""
    outcome: str
    """completed, failed or stopped, once it is finished."""
    details: str
    """Why it failed."""
    run_dir: str
    """The run folder that it was submitted for."""

    @property
    def is_finished(self) -> bool:
        """Whether it has ended."""
        return self.status == "finished"

    @property
    def is_lost(self) -> bool:
        """Whether its process or the SuperLink failed, so that another attempt may go well."""
        by_the_app = self.details.startswith(SERVER_APP_FAILED) and LINK_FAILED not in self.details
        return not by_the_app and self.outcome != "stopped"

    @property
    def reason(self) -> str:
        """Why it failed, in one line; empty if no reason is known."""
        return " ".join(self.details.removeprefix(SERVER_APP_FAILED).split())


class SuperLink:
    """The SuperLink of a coordinator; use it in a `with`."""

    def __init__(self, address: str, authority: bytes | None, remedy: str) -> None:
        """Connect to a SuperLink.

        Args:
            address: host:port.
            authority: Certificates to trust, PEM; None: without TLS.
            remedy: What to do if it is unreachable, for the error message.
        """
        self._address = address
        self._remedy = remedy
        self._client = ControlHttpClient.from_server_address(
            address,
            insecure=authority is None,
            root_certificates=authority,
            interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def nodes(self) -> list[Node]:
        """All nodes that are registered."""
        with self._asking():
            found = self._client.ListNodes(ListNodesRequest()).nodes_info
        return [
            Node(n.node_id, n.name, n.status == "online", n.public_key)
            for n in found
            if n.status != "unregistered"
        ]

    def register(self, client: str, public_key: bytes) -> None:
        """Register the node with a public key (PEM)."""
        with self._asking():
            self._client.RegisterNode(RegisterNodeRequest(public_key=public_key, name=client))

    def unregister(self, node_id: int) -> None:
        """Unregister a node."""
        with self._asking():
            self._client.UnregisterNode(UnregisterNodeRequest(node_id=node_id))

    def submit(self, bundle: bytes, digest: str, config: UserConfig) -> int:
        """Start a run of an app; returns its id.

        Args:
            bundle: The app as Flower packs it.
            digest: SHA-256 of the bundle, in hex.
            config: Run config: keys that the bundle knows.
        """
        request = StartRunRequest(
            fab=fab_to_proto(Fab(digest, bundle, {})), override_config=user_config_to_proto(config)
        )
        with self._asking():
            answer = self._client.StartRun(request)
        if not answer.HasField("run_id"):
            raise RunError(
                f"the SuperLink did not start the run ({answer.note or 'no reason given'})"
            )
        return answer.run_id

    def run(self, run_id: int) -> RunState:
        """The state of a run."""
        with self._asking():
            return _state(self._client.ListRuns(ListRunsRequest(run_id=run_id)).run_dict[run_id])

    def runs(self) -> list[RunState]:
        """The newest runs, the last one first."""
        with self._asking():
            found = self._client.ListRuns(ListRunsRequest()).run_dict
        newest = sorted(found.values(), key=lambda run: run.pending_at, reverse=True)
        return [_state(run) for run in newest]

    def stop(self, run_id: int) -> None:
        """Stop a run."""
        with self._asking():
            self._client.StopRun(StopRunRequest(run_id=run_id))

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPStatusError as error:
            why = _refusal(error.response)
            if error.response.is_server_error:  # e.g. its database was locked
                raise NoAnswerError(f"the SuperLink has failed: {why}") from None
            raise RunError(f"the SuperLink refused: {why}") from None
        except httpx.HTTPError as error:
            raise NoAnswerError(
                f"no SuperLink answers at {self._address} ({type(error).__name__}); {self._remedy}"
            ) from None


def _refusal(response: httpx.Response) -> str:
    try:
        answer = json.loads(response.text)
        return " ".join(str(answer[key]) for key in ("detail", "extra") if key in answer)
    except (ValueError, TypeError):
        return f"HTTP {response.status_code}"


def _state(run: Run) -> RunState:
    config = user_config_from_proto(run.override_config)
    status = run.status
    return RunState(
        run.run_id, status.status, status.sub_status, status.details, str(config.get("run-dir", ""))
    )


def read_bundle(app: Path | None) -> bytes:
    """Pack the app as Flower ships it; equal files give equal bytes, installed or in a checkout.

    Args:
        app: A checkout, with its pyproject.toml; None: what a wheel has installed.
    """
    from flwr.cli.build import build_fab_from_disk, build_fab_from_files

    if app is None:
        return build_fab_from_files(installed_files())[0]
    return build_fab_from_disk(app)
