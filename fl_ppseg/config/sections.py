"""The sections of a config: frozen, typed, each field with its line of doc."""

from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.config.bounds import (
    Clients,
    Count,
    Fraction,
    ImageSize,
    NonNegative,
    Positive,
    Rounds,
    Seconds,
    Seed,
    Text,
    up_to,
)
from fl_ppseg.config.names import ArmId, Name
from fl_ppseg.config.section import Section

ArmIds = Annotated[tuple[ArmId, ...], Field(min_length=1, max_length=100)]
CanonicalForm = Literal["values", "magnitudes", "pixels", "pixel-magnitudes"]
"""What of a block survives encryption, in a fixed order: see `fl_ppseg.setr.canonical`."""


class DataConfig(Section):
    """Which images, at what size, in how many augmented views."""

    root: Path | None = None
    """A tree in Cityscapes layout; none: procedural street scenes, made once and cached."""
    classes: Text = "cityscapes"
    """Name of a built-in class table or path of a YAML file; num_classes follows from it."""
    image_size: ImageSize = (64, 128)
    """Height and width of what is encrypted and of the model's input, in pixels."""
    fit: Literal["resize", "crop"] = "resize"
    """How an image of another size is brought to image_size."""
    show_val_scene: bool = True
    """Of one's own data: keep the middle image of each val city of three or more out of the scores,
    to show it in the report; false: all are scored, none is shown."""
    num_views: Annotated[int, up_to(1_000)] = 4
    """Augmented copies an image that the vault encrypts ahead; the first is the image."""
    scene_size: ImageSize = (128, 256)
    """Height and width of the procedural scenes and their label maps, in pixels."""
    num_train: Count = 600
    """Procedural training scenes, shared out in proportion to the true city sizes."""
    num_val: Count = 60
    """Procedural scenes of the val cities."""
    scene_seed: Seed = 0
    """Seed of the procedural scenes."""


class PartitionConfig(Section):
    """How the training images are dealt out to the clients."""

    kind: Literal["by-city", "iid", "dirichlet"] = "by-city"
    """by-city: cities merge or split to the number of clients."""
    alpha: Positive = 0.5
    """Concentration of the Dirichlet partition; smaller is more uneven."""


SMALL_VIT: Final = {"patch_size": 8, "embed_dim": 128, "depth": 6, "num_heads": 2}
SMALL_PUP: Final = {"decoder_channels": 64, "num_convs": 2}
"""A SETR that trains on two CPU cores: what backbone `vit` and its pup decoder are by default."""


class ModelConfig(Section):
    """SETR: a ViT of timm and a decoder of mmsegmentation's family."""

    backbone: Text = "vit"
    """`vit` (sized by the four fields below) or any timm ViT, e.g. vit_base_patch16_384."""
    patch_size: Annotated[int, up_to(128)] | None = None
    """Side of a patch and of the cipher's block, in pixels; by default 8 (`vit`) or timm's."""
    embed_dim: Annotated[int, up_to(8_192)] | None = None
    """Width of the `vit` backbone, by default 128."""
    depth: Annotated[int, up_to(128)] | None = None
    """Layers of the `vit` backbone, by default 6."""
    num_heads: Annotated[int, up_to(256)] | None = None
    """Attention heads of the `vit` backbone, by default 2."""
    decoder: Literal["naive", "pup", "mla"] = "pup"
    """SETR's decoder: naive and pup are one head with two integers, mla taps four layers."""
    decoder_channels: Annotated[int, up_to(4_096)] = 256
    """Channels of the decoder, by default 64 (`vit` with pup) or mmsegmentation's 256."""
    num_convs: Annotated[int, up_to(16)] | None = None
    """Convolutions of the head, by default 2 (`vit` with pup) or mmsegmentation's number."""
    up_scale: Annotated[int, up_to(32)] | None = None
    """Upsampling factor of the head's steps; none: mmsegmentation's number (pup: 2)."""
    num_auxiliary: Annotated[int, Field(ge=0, le=16)] = 0
    """Auxiliary heads on intermediate layers, training only."""
    invariant: CanonicalForm | None = None
    """Canonical form that the patch embedding reads, so that its output does not depend on the key;
    an arm with an invariant embedding sets it from its cipher; none: the image as it is."""
    norm: Literal["group", "batch"] = "group"
    """Normalisation in the heads; batch statistics travel badly in a federation."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout before the classifier."""
    pretrained: bool = False
    """Load timm's published weights into the backbone (needs the network once)."""
    weights: Annotated[str, Field(max_length=4_096)] | None = None
    """A local .safetensors file, `shipped` (the package's own; the default of `vit` with pup), or
    none: from scratch."""

    @model_validator(mode="before")
    @classmethod
    def _small_by_default(cls, values: object) -> object:
        if not isinstance(values, dict):
            return values
        small: dict[str, object] = {}
        if values.get("backbone", "vit") == "vit":
            small |= SMALL_VIT
            if values.get("decoder", "pup") == "pup":
                small |= SMALL_PUP | ({} if values.get("pretrained") else {"weights": "shipped"})
        return small | values

    @model_validator(mode="after")
    def _one_source_of_weights(self) -> Self:
        if self.pretrained and self.weights is not None:
            raise ValueError("pretrained and weights name two sources; leave one out")
        return self


