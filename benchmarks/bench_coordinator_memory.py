"""What the replies of a round take in the coordinator's memory, in copies of the model.

    python benchmarks/bench_coordinator_memory.py [--model vit-large] [--replies 18,144]
                                                  [--paths mean,int8,weights-int8,sum]
                                                  [--rounds 2] [--scratch DIR]

The coordinator is the real one: a run folder with a checkpoint of round 0, the `Federation` of
`strategies.server_app`, Flower's loop, aggregation with the default limits, results and
checkpoints. Its nodes are a ClientApp in the same process that answers with updates that lie on
disk: a reply is read from its file when the coordinator asks for it, as one array of bytes, which
is what Flower's grid hands over; what a network's side needs to put it together is not in it, nor
what a node needs. Each update is the weights of round 0 and noise of 2 % of them.

Every case runs in a process of its own. Memory is the peak of its resident set (VmHWM, which is
reset at every event) above what it has after its imports, over the bytes of the weights in fp32;
the mark is 3. `replies add` is what the replies add to what was there before the first came.

- start: from the process's imports to the first message to a node.
- replies: while replies to training come.
- step: the server's step, and packing the weights for the evaluation.
- scoring: the replies of the evaluation, results and checkpoint.

`mean` is the default; `int8` has training.codec int8; `weights-int8` training.weights_codec too;
`sum` is what secure aggregation adds up: masked words, added and decoded as in
`strategies.rounds.summed`, without the exchanges of keys around it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message
from flwr.clientapp import ClientApp

from fl_ppseg.codecs.update import codec_of
from fl_ppseg.config.loading import arms_of, dump_config, validate
from fl_ppseg.config.sections import Config, ModelConfig
from fl_ppseg.data.partition.record import Partition
from fl_ppseg.federation.byte_array import byte_array
from fl_ppseg.federation.checkpoint_file import Checkpoint
from fl_ppseg.federation.description import Description
from fl_ppseg.federation.message_content import Description as Introduction
from fl_ppseg.federation.message_content import Reply
from fl_ppseg.federation.messages import pack_arrays, pack_description, pack_reply, unpack_arrays
from fl_ppseg.federation.roles import Role
from fl_ppseg.federation.run_folder import RunFolder
from fl_ppseg.flower.in_process import run_in_process
from fl_ppseg.progress.events import Event, Replied, RoundFinished, RoundStarted
from fl_ppseg.progress.observer import Observer
from fl_ppseg.secure_sum.ring import Ring
from fl_ppseg.secure_sum.running_sum import RunningSum
from fl_ppseg.setr.sizes import num_elements, tensor_shapes
from fl_ppseg.system.arrays import Arrays
from strategies.server_app import Federation, build_server_app

NUM_CLASSES: Final = 19
MODELS: Final = {
    "tiny": ({}, (64, 128)),
    "vit-base": ({"backbone": "vit_base_patch16_384"}, (512, 1024)),
    "vit-large": ({"backbone": "vit_large_patch16_384"}, (512, 1024)),
}
"""Name -> section model beside decoder and weights, image size."""
PATHS: Final = {
    "mean": {},
    "int8": {"codec": "int8"},
    "weights-int8": {"codec": "int8", "weights_codec": "int8"},
    "sum": {},
}
"""Name -> section training."""
NUM_UPDATES: Final = 2
"""Different updates that the replies take turns with."""
PHASES: Final = ("start", "replies", "step", "scoring")
UPDATE: Final = "update_{}.bin"


def resident(what: str) -> int:
    """Bytes of this process's resident set now (VmRSS), or of its peak since the reset (VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(what))


class Peaks(Observer):
    """The peak of the resident set in each phase of the rounds."""

    def __init__(self, base: int) -> None:
        self._base = base
        self._phase = "start"
        self.bytes = dict.fromkeys(PHASES, 0)
        self.added = 0
        """By the replies, to what was there before."""
        self._before = 0
        self.seconds = 0.0
        """Of the processor, from the first to the last reply to training."""
        self._first: float | None = None

    def on_event(self, event: Event) -> None:
        """Close the phase that this event ends."""
        peak = resident("VmHWM") - self._base
        self.bytes[self._phase] = max(self.bytes[self._phase], peak)
        if self._phase == "replies":
            self.added = max(self.added, peak - self._before)
        Path("/proc/self/clear_refs").write_text("5")  # proc(5): resets VmHWM
        match event:
            case RoundStarted(_, _, round):
                self._phase = "replies" if round else "scoring"
                self._before, self._first = resident("VmRSS") - self._base, None
            case Replied(phase="train", num_done=done, num_expected=expected):
                self._first = time.process_time() if self._first is None else self._first
                self.seconds = (time.process_time() - self._first) / max(1, done - 1)
                self._phase = "step" if done == expected else "replies"
            case Replied() | RoundFinished():
                self._phase = "scoring"


