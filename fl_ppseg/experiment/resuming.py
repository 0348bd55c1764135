"""Resuming a run, with the settings of its checkpoints or with more rounds."""

from itertools import product

from fl_ppseg.config.loading import arms_of, dump_config, load_config
from fl_ppseg.config.sections import Config
from fl_ppseg.federation.checkpoint_file import settings_hash
from fl_ppseg.federation.checkpoints import protection_of
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import write_atomically
from fl_ppseg.system.wording import counted


def check_resumed(config: Config, folder: RunFolder) -> None:
    """Check that a run can be resumed with a config.

    Raises:
        InputError: It was trained with other settings or versions of ciphers, or has finished more
            rounds than `federation.num_rounds`.
    """
    before, expected, done = load_config(folder.config), settings_hash(config), 0
    for (name, arm), seed in product(arms_of(config).items(), config.seeds):
        found = folder.latest(name, seed)
        if found is None:
            continue
        done = max(done, found.round)
        about = found.description
        of_arm = about.protection.model_copy(update={"note": arm.note})
        if (about.settings or expected) != expected or of_arm != arm:
            raise InputError(
                f"{folder.config}: arm {name}, seed {seed} was trained with other settings than "
                "this file has; restore it, or start another run"
            )
        protection_of(found)
    if config.federation.num_rounds < min(done, before.federation.num_rounds):
        raise InputError(
            f"{folder.path}: has {counted(done, 'round')} done already; federation.num_rounds "
            f"{config.federation.num_rounds} is fewer"
        )


def record_resumption(config: Config, folder: RunFolder) -> None:
    """Record the changed settings of a resumed run, such as more rounds."""
    before = load_config(folder.config)
    changed = ("federation", "num_workers", "training")
    after = before.model_copy(update={name: getattr(config, name) for name in changed})
    if after != before:
        write_atomically(folder.config, dump_config(after))