class TrainingConfig(Section):
    """The local update of a client."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    """Local optimiser; its state starts afresh in every round."""
    learning_rate: Positive = 3e-3
    """Learning rate at the start of round 1; poly decay over all rounds."""
    head_multiplier: Positive = 1.0
    """Factor on the learning rate of decoder and auxiliary heads (mmsegmentation: 10 with SGD)."""
    poly_power: NonNegative = 0.9
    """Exponent of the poly schedule; 0 keeps the rate constant."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of SGD."""
    weight_decay: NonNegative = 0.01
    """Weight decay, on tensors of two axes or more: not on norms and biases."""
    batch_size: Annotated[int, up_to(65_536)] = 8
    """Views a step."""
    local_epochs: Annotated[int, up_to(10_000)] = 1
    """Passes over the client's images a round; each pass sees one view of each image."""
    gradient_clip: NonNegative = 1.0
    """Largest norm of the gradient; 0 leaves it alone."""
    ohem_fraction: Fraction = 1.0
    """Online hard example mining: the share of pixels, hardest first, that the loss keeps."""
    proximal_mu: NonNegative = 0.0
    """FedProx: weight of mu/2 * |w - w_global|^2; 0 is FedAvg's local update."""
    auxiliary_weight: NonNegative = 0.4
    """Weight of each auxiliary head's loss."""
    loss_size: Literal["logits", "labels"] = "logits"
    """Where the loss is taken: at the decoder's resolution (labels sampled down) or the labels'."""
    amp: bool = True
    """bfloat16 autocast where the device has it (GPU); no effect on CPU."""
    num_threads: Annotated[int, up_to(1_024)] = 1
    """CPU threads of one local update."""


class PrivacyConfig(Section):
    """Central differential privacy: the published weights hide whether a city's images were used.

    The coordinator itself is trusted here; a node's own policy can add noise before it sends. Arms
    that average nothing (local-only) get none.
    """

    noise_multiplier: Positive
    """Standard deviation of the noise on the sum of the updates, in units of clipping_norm."""
    clipping_norm: Positive
    """Largest norm of a city's update; longer ones are scaled down to it."""
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    """delta at which the results report epsilon."""


