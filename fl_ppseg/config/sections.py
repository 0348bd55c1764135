"""The sections of a config: frozen, typed, each field with its line of doc."""

from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from fl_ppseg.config.arm import ArmConfig
from fl_ppseg.config.bounds import (
    Clients,
    Fraction,
    NonNegative,
    Positive,
    Seed,
    Text,
    up_to,
)
from fl_ppseg.config.data import DataConfig
from fl_ppseg.config.federation import FederationConfig
from fl_ppseg.config.names import ArmId, Name
from fl_ppseg.config.section import Section

ArmIds = Annotated[tuple[ArmId, ...], Field(min_length=1, max_length=100)]
CanonicalForm = Literal["values", "magnitudes", "pixels", "pixel-magnitudes"]
"""What of a block survives encryption, in a fixed order: see `fl_ppseg.setr.canonical`."""


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
    auxiliary_convs: Annotated[int, up_to(16)] | None = None
    """Convolutions of each auxiliary head of naive and pup; none: mmsegmentation's number for
    Cityscapes (naive 1, pup 2)."""
    class_token: bool | None = None
    """Whether the encoder sees a class token; none: `vit` has none, a timm ViT keeps its own as in
    mmsegmentation, where the encoder of naive and pup sees one and that of mla does not."""
    positions: Literal["bicubic", "bilinear"] = "bicubic"
    """How loaded position embeddings are brought to another grid: bicubic with antialias (timm), or
    bilinear (mmsegmentation)."""
    invariant: CanonicalForm | None = None
    """Canonical form that the patch embedding reads, so that its output does not depend on the key;
    an arm with an invariant embedding sets it from its cipher; none: the image as it is."""
    pixel_head: bool = False
    """Score each pixel of a ciphertext, in any order inside a block; an arm with encrypted labels
    sets it."""
    norm: Literal["group", "batch"] = "group"
    """Normalisation in the heads; batch statistics travel badly in a federation."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Dropout before the classifier."""
    pretrained: bool = False
    """Load timm's published weights into the backbone (needs the network once)."""
    weights: Annotated[str, Field(max_length=4_096)] | None = None
    """A local .safetensors file, for all arms; `shipped`: the package's own, made for what an arm's
    embedding reads (the default of `vit` with pup); or none: from scratch."""

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
            raise ValueError("pretrained and weights exclude each other; leave one out")
        return self


CODEC: Final = ("codec", "codec_density", "codec_rank", "weights_codec")
"""Settings of the local update that say how weights travel; older policies have none."""
MEMORY: Final = ("gradient_checkpointing",)
"""Those that change how much memory it takes, and no bit of its result."""


