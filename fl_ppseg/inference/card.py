"""The model card: what a model is, what it was trained on, what it reached, what it shows."""

import re
from collections.abc import Iterator

from fl_ppseg.inference.about import Facts, ReachedScores
from fl_ppseg.inference.exported import ModelFile
from fl_ppseg.inference.query_spec import QuerySpec
from fl_ppseg.system.wording import counted

KEYS = {
    "none": "Queries are plain images: this model protects none.",
    "per-image": "Each query is an image under an ephemeral key of its own, which is thrown away.",
    "per-client": "Queries are images under one key of the client.",
    "shared": "Queries are images under a key that all of its users share.",
}
ADAPTS = (
    "The model reads them only with its patch embedding adapted to that key, which is key material "
    "then: ask with `fl_ppseg.Client(model)`, where the key is."
)
LIMITS = (
    "Perceptual encryption is not semantic security. What survives the cipher is visible to "
    "whoever holds a query, and a network restores coarse images from it."
)
SHOWN_PLACES = 40
"""Places that a line has room for."""


def card(told: ModelFile) -> str:
    """Markdown that says of a model what its config.json says."""
    return "\n".join(_lines(told)) + "\n"


def _lines(told: ModelFile) -> Iterator[str]:
    settings, facts, spec = told.about.settings, told.about.facts, told.spec
    height, width = spec.image_size
    yield from ("---", "library_name: fl_ppseg", "pipeline_tag: image-segmentation", "---", "")
    yield f"# {_plain(told.name)}"
    yield ""
    yield _plain(told.about.protection.note)
    yield ""
    yield (
        f"SETR with the {settings.decoder} decoder on `{_code(settings.backbone)}`, "
        f"{len(told.classes.classes)} classes, a window of {height} x {width} pixels (height x "
        f"width), made by fl_ppseg {_plain(told.fl_ppseg)}."
    )
    yield from ("", "## Queries", "", *_about_queries(spec))
    yield from ("", "## Data", "", *_about_data(facts))
    yield from ("", "## Scores", "", *_about_scores(facts.scores))
    yield from ("", "## What attacks got", "", *_about_audit(facts))
    yield from (
        "",
        "## Classes",
        "",
        "| trainId | class | labelIds | colour |",
        "|---|---|---|---|",
    )
    for each in sorted(told.classes.classes, key=lambda entry: entry.train_id):
        ids, colour = ", ".join(map(str, each.label_ids)), bytes(each.colour).hex()
        yield f"| {each.train_id} | {_plain(each.name)} | {ids} | #{colour} |"
    yield from ("", "## Use", "", "```python", "import fl_ppseg", "")
    yield "model = fl_ppseg.load(FOLDER)"
    yield from _use(spec)
    yield from ("```", "", f"SHA-256 of the weights: `{told.sha256}`")


def _about_queries(spec: QuerySpec) -> Iterator[str]:
    yield KEYS[spec.key]
    if spec.adapts:
        yield ADAPTS
    if spec.cipher is not None:
        versions = ", ".join(f"{_code(name)} {number}" for name, number in spec.versions.items())
        yield (
            f"Cipher `{_code(spec.cipher)}` (versions: {versions}), blocks of {spec.block_size} "
            f"pixels, block scope {spec.scope}."
        )
    how = "scaled to the window" if spec.fit == "resize" else "padded and read window by window"
    yield f"An image of another size is {how}."
    if spec.cipher is not None:
        yield LIMITS


def _about_data(facts: Facts) -> Iterator[str]:
    if facts.data is None and not facts.places:
        yield "The run folder of this model did not lie beside it: nothing is known of its data."
        return
    yield f"Trained on {_plain(facts.data or 'images')}."
    if facts.places:
        images = "" if facts.num_images is None else f", {counted(facts.num_images, 'image')}"
        names = [*facts.places[:SHOWN_PLACES], *(["…"] if facts.places[SHOWN_PLACES:] else [])]
        yield f"{counted(len(facts.places), 'client')}{images}: {_plain(', '.join(names))}."
    yield f"Round {facts.round} of seed {facts.seed}."


def _about_scores(scores: ReachedScores | None) -> Iterator[str]:
    if scores is None:
        yield "The run folder has no scores of this arm."
        return
    yield (
        f"Means over the last rounds and {counted(scores.num_seeds, 'seed')}, in percent, on "
        "places, clients and keys that training never saw, as cityscapesScripts counts."
    )
    yield from ("", "| | mIoU |", "|---|---|")
    rows = {
        "no image (commonest class of each pixel)": scores.no_image_mIoU,
        "start (before training)": scores.start_mIoU,
        "**this arm**": scores.mIoU,
        "plain (no encryption)": scores.plain_mIoU,
        "this arm, on held-out images of those who trained": scores.own_mIoU,
    }
    for name, value in rows.items():
        yield f"| {name} | {'-' if value is None else f'{value:.1f}'} |"
    if scores.aAcc is not None:
        yield from ("", f"aAcc of this arm: {scores.aAcc:.1f}.")


def _about_audit(facts: Facts) -> Iterator[str]:
    if not facts.audit:
        yield "No audit of this arm lies in its run folder: `python -m fl_ppseg.audit RUN`."
    for sentence in facts.audit:
        yield f"- {_plain(sentence)}"


def _use(spec: QuerySpec) -> Iterator[str]:
    if spec.key == "shared":
        yield "client = fl_ppseg.shared_client(model, KEY_FILE)"
        yield "labels, confidence = client.segment(IMAGE)"
    elif spec.key == "none" or spec.adapts:
        yield "labels, confidence = fl_ppseg.Client(model).segment(IMAGE)"
    else:
        yield "query = fl_ppseg.encrypt(IMAGE, model.spec)"
        yield "labels, confidence = model.segment(query)"


def _plain(text: str) -> str:
    """Words of others as words: on one line, with nothing that Markdown or HTML takes for its own.

    >>> _plain("a <b> | *c*")
    'a &lt;b&gt; \\\\| \\\\*c\\\\*'
    """
    line = " ".join(text.split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#!])", r"\\\1", line)


def _code(text: str) -> str:
    """A name as it stands between backticks."""
    return re.sub(r"[^\w.+/:-]", "?", text)
