"""Names that become paths, a type each: of runs, arms, cells, clients. None leaves its folder."""

import re
from typing import Annotated, Final

from pydantic import AfterValidator, AliasChoices, Field

from fl_ppseg.config.client_names import deployed_name, is_client_name
from fl_ppseg.config.run_layout import TAKEN
from fl_ppseg.system.errors import InputError

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+=-]{0,126}")
"""What a name may be: a part of a path on every file system, never `.`, `..` or hidden."""


def check_name(name: str) -> str:
    """The name itself, if it can be a part of a path.

    Raises:
        ValueError: It cannot; the text says what a name is made of.
    """
    if not NAME.fullmatch(name):
        raise ValueError(
            f"{name[:80]!r} is not a valid name: expected up to 127 letters, digits, dots, "
            f"dashes, underscores, + "
            "and =, the first a letter or digit"
        )
    return name


def _check_arm_id(name: str) -> str:
    if name.lower() in TAKEN:
        raise ValueError(f"{name!r} is reserved in a run folder; choose another name")
    return check_name(name)


def _client(name: str) -> str:
    if not is_client_name(name):
        raise ValueError(f"expected the name of a client, got {ascii(name)[:60]}")
    return name


def _deployed(name: str) -> str:
    try:
        return deployed_name(name)
    except InputError as error:
        raise ValueError(str(error)) from None


Name = Annotated[str, AfterValidator(check_name)]
ArmId = Annotated[str, AfterValidator(_check_arm_id)]
ClientName = Annotated[str, AfterValidator(_client)]
"""Of a folder, a shard, a policy."""
ClientOrCity = Annotated[ClientName, Field(validation_alias=AliasChoices("client", "city"))]
"""The field `client` of files that earlier versions wrote as `city`, and that must stay readable:
they lead an owner to the keys and salts without which ciphertexts are lost."""
DeployedName = Annotated[str, AfterValidator(_deployed)]
"""Of owners on machines of their own."""
