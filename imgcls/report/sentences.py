"""The sentences of the report."""

from imgcls.config.overrides import value_at
from imgcls.report.headline import Constant
from imgcls.report.numbers import Numbers
from imgcls.results.predictions import EvaluatedSplit
from imgcls.results.run import Run

_FEW = 100  # images of an evaluation


def constant_in_words(constant: Constant) -> str:
    """Return the constant prediction of the baseline, in quotes."""
    return ", ".join(f"'{name}'" for name in constant.names) or "no class"


def remark(numbers: Numbers) -> str:
    """Return what the verdict means beside the baseline."""
    first = numbers.headlines[0]
    low, high = first.interval or (first.value, first.value)
    usual = first.baseline or 0.0
    if high < usual:
        return f"That is worse than always predicting {constant_in_words(numbers.constant)}."
    if low <= usual:
        return f"That cannot be distinguished from always predicting {constant_in_words(numbers.constant)}."
    if first.value == 1:
        return "No mistake was found among these images."
    fewer = 1 - (1 - first.value) / (1 - usual)
    return (
        f"The model makes {100 * fewer:.0f} % fewer mistakes than always predicting "
        f"{constant_in_words(numbers.constant)}."
    )


def warnings(run: Run, found: EvaluatedSplit) -> list[str]:
    """Return what makes the figures less than they seem to be."""
    lines = []
    if found.chose_epoch and value_at(run.config, "data.init_args.train_on_validation"):
        lines.append("The model was trained on these validation images: the figures say nothing about other images.")
    elif found.chose_epoch:
        lines.append(
            "These validation images also chose the best epoch, so that all figures are somewhat too good. For an "
            "unbiased result, evaluate images not used in training or selection: imgcls test RUN FOLDER."
        )
    if len(found) < _FEW:
        lines.append(f"{len(found)} images are few: look at the intervals, not at the figures.")
    if found.errors:
        lines.append(f"{len(found.errors):,} images have no prediction and are in no figure; see the section on data.")
    return lines


def temperature_in_words(run: Run) -> str:
    """Return what the fit says of the temperature that it has chosen; "" if it has chosen none."""
    about = run.of_fit.get("calibration")
    if not about or run.folder != run.home:
        return ""
    before, after, given = about["log_loss_before"], about["log_loss_after"], about["temperature"]
    values = list(given.values()) if isinstance(given, dict) else [given]
    if about["reason"]:
        return f"The fit has kept the temperature at 1: {about['reason']}."
    text = f"{min(values):.3f} to {max(values):.3f}" if len(set(values)) > 1 else f"{values[0]:.3f}"
    text = f"The fit has divided the logits by a temperature of {text}, chosen on {about['images']:,} validation images"
    return f"{text}, whose log loss it brings from {before:.4f} to {after:.4f}."


def evaluated_again(run: Run) -> str:
    """Return how the weights of the best epoch were evaluated at the end, and that the curves may differ from it."""
    how = " in float32" if str(run.of_fit.get("run", {}).get("precision")).endswith("-mixed") else ""
    about = run.of_fit.get("calibration")
    how += ", with the temperature that the section Calibration names" if about and not about["reason"] else ""
    return f"Its weights were evaluated again{how}; the figures of this page may differ a little from the curves."


def calibration_in_words(numbers: Numbers) -> str:
    """Return whether the confidence of the predictions is reliable."""
    found = next(each for each in numbers.headlines if each.name == "ece")
    assert found.perfect is not None  # noqa: S101 - of this score
    low, high = found.perfect
    text = f"The calibration error (ECE) is {found.value:.3f}; a perfectly calibrated model with these probabilities "
    text += f"would show {low:.3f} to {high:.3f} on as many images."
    if found.value <= high:
        return f"{text} No miscalibration is visible over all bins together.{_outside(numbers)}"
    mean, right = float(numbers.found.confidence.mean()), float(numbers.found.correct.mean())
    if numbers.found.multilabel:
        return f"{text} The probabilities are not calibrated."
    kind = "overconfident" if mean > right else "underconfident"
    return f"{text} The model is {kind}: its mean confidence is {100 * mean:.1f} %, its accuracy {100 * right:.1f} %."


def _outside(numbers: Numbers) -> str:
    """Return the bins of the reliability diagram that are outside of the band of a perfect model; "" for none."""
    outside = [each for each in numbers.bins if not each.band.low <= each.accuracy <= each.band.high]
    if not outside:
        return ""
    shown = ", ".join(f"{each.accuracy:.2f} at {each.confidence:.2f}" for each in outside)
    few = " By chance about one in twenty is." if len(outside) == 1 else ""
    return (
        f" {len(outside)} of {len(numbers.bins)} bins are outside of their band (accuracy at confidence: {shown}).{few}"
    )
