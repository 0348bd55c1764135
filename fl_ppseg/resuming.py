"""A run that goes on: with the settings that its checkpoints were trained with, or more rounds."""

from fl_ppseg.config import Config, dump_config, load_config
from fl_ppseg.errors import InputError
from fl_ppseg.files import write_atomically
from fl_ppseg.run_folder import RunFolder
from fl_ppseg.wording import counted


def check_resumed(config: Config, folder: RunFolder) -> None:
    """Find out whether a run can go on with a config.

    Raises:
        InputError: It was trained with other settings, or has more rounds done than are wanted.
    """
    folder.check_settings(config)
    before = load_config(folder.config)
    newest = (folder.latest(arm, seed) for arm in config.arms for seed in config.seeds)
    done = max((found.round for found in newest if found is not None), default=0)
    if config.federation.num_rounds < min(done, before.federation.num_rounds):
        raise InputError(
            f"{folder.path}: has {counted(done, 'round')} done already; federation.num_rounds "
            f"{config.federation.num_rounds} is fewer"
        )


def note_resumed(config: Config, folder: RunFolder) -> None:
    """Write down what a run was given anew, such as more rounds."""
    before = load_config(folder.config)
    after = before.model_copy(update={"federation": config.federation})
    if after != before:
        write_atomically(folder.config, dump_config(after))
