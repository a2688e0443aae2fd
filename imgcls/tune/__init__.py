"""``imgcls tune``: an Optuna study over dotted keys, each trial a fit."""