class TrainingConfig(Section):
    """The local update of a client."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    """Local optimiser; its state starts afresh in every round."""
    learning_rate: Positive = 3e-3
    """Learning rate at the start of round 1; poly decay over all rounds."""
    head_multiplier: Positive = 1.0
    """Factor on the learning rate of decoder and auxiliary heads (mmsegmentation: 10 with SGD);
    mla's neck is not one of them."""
    poly_power: NonNegative = 0.9
    """Exponent of the poly schedule; 0 keeps the rate constant."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of SGD."""
    weight_decay: NonNegative = 0.01
    """Weight decay, on tensors of two axes or more: not on norms and biases."""
    batch_size: Annotated[int, up_to(65_536)] = 8
    """Batch size: views per step."""
    local_epochs: Annotated[int, up_to(10_000)] = 1
    """Passes over the client's images per round; each pass sees one view of each image."""
    pass_fraction: Fraction = 1.0
    """Share of the client's images that a pass sees, drawn anew for each pass."""
    gradient_clip: NonNegative = 1.0
    """Largest norm of the gradient; 0 leaves it alone."""
    ohem_fraction: Fraction = 1.0
    """Online hard example mining: the share of pixels, hardest first, that the loss keeps."""
    class_balance: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Exponent b of class weights in the loss, share^-b: rare classes count for more. A client
    takes the shares from its own label maps and sends them to nobody; 0: all pixels alike."""
    proximal_mu: NonNegative = 0.0
    """FedProx: weight of mu/2 * |w - w_global|^2; 0 is FedAvg's local update."""
    auxiliary_weight: NonNegative = 0.4
    """Weight of each auxiliary head's loss."""
    loss_size: Literal["logits", "labels"] = "logits"
    """Where the loss is taken: at the decoder's resolution (labels sampled down) or the labels'."""
    amp: bool = True
    """bfloat16 autocast where a GPU has it; on CPUs see amp_cpu."""
    amp_cpu: bool = False
    """bfloat16 autocast on CPUs that compute in it (AVX-512 BF16, AMX) too: half the time or
    less, and other bits than on those that do not."""
    num_threads: Annotated[int, up_to(1_024)] = 1
    """CPU threads of one local update."""
    gradient_checkpointing: bool = False
    """Keep of each layer of the backbone its input alone, and compute the layer again for its
    gradients: the same bits in less memory, in up to half as much time again."""
    codec: Literal["fp32", "bf16", "int8", "top-k", "low-rank"] = "fp32"
    """How an update travels: the weights as they are; or their change, in 2 bytes or 1 byte each,
    or the largest changes alone, or that of each matrix as two thin factors. What coding loses, the
    client's next update adds (error feedback). Arms that average nothing send weights as they
    are."""
    codec_density: Fraction = 0.02
    """top-k: share of the changes of each tensor that is sent, 5 bytes each."""
    codec_rank: Annotated[int, up_to(1_024)] = 16
    """low-rank: columns of the factors, of 4 bits a number; tensors of a side up to twice as many
    are sent as by int8."""
    weights_codec: Literal["fp32", "int8"] = "fp32"
    """How weights travel to the clients, to train and to be scored: as they are; or their change
    since round 0, which owners have, in 1 byte each. What coding loses, the next round's weights
    add. Arms that average nothing get weights as they are."""

    @property
    def travels_as_it_is(self) -> bool:
        """Whether neither updates nor weights are coded."""
        return self.codec == self.weights_codec == "fp32"

    def images_a_pass(self, num_images: int) -> int:
        """Images that a pass over a client's images sees.

        >>> TrainingConfig(pass_fraction=0.3333).images_a_pass(30)
        10
        """
        return max(1, round(self.pass_fraction * num_images)) if num_images else 0

    def steps_a_pass(self, num_images: int) -> int:
        """Optimiser steps of a pass over a client's images."""
        return -(-self.images_a_pass(num_images) // self.batch_size)


class Config(Section):
    """A whole experiment."""

    name: Name = "default"
    """Name of the experiment; part of the run folder's name."""
    arms: ArmIds = ("plain", "per-client-private", "per-image-invariant-labels", "per-image")
    """Arms to compare, by id (configs/arms.yaml, or arm_table below)."""
    clients: Clients = 18
    """Training clients."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, max_length=1_000)] = (0,)
    """Seeds of the training; each arm is trained once per seed. Keys never come from a seed."""
    engine: Literal["ray", "in-process"] = "ray"
    """What runs the clients: Flower's simulation on Ray, or this process."""
    device: Text = "cpu"
    """Where local updates run: cpu, cuda, cuda:0, ..."""
    num_workers: Annotated[int, up_to(1_024)] | None = None
    """Client processes at the same time; null: one per CPU core."""
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
            raise ValueError("seeds and arms must not repeat")
        return self

    @model_validator(mode="after")
    def _sparse_updates_are_averaged(self) -> Self:
        chosen = self.federation.aggregation
        if self.training.codec == "top-k" and chosen not in ("mean", "norm-clipping"):
            raise ValueError(
                f"training.codec top-k leaves most changes of a client at 0, so that aggregation "
                f"{chosen} would learn nothing of them; use mean, or another codec"
            )
        return self

    @model_validator(mode="after")
    def _sums_are_bounded(self) -> Self:
        federation, training = self.federation, self.training
        if not federation.secure_aggregation:
            return self
        if self.model.norm == "batch":
            raise ValueError(
                "federation.secure_aggregation: batch statistics have no bound to clip them to; "
                "set model.norm to group"
            )
        if training.codec != "fp32":
            raise ValueError(
                f"federation.secure_aggregation adds up whole numbers of 32 bits, of which "
                f"training.codec {training.codec} would leave no sum; set it to fp32"
            )
        is_bounded = training.optimizer == "adamw" or training.gradient_clip
        if federation.update_bound is None and not is_bounded:
            raise ValueError(
                "federation.secure_aggregation: SGD without training.gradient_clip moves weights "
                "without a bound; set federation.update_bound"
            )
        if federation.num_asked(self.clients) < federation.least_cohort:
            raise ValueError(
                f"federation.secure_aggregation adds up {federation.least_cohort} clients or more "
                f"(least_cohort), and a round asks {federation.num_asked(self.clients)}; ask more, "
                "or lower least_cohort"
            )
        return self

    @model_validator(mode="after")
    def _enough_clients(self) -> Self:
        federation = self.federation
        needed, asked = federation.fewest_replies, federation.num_asked(self.clients)
        if federation.aggregation in ("krum", "multi-krum") and asked < needed:
            raise ValueError(
                f"federation.aggregation {federation.aggregation} with num_byzantine "
                f"{federation.num_byzantine} needs {needed} clients or more, got {asked}; "
                "lower num_byzantine, or use another aggregation"
            )
        return self