def config_of(model: str, path: str, num_replies: int = 3, num_rounds: int = 2) -> Config:
    """Rounds of an arm."""
    settings, size = MODELS[model]
    values = {
        "name": "coordinator-memory",
        "arms": ["plain"],
        "clients": num_replies,
        "model": settings | {"decoder": "pup", "weights": None},
        "data": {"image_size": size},
        "training": PATHS[path],
        "federation": {"num_rounds": num_rounds, "last_rounds": 1},
    }
    return validate(Config, values, "benchmark")


def prepare(model: str, scratch: Path) -> None:
    """Write the weights of round 0 and updates of them, in every form that travels."""
    config = config_of(model, "mean")
    random = np.random.default_rng(0)
    shapes = tensor_shapes(config.model, NUM_CLASSES, config.data.image_size)
    start = {
        name: random.standard_normal(shape, np.float32) * np.float32(0.02)
        for name, shape in sorted(shapes.items())
    }
    (scratch / "start.bin").write_bytes(packed_bytes(start))
    training = config_of(model, "int8").training
    for number in range(NUM_UPDATES):
        update = {
            name: value * (1 + np.float32(0.02) * random.standard_normal(value.shape, np.float32))
            for name, value in start.items()
        }
        (scratch / f"mean_{UPDATE.format(number)}").write_bytes(packed_bytes(update))
        parts, _ = codec_of(training).pack(update, start, {})
        (scratch / f"int8_{UPDATE.format(number)}").write_bytes(packed_bytes(parts))
        del update, parts
        words = {
            name: random.integers(0, 2**8, value.shape, np.uint32) for name, value in start.items()
        }
        (scratch / f"sum_{UPDATE.format(number)}").write_bytes(packed_bytes(words))


def packed_bytes(arrays: Arrays) -> bytes:
    """The data of the array that arrays travel as."""
    data: bytes = pack_arrays(arrays)["safetensors"].data
    return data


def read_array(path: Path) -> ArrayRecord:
    """What `packed_bytes` wrote, as a grid hands it over."""
    data = path.read_bytes()
    head = byte_array(b"")
    return ArrayRecord({"safetensors": Array(head.dtype, (len(data) - 128,), head.stype, data)})


def write_run(config: Config, scratch: Path, path: Path) -> RunFolder:
    """A run folder whose only checkpoint is that of round 0."""
    folder = RunFolder(path)
    clients = {
        f"client{n:04d}": tuple((f"client{n:04d}", f"image{i}") for i in range(30 + n % 7))
        for n in range(config.clients)
    }
    folder.create(dump_config(config), Partition(clients, "by-city", 0, None, "even").to_json())
    patch_size = 8 if config.model.backbone == "vit" else 16
    model = ModelConfig(**config.model.model_dump() | {"patch_size": patch_size})
    description = Description(
        arm="plain",
        seed=0,
        model=model,
        classes=tuple(f"class {n}" for n in range(NUM_CLASSES)),
        image_size=config.data.image_size,
        fit="resize",
        protection=arms_of(config)["plain"],
    )
    start = unpack_arrays(read_array(scratch / "start.bin"))
    folder.save(Checkpoint(0, start, {}, description), keep=1)
    return folder


def nodes(config: Config, scratch: Path, form: str) -> ClientApp:
    """Nodes that answer with what lies on disk; the last one is a val client."""
    app = ClientApp()
    no_counts = np.zeros((NUM_CLASSES, NUM_CLASSES), np.int64)

    def about(message: Message, context: Context) -> tuple[str, int, str, int]:
        words = message.content.config_records["settings"]
        number = int(str(context.node_config["partition-id"]))
        name = f"client{number:04d}" if number < config.clients else "val"
        return str(words["run_id"]), int(str(words["round"])), name, number

    def answer(
        message: Message, context: Context, num_examples: int, counts: np.ndarray | None
    ) -> Message:
        run_id, round_, name, _ = about(message, context)
        reply = Reply(run_id, round_, name, num_examples, 1.0, 1.0, counts)
        return Message(pack_reply(reply, ()), reply_to=message)

    @app.query()
    def describe(message: Message, context: Context) -> Message:
        run_id, _, name, number = about(message, context)
        role: Role = "train" if number < config.clients else "val"
        return Message(pack_description(Introduction(run_id, name, role)), reply_to=message)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        number = about(message, context)[-1]
        examples = (30 + number % 7) * 9 // 10
        reply = answer(message, context, examples, None)
        file = scratch / f"{form}_{UPDATE.format(number % NUM_UPDATES)}"
        reply.content["arrays"] = read_array(file)
        return reply

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        counts = no_counts + np.diag(np.full(NUM_CLASSES, 100))
        return answer(message, context, 3, counts)

    return app


