"""The one source of configuration: validated, frozen sections with a line of doc per field.

A config is made of the defaults of its sections, a YAML file (`--config`), `--set dotted.key=value`
and the named options of a command, in this order. Unknown or ill-typed keys are one-line errors
that name the key, the value got and what is possible. Ciphers are named by string: this package
knows none.
"""

from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.config.documents import parse_json, parse_yaml, read_bytes, read_text, read_yaml
from fl_ppseg.config.federation import FederationConfig, PrivacyConfig
from fl_ppseg.config.loading import (
    arms_of,
    assign,
    builtin_arms,
    config_for,
    config_of,
    configs_dir,
    described,
    dump_config,
    load_config,
    read_values,
    validate,
)
from fl_ppseg.config.names import ArmId, Name, check_name
from fl_ppseg.config.sealing import sealed
from fl_ppseg.config.section import Section
from fl_ppseg.config.sections import (
    CanonicalForm,
    Config,
    DataConfig,
    ModelConfig,
    PartitionConfig,
    TrainingConfig,
)
from fl_ppseg.config.unread import refuse_unread, unread_settings

__all__ = [
    "ArmConfig",
    "ArmId",
    "CanonicalForm",
    "Config",
    "DataConfig",
    "FederationConfig",
    "ModelConfig",
    "Name",
    "PartitionConfig",
    "PrivacyConfig",
    "Section",
    "TrainingConfig",
    "arms_of",
    "assign",
    "builtin_arms",
    "check_name",
    "config_for",
    "config_of",
    "configs_dir",
    "described",
    "dump_config",
    "load_config",
    "parse_json",
    "parse_yaml",
    "read_bytes",
    "read_text",
    "read_values",
    "read_yaml",
    "refuse_unread",
    "sealed",
    "unread_settings",
    "validate",
]
