"""Augmentation lists, and the presets behind them."""
