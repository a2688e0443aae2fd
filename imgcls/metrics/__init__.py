"""From metric specs to torchmetrics."""
