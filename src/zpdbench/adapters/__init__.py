"""Training: one fine-tuning run from checkpoint and corpus to adapters and trace."""
