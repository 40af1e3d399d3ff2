"""Training data: partial observations of known spines, normalised, stored, or made on the fly. No node imports this."""