class FederationConfig(Section):
    """Rounds, participation and aggregation."""

    num_rounds: Rounds = 10
    """Communication rounds an arm."""
    strategy: Literal["fedavg", "fedavgm", "fedadam"] = "fedavg"
    """How the server applies the mean update."""
    server_learning_rate: Annotated[float, Field(gt=0)] | None = None
    """Step of the server; none: 1 for fedavg and fedavgm, 0.01 for fedadam."""
    server_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of fedavgm; first moment of fedadam."""
    aggregation: Literal[
        "mean", "median", "trimmed-mean", "norm-clipping", "krum", "multi-krum"
    ] = "mean"
    """How the updates of a round become one; mean and norm-clipping hold one of them at a time, the
    others, which give every city the same weight, hold all."""
    weighting: Literal["examples", "equal"] = "examples"
    """Weight of a city in a mean: the number of images that it names itself, or one for all."""
    max_share: Annotated[float, Field(ge=0.5, le=1)] = 0.5
    """The most that one of several cities is of a mean by examples, where only the cities know how
    many images they have; 1: whatever they say. In a simulation the partition knows."""
    trim_fraction: Annotated[float, Field(ge=0, lt=0.5)] = 0.1
    """trimmed-mean: share of the updates that is cut off at each end, for each weight; of three or
    more it is one at least."""
    num_byzantine: Annotated[int, Field(ge=0, le=10_000)] = 1
    """krum and multi-krum: how many cities may lie; they want 2 f + 3 good replies."""
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    """norm-clipping: largest norm of an update; longer ones are scaled down to it."""
    max_relative_norm: Positive | None = 10.0
    """Updates are rejected whose norm is more than so many times that of the weights that they
    start from (honest ones: 0.04 to 0.3; with noise of a node's own, up to 8 were seen);
    results.jsonl names the norms (update_norm)."""
    max_update_norm: Annotated[float, Field(gt=0)] | None = None
    """Updates of a larger norm are rejected."""
    max_norm_ratio: Annotated[float, Field(gt=1)] | None = None
    """Updates are rejected whose norm is so many times the median of the newest earlier round."""
    privacy: PrivacyConfig | None = None
    """Central differential privacy; none: no noise."""
    fraction_train: Fraction = 1.0
    """Share of the training clients asked in a round, drawn by the seed."""
    evaluate_every: Rounds = 1
    """Rounds between two evaluations; the last rounds are always evaluated."""
    last_rounds: Rounds = 3
    """K: scores are the mean over the last K rounds."""
    min_replies: Fraction = 0.5
    """Quorum: share of the asked clients whose good replies make a round count, and of the nodes
    that must be there for a run to begin."""
    max_retries: Annotated[int, Field(ge=0, le=100)] = 2
    """How often a round that misses its quorum asks again those who gave no good update."""
    round_timeout: Annotated[Seconds, Field(gt=0)] = 3600.0
    """Seconds that the server waits for the replies of a round."""
    grace_seconds: Seconds = 0.0
    """How long a city whose node goes in a round is waited for, to be asked again; 0: not at all.
    On separate machines more than 60 s, the time after which Flower notices that a node is gone."""
    wait_seconds: Annotated[Seconds, Field(gt=0)] = 120.0
    """How long missing nodes are waited for: all of them at the start, the quorum later."""
    keep_checkpoints: Rounds = 2
    """Checkpoints kept for each arm and seed."""

    @model_validator(mode="after")
    def _options_that_belong_together(self) -> Self:
        if self.aggregation == "norm-clipping" and self.clip_norm is None:
            raise ValueError("aggregation norm-clipping wants clip_norm, the largest norm")
        if self.privacy is not None and self.aggregation != "mean":
            raise ValueError("privacy clips updates itself and wants aggregation mean")
        if self.privacy is not None and self.max_norm_ratio is not None:
            raise ValueError("privacy forbids max_norm_ratio, which looks at other cities' updates")
        return self

    @property
    def fewest_replies(self) -> int:
        """Good replies without which the aggregation is not what its name says."""
        if self.aggregation in ("krum", "multi-krum"):
            return 2 * self.num_byzantine + 3  # Blanchard et al. 2017, proposition 2
        return 3 if self.aggregation in ("median", "trimmed-mean") else 1

    def num_asked(self, num_trainers: int) -> int:
        """Cities that are asked in a round, of those that train."""
        return max(1, round(self.fraction_train * num_trainers))


class Config(Section):
    """A whole experiment."""

    name: Name = "default"
    """Name of the experiment; part of the run folder's name."""
    arms: ArmIds = ("plain", "per-client-private", "per-image-invariant", "per-image")
    """Arms to compare, by id (configs/arms.yaml, or arm_table below)."""
    clients: Clients = 18
    """Training clients."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, max_length=1_000)] = (0,)
    """Seeds of the training; each arm is trained once a seed. Keys never come from a seed."""
    engine: Literal["ray", "in-process"] = "ray"
    """What runs the clients: Flower's simulation on Ray, or this process."""
    device: Text = "cpu"
    """Where local updates run: cpu, cuda, cuda:0, ..."""
    num_workers: Annotated[int, up_to(1_024)] | None = None
    """Client processes at the same time; none: one a CPU core."""
    data: DataConfig = DataConfig()
    partition: PartitionConfig = PartitionConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    federation: FederationConfig = FederationConfig()
    arm_table: Annotated[dict[ArmId, ArmConfig], Field(max_length=100)] = Field(
        default_factory=dict
    )
    """Own arms by id, added to those of configs/arms.yaml or in place of them."""
    cells: Annotated[
        dict[Text, Annotated[tuple[Any, ...], Field(min_length=1, max_length=100)]],
        Field(max_length=10),
    ] = Field(default_factory=dict)
    """Dotted keys of this config to lists of values: `simulate` makes a run of each combination."""

    @model_validator(mode="after")
    def _seeds_differ(self) -> Self:
        if len(set(self.seeds)) != len(self.seeds) or len(set(self.arms)) != len(self.arms):
            raise ValueError("seeds and arms must each be named once")
        return self

    @model_validator(mode="after")
    def _enough_clients(self) -> Self:
        federation = self.federation
        wanted, asked = federation.fewest_replies, federation.num_asked(self.clients)
        if federation.aggregation in ("krum", "multi-krum") and asked < wanted:
            raise ValueError(
                f"federation.aggregation {federation.aggregation} with num_byzantine "
                f"{federation.num_byzantine} wants {wanted} or more clients a round, got {asked}; "
                "lower num_byzantine, or take another aggregation"
            )
        return self
