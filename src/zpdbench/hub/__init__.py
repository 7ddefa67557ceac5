"""Files of the Hugging Face hub: fetched at a pinned commit, checked by hash, never run."""
