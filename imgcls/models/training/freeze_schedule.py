"""The frozen fraction of the encoder in each epoch."""

from collections.abc import Mapping

from imgcls.errors import ConfigError

_KEY = "model.init_args.unfreeze"


class FrozenFraction:
    """Fraction of the encoder's layers that is frozen, by epoch: gradual unfreezing from the head down.

    Howard and Ruder 2018 (ULMFiT, https://arxiv.org/abs/1801.06146).

    Args:
        first: Fraction from epoch 0, 0 to 1; true is 1, false is 0.
        later: Zero-based epoch -> fraction from that epoch.

    Raises:
        ConfigError: If the fractions do not decrease.
    """

    def __init__(self, first: bool | float, later: Mapping[int, float]) -> None:
        if first is None or not 0 <= float(first) <= 1:  # the parser accepts null in a file
            got = "null" if first is None else first
            raise ConfigError(
                f"model.init_args.freeze_encoder must be true, false or a fraction from 0 to 1, got {got}"
            )
        self._fractions = {0: float(first)}
        for epoch, fraction in sorted((int(epoch), float(fraction)) for epoch, fraction in later.items()):
            if epoch < 1:
                raise ConfigError(f"{_KEY}: epochs must be at least 1, got {epoch}; set epoch 0 by freeze_encoder")
            if not 0 <= fraction < self.least:
                raise ConfigError(
                    f"{_KEY}: the fraction must decrease over epochs down to at least 0, but epoch {epoch} has "
                    f"{fraction} after {self.least}"
                )
            self._fractions[epoch] = fraction

    @property
    def least(self) -> float:
        """The fraction that stays frozen to the end."""
        return min(self._fractions.values())

    @property
    def changes(self) -> bool:
        """Whether the fraction changes during the run."""
        return len(self._fractions) > 1

    def at(self, epoch: int) -> float:
        """Return the fraction in a zero-based epoch."""
        return self._fractions[max(start for start in self._fractions if start <= epoch)]
