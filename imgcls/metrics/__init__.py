"""Build torchmetrics metrics from specs and compute them per stage."""
