"""Training a survivor network alone, to be kept: what a service shows of its own ciphertexts."""

import sys
from functools import partial
from pathlib import Path

from fl_ppseg.audit.attacks.reader import Budget, seen_of, train
from fl_ppseg.audit.attacks.reader_file import About, SavedReader, write_reader
from fl_ppseg.audit.attacks.starts import steps_before
from fl_ppseg.audit.material import read_scenes
from fl_ppseg.audit.procedure import Effort
from fl_ppseg.config.loading import arms_of
from fl_ppseg.config.sections import Config
from fl_ppseg.crypto.ciphers.invariance import surviving_form
from fl_ppseg.data.classes import load_class_table
from fl_ppseg.data.dataset import open_dataset
from fl_ppseg.experiment.preparation import data_root
from fl_ppseg.federation.public_weights import initial_model
from fl_ppseg.progress.steps import steps
from fl_ppseg.system.errors import InputError
from fl_ppseg.system.files import available_cpus
from fl_ppseg.system.places import check_file


def save_network(config: Config, out: Path, effort: Effort, *, quiet: bool = False) -> None:
    """Train the survivor network of an arm's cipher on public images, and write it.

    Args:
        config: With one arm.
        out: The file to write.
        effort: Public images and steps of the training.
        quiet: Say nothing.

    Raises:
        InputError: Not one arm, none that encrypts, a cipher that leaves no form, or no place.
    """
    cipher, form = _only_cipher(config)
    check_file(out)
    classes = load_class_table(config.data.classes)
    with steps(sys.stderr, quiet) as progress:
        root = data_root(config.data, config.num_workers or available_cpus(), progress)
        public = read_scenes(open_dataset(root, classes), config.data, 1, effort.num_public).public
        size = initial_model(config, classes.num_classes, config.seeds[0]).patch_size
        budget = Budget(
            effort.network_steps, on_step=partial(progress.update, "training the network")
        )
        reader = train(
            public,
            lambda planes: seen_of(planes, form, size, raw=False),
            size,
            start=form,
            budget=budget,
        )
    about = About.model_validate(
        {
            "cipher": cipher,
            "form": form,
            "block_size": size,
            "image_size": config.data.image_size,
            "num_public": len(public),
            "steps": steps_before(form, size) + effort.network_steps,
        }
    )
    write_reader(out, SavedReader(reader, about))
    if not quiet:
        sys.stdout.write(
            f"{out}: restores {cipher} in blocks of {size}; show it by serve --attack\n"
        )


def _only_cipher(config: Config) -> tuple[str, str]:
    """The cipher of the one arm, and the form that it leaves."""
    arms = arms_of(config)
    if len(arms) != 1:
        raise InputError(f"expected one arm, got {len(arms)}; name it with --arms")
    ((name, arm),) = arms.items()
    if arm.cipher is None:
        raise InputError(f"arm {name} encrypts nothing, so there is nothing to restore")
    form = surviving_form(arm.cipher)
    if form is None:
        raise InputError(
            f"cipher {arm.cipher} leaves no canonical form that a survivor network could read"
        )
    return arm.cipher, form
