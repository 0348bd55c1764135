"""What this program relies on in Flower beyond its public names, held against what is installed.

Tried on the versions below. To go on to another: install it, run this file and those whose names
begin with test_deployment and test_node, then `python -m benchmarks.faults`, and add it here.
"""

import inspect
import pkgutil
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import flwr
import httpx
import pytest
from flwr.supernode import fleet_http_connection, start_client_internal

import fl_ppseg.flower
from fl_ppseg.flower import log_lines

TRIED = ("1.41.0",)
SOURCE = {path: path.read_text("utf-8") for path in Path(flwr.__path__[0]).rglob("*.py")}


def test_the_installed_version_was_tried() -> None:
    assert version("flwr") in TRIED


@pytest.mark.parametrize("name", [f.name for f in pkgutil.iter_modules(fl_ppseg.flower.__path__)])
def test_every_name_that_is_imported_from_flower_exists(name: str) -> None:
    import_module(f"fl_ppseg.flower.{name}")


def test_what_is_put_in_place_of_flowers_own_is_called_as_that_is() -> None:
    """By `fl_ppseg.flower.supernode.bound`."""
    connection = inspect.getsource(start_client_internal)
    assert "with _init_connection(" in connection
    assert "get_fused_config_from_fab(" in connection
    fields = connection.partition("with _init_connection(")[2].partition("as conn")[2]
    assert "receive, send, get_run, get_fab" in " ".join(fields.split())
    assert "FleetHttpClient.from_server_address(" in inspect.getsource(fleet_http_connection)
    client = fleet_http_connection.FleetHttpClient.from_server_address("h:1", True, None, [])
    assert isinstance(client._client, httpx.Client)


@pytest.mark.parametrize(
    ("lines", "file"),
    [
        ((log_lines.CONNECTED, *log_lines.MESSAGE_LOST, log_lines.REJECTED[1]), "supernode"),
        ((log_lines.SERVER_APP_FAILED,), "superlink"),
    ],
)
def test_flower_still_writes_the_lines_that_are_read(lines: tuple[str, ...], file: str) -> None:
    text = "".join(text for path, text in SOURCE.items() if file in path.parts)
    assert [line for line in lines if line not in text] == []


def test_the_code_of_a_node_that_is_not_admitted() -> None:
    from flwr.supercore.error.base import ApiErrorCode

    assert f"[code: {ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED.value}]" == log_lines.NOT_ACTIVATED


def test_a_superlink_that_fails_is_told_as_httpx_tells_it() -> None:
    response = httpx.Response(503, request=httpx.Request("POST", "http://link/"))
    with pytest.raises(httpx.HTTPStatusError) as told:
        response.raise_for_status()
    assert log_lines.LINK_FAILED in str(told.value)
