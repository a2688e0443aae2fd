"""Which share of the encoder is frozen in which epoch."""

from collections.abc import Mapping

from imgcls.errors import ConfigError

_KEY = "model.init_args.unfreeze"


class FrozenShare:
    """The share of the encoder's layers that is frozen, by epoch: gradual unfreezing, from the head down.

    Howard and Ruder 2018 (ULMFiT, https://arxiv.org/abs/1801.06146) thaw one layer an epoch.

    Args:
        first: From the first epoch on: true, false or a share 0 to 1.
        later: Epoch, counted from 0 -> the share from that epoch on.

    Raises:
        ConfigError: If the shares do not fall.
    """

    def __init__(self, first: bool | float, later: Mapping[int, float]) -> None:
        if first is None or not 0 <= float(first) <= 1:  # the parser lets null through from a file
            shown = "null" if first is None else first
            raise ConfigError(
                f"model.init_args.freeze_encoder must be true, false or a fraction from 0 to 1, got {shown}"
            )
        self._shares = {0: float(first)}
        for epoch, share in sorted((int(epoch), float(share)) for epoch, share in later.items()):
            if epoch < 1:
                raise ConfigError(
                    f"{_KEY}: epoch {epoch}; freeze_encoder says what holds from epoch 0 on, give later epochs here"
                )
            if not 0 <= share < self.least:
                raise ConfigError(
                    f"{_KEY}: {share} from epoch {epoch} on, after {self.least}; the frozen fraction must fall, to 0 "
                    "at least: a higher freeze_encoder to begin with, or other values here"
                )
            self._shares[epoch] = share

    @property
    def least(self) -> float:
        """The share that stays frozen to the end, 0 to 1."""
        return min(self._shares.values())

    @property
    def changes(self) -> bool:
        """Whether layers are thawed in the course of the run."""
        return len(self._shares) > 1

    def at(self, epoch: int) -> float:
        """Return the share that is frozen in an epoch, counted from 0."""
        return self._shares[max(start for start in self._shares if start <= epoch)]
