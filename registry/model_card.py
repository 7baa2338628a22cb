"""The card that is pushed with a model: what the model is, its metrics and its limits."""

import json
from typing import Any

from registry.layout import MODEL_CARD, MODEL_CARD_TEXT

_INTENDED_USE = (
    "Generating images that look like MNIST's handwritten digits: to show, test and teach."
)
_LIMITS = (
    "The model generates 28x28 gray images of the digits 0 to 9 and nothing else. Its metrics hold "
    "for the classifier they were measured with. An image may be hard to read or show another "
    "digit than its label, as often as the conditional accuracy says. Generated digits should not "
    "replace real ones where a system is tested that people depend on."
)
_TITLE = "MNIST digit generator"


def card_files(
    evaluation: dict[str, Any] | None, recipe: dict[str, Any] | None = None
) -> dict[str, bytes]:
    """`model_card.json` and `model_card.md`, content by path relative to the version.

    Args:
      evaluation: `evaluation.json` of the run that blessed the model; None where there is none.
      recipe: `preset` of the run, and `changed`, its settings that differ; None if not known.
    """
    card = _card(evaluation) | {"recipe": recipe}
    return {
        MODEL_CARD: json.dumps(card, indent=2).encode(),
        MODEL_CARD_TEXT: _markdown(card).encode(),
    }


def _card(evaluation: dict[str, Any] | None) -> dict[str, Any]:
    about = (evaluation or {}).get("about", {})
    return {
        "schema_version": 1,
        "name": _TITLE,
        "intended_use": _INTENDED_USE,
        "limits": _LIMITS,
        "evaluated": evaluation is not None,
        "created": about.get("created"),
        "data": about.get("data", {}),
        "metrics": (evaluation or {}).get("metrics", {}),
        "verdict": (evaluation or {}).get("verdict"),
        "checks": (evaluation or {}).get("checks"),
        "samples": (evaluation or {}).get("samples"),
        "baseline": (evaluation or {}).get("baseline"),
        "verification": (evaluation or {}).get("verification", {}),
        "settings": {
            name: about.get(name, {}) for name in ("train", "tuned", "classifier", "evaluation")
        },
        "provenance": about.get("provenance", {}),
        "versions": about.get("versions", {}),
        "commit": about.get("commit"),
    }


def _markdown(card: dict[str, Any]) -> str:
    parts = [
        f"# {card['name']}\n\n{card['intended_use']}\n\n**Limits.** {card['limits']}",
        "## Metrics\n\n" + _metrics(card),
        "## Data\n\n" + _list(card["data"]),
        "## Training settings\n\n" + _list(card["settings"]["train"] | card["settings"]["tuned"]),
        "## Made with\n\n" + _list(card["versions"] | {"commit": card["commit"] or "unknown"}),
    ]
    return "\n\n".join(parts) + "\n"


def _metrics(card: dict[str, Any]) -> str:
    if not card["evaluated"]:
        return "This model was pushed without an evaluation."
    rows = "\n".join(
        f"| {metric['title']} | {metric['direction'] or ''} | {_number(metric['value'])} | "
        f"{_interval(metric['interval'])} | {_number(metric['floor'])} | {metric['unit']} |"
        for metric in card["metrics"].values()
    )
    return (
        f"On {card['samples']} samples, FID on {_fid_samples(card)}, against the eval split, "
        f"evaluated {card['created']}; the "
        "floor is the real-data baseline, the metric of as many real training images.\n\n"
        "| metric | better | value | 95 % interval | floor | unit |\n"
        f"| --- | --- | --- | --- | --- | --- |\n{rows}"
    )


def _fid_samples(card: dict[str, Any]) -> int:
    return max(card["samples"], card["settings"]["evaluation"]["fid_samples"])


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _interval(interval: list[float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.4g} to {interval[1]:.4g}"


def _list(values: dict[str, Any]) -> str:
    return "\n".join(f"- {key}: {value}" for key, value in values.items()) or "Unknown."
