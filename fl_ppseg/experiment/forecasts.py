"""What a run is forecast to take, before it starts: memory, disk, client processes, time."""

from typing import NamedTuple

from fl_ppseg.config.loading import arms_of
from fl_ppseg.config.sections import Config
from fl_ppseg.crypto.arm_models import model_settings
from fl_ppseg.data.classes import load_class_table
from fl_ppseg.experiment.disk_forecast import disk_line
from fl_ppseg.experiment.memory_forecast import Fit, fit_memory, forecast, gigabytes, machine_bytes
from fl_ppseg.experiment.time_forecast import Images, images_of, seconds_of
from fl_ppseg.progress.state import duration
from fl_ppseg.setr.sizes import tensor_shapes
from fl_ppseg.system.wording import counted


class Outlook(NamedTuple):
    """What a run is forecast to take."""

    fit: Fit
    memory: str
    """A line."""


def memory_outlook(config: Config) -> Outlook:
    """The memory that a run will take, and how many client processes this machine holds.

    Raises:
        InputError: It cannot run here; the line says what to change.
    """
    need = forecast(config, load_class_table(config.data.classes).num_classes)
    num_bytes, free_bytes = machine_bytes()
    fit = fit_memory(need, num_bytes, free_bytes, is_chosen=config.num_workers is not None)
    free = f"{gigabytes(free_bytes)} of {gigabytes(num_bytes)} are free"
    return Outlook(fit, f"memory: {need}; {free}")


def time_line(config: Config, num_processes: int) -> str:
    """The time that training and scoring will take, in a line; takes a few steps to find out.

    Args:
        config: The experiment.
        num_processes: Client processes at the same time.

    Raises:
        InputError: The images cannot be read.
    """
    num_classes = load_class_table(config.data.classes).num_classes
    seconds = seconds_of(config, _images(config), num_processes, num_classes)
    arms = counted(len(config.arms) * len(config.seeds), "training")
    rounds = counted(config.federation.num_rounds, "round")
    return (
        f"time: training and scoring about {duration(seconds)} (estimate: a timed step of each "
        f"model on this machine, times {arms} of {rounds} with {config.clients} clients, "
        f"{num_processes} at a time)"
    )


def _images(config: Config) -> Images:
    """The images of a run.

    Raises:
        InputError: They cannot be read.
    """
    classes = load_class_table(config.data.classes)
    name, arm = next(iter(arms_of(config).items()))
    model = model_settings(config.model, name, arm)
    shapes = tensor_shapes(model, classes.num_classes, config.data.image_size)
    kernel = next(shape for key, shape in shapes.items() if key.endswith("patch_embed.proj.weight"))
    return images_of(config, classes, kernel[-1])


def forecast_lines(config: Config) -> list[str]:
    """Memory, disk and time of a run, line by line.

    Raises:
        InputError: It cannot run here, or its images cannot be read.
    """
    outlook = memory_outlook(config)
    note = [] if outlook.fit.note is None else [f"! {outlook.fit.note}"]
    disk = disk_line(config, _images(config))
    return [outlook.memory, *note, disk, time_line(config, outlook.fit.num_processes)]