def federated(config: Config, scratch: Path, path: str) -> Peaks:
    """Two rounds of the coordinator; its peaks."""
    with tempfile.TemporaryDirectory(dir=scratch) as run:
        subprocess.run(  # what a preparation needs is not the coordinator's
            [sys.executable, __file__, *sys.argv[1:], "--write-run", run], check=True
        )
        Path("/proc/self/clear_refs").write_text("5")
        peaks = Peaks(resident("VmRSS"))
        federation = Federation(RunFolder(Path(run)), peaks, config.clients + 1)
        app = nodes(config, scratch, "mean" if path == "mean" else "int8")
        run_in_process(build_server_app(federation), app, config.clients + 1)
        return peaks


def summed(config: Config, scratch: Path) -> Peaks:
    """Masked updates that are added, decoded, and made a mean."""
    peaks = Peaks(resident("VmRSS"))
    weights = unpack_arrays(read_array(scratch / "start.bin"))
    shapes = {name: value.shape for name, value in weights.items()}
    peaks.on_event(RoundStarted("plain", 0, 1))
    total = RunningSum(shapes)
    for number, arrays in enumerate(masked(scratch, config.clients), 1):
        total.add(f"client{number:04d}", arrays, 1)
        del arrays
        peaks.on_event(Replied("plain", 0, 1, "", "train", number, config.clients, None))
    mean = {
        name: np.asarray(weights[name] + summed / config.clients, np.float32)
        for name, summed in total.decode(Ring(1e4, config.clients, 1))
    }
    del total
    packed = pack_arrays(mean)
    peaks.on_event(RoundFinished("plain", 0, 1, None, None))
    del packed
    return peaks


def masked(scratch: Path, num_replies: int) -> Iterator[Arrays]:
    for number in range(num_replies):
        yield unpack_arrays(read_array(scratch / f"sum_{UPDATE.format(number % NUM_UPDATES)}"))


def one(options: argparse.Namespace) -> None:
    """What a process of its own does."""
    path, replies = options.one.split(",")
    config = config_of(options.model, path, int(replies), options.rounds)
    scratch = Path(options.of)
    if options.write_run:
        write_run(config, scratch, Path(options.write_run))
        return
    found = summed(config, scratch) if path == "sum" else federated(config, scratch, path)
    print(json.dumps([found.bytes, found.added, found.seconds]))


def show(path: str, replies: str, told: str, model_bytes: int) -> None:
    """Print the line of a case."""
    peaks, added, seconds = json.loads(told.splitlines()[-1])
    most = max(peaks.values())
    copies = (*(peaks[phase] for phase in PHASES), most, added)
    numbers = "".join(f"{each / model_bytes:12.2f}" for each in copies)
    print(f"{path:14}{replies:>8}{numbers}{most / 1e6:10,.0f}{seconds:15.2f}", flush=True)


def main() -> None:
    """Run every case in a process of its own and print a line of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--model", choices=list(MODELS), default="vit-large")
    parser.add_argument("--replies", default="18,144")
    parser.add_argument("--paths", default="mean,int8,weights-int8,sum")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--scratch", type=Path, help="for files of 7 models (default: temporary)")
    for hidden in ("--prepare", "--write-run", "--of", "--one"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.prepare:
        prepare(options.model, Path(options.prepare))
        return
    if options.one:
        one(options)
        return
    config = config_of(options.model, "mean")
    size = num_elements(tensor_shapes(config.model, NUM_CLASSES, config.data.image_size))
    print(f"{options.model}: {size / 1e6:,.1f} M weights, {4 * size / 1e6:,.0f} MB a copy")
    titles = "".join(f"{title:>12}" for title in (*PHASES, "peak", "replies add"))
    print(f"{'path':14}{'replies':>8}{titles}{'peak MB':>10}{'CPU s a reply':>15}")
    call = [sys.executable, __file__, "--model", options.model, "--rounds", str(options.rounds)]
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        subprocess.run([*call, "--prepare", folder], check=True)
        for path in options.paths.split(","):
            for replies in options.replies.split(","):
                case = [*call, "--of", folder, "--one", f"{path},{replies}"]
                done = subprocess.run(case, check=True, stdout=subprocess.PIPE, text=True)
                show(path, replies, done.stdout, 4 * size)


if __name__ == "__main__":
    main()
