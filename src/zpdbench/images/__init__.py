"""The stages' container images: their names, how they are built, how rules run in them."""
