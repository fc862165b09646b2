"""What answers are worth, as torchmetrics modules."""
