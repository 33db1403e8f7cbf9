"""Published figures of models, as data, to print one's own figures beside.

The names of figures are those that `var-jax evaluate` and `var-jax validate` write to their JSON files.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from var_jax.errors import InputError
from var_jax.generation.settings import SamplingOptions

# The published protocol, whatever the defaults of other commands become.
PUBLISHED_SAMPLING = SamplingOptions(
    guidance=1.5, top_k=900, top_p=0.96, temperature=1.0, smooth=False, schedule="linear"
)

_VAR_SETTINGS = (
    f"50 pictures per class of ImageNet, guidance {PUBLISHED_SAMPLING.guidance:g} rising linearly, "
    f"top-k {PUBLISHED_SAMPLING.top_k}, top-p {PUBLISHED_SAMPLING.top_p:g}, by the protocol of OpenAI's evaluator; "
    "the paper's text says guidance 2.0, which the authors have not resolved"
)
_ADM_SETTINGS = "the samples that OpenAI published, judged by its evaluator: they serve to check an evaluator"


@dataclasses.dataclass(frozen=True)
class Published:
    """Published figures of one model.

    Attributes:
      name: the model's name.
      settings: the settings of the measurement, one sentence without its full stop.
      sources: publication -> name of the figure -> its value. Sources differ where authors corrected themselves.
    """

    name: str
    settings: str
    sources: Mapping[str, Mapping[str, float]]


def _var(name: str, pixels: int, paper: tuple[float, float], readme: float | None = None) -> Published:
    sources = {"paper": {"fid": paper[0], "inception_score": paper[1]}}
    if readme is not None:
        sources["README"] = {"fid": readme}
    return Published(name, f"{pixels} px, {_VAR_SETTINGS}", sources)


def _adm(name: str, pixels: int, source: str, values: tuple[float, ...]) -> Published:
    figures = dict(zip(("inception_score", "fid", "sfid", "precision", "recall"), values, strict=True))
    return Published(name, f"{pixels} px, {_ADM_SETTINGS}", {source: figures})


EXPECTED: Mapping[str, Published] = {
    "d16": _var("VAR-d16", 256, (3.30, 274.4), 3.55),
    "d20": _var("VAR-d20", 256, (2.57, 302.6), 2.95),
    "d24": _var("VAR-d24", 256, (2.09, 312.9), 2.33),
    "d30": _var("VAR-d30", 256, (1.92, 323.1), 1.97),
    "d30-re": Published(
        "VAR-d30 with rejection sampling",
        f"256 px, {_VAR_SETTINGS}; neither classifier nor acceptance rate was published",
        {
            "paper": {"fid": 1.73, "inception_score": 350.2},
            "paper's first version": {"fid": 1.80, "inception_score": 356.4},
            "README": {"fid": 1.80},
        },
    ),
    "d36-s": _var("VAR-d36-s", 512, (2.63, 303.2)),
    "tokenizer": Published(
        "VAR's tokenizer vae_ch160v4096z32",
        "256 px, reconstructions of ImageNet's 50,000 validation pictures; FID against those pictures (rfid), and "
        "against the reference statistics of OpenAI's evaluator (rfid_reference), two figures that are often mixed up",
        {"authors": {"rfid": 0.92}, "users": {"rfid_reference": 2.70}},
    ),
    "adm-g-u-256": _adm(
        "ADM-G with upsampling (admnet_guided_upsampled_imagenet256)",
        256,
        "README",
        (215.84, 3.9426, 6.1404, 0.8265, 0.5309),
    ),
    "adm-g-128": _adm(
        "ADM-G (admnet_guided_imagenet128)", 128, "evaluator", (141.477, 2.97329, 5.09456, 0.78138, 0.5929)
    ),
}


def published(name: str) -> Published:
    """The figures of a model in `EXPECTED`.

    Raises:
      InputError: for an unknown name; the message lists the known ones.
    """
    if name not in EXPECTED:
        raise InputError(f"no published figures of '{name}' are known: expected one of {', '.join(EXPECTED)}")
    return EXPECTED[name]


def beside(name: str, figures: Mapping[str, float]) -> str:
    """A table for people: our figures beside the published ones of `name`, with the settings of the latter.

    Args:
      name: a name in `EXPECTED`.
      figures: our figures by name; figures that were not published are left out, figures that we lack show a dash.

    Raises:
      InputError: for an unknown name.
    """
    expected = published(name)
    names = list(dict.fromkeys(figure for source in expected.sources.values() for figure in source))
    rows = [["", "ours", *expected.sources]]
    for figure in names:
        values = [figures.get(figure), *(source.get(figure) for source in expected.sources.values())]
        rows.append([figure, *("-" if value is None else f"{value:.4f}".rstrip("0").rstrip(".") for value in values)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([f"Published figures of {expected.name}: {expected.settings}.", *lines])
