"""``imgcls tune``: an Optuna study over dotted keys, in which each trial is a fit."""
