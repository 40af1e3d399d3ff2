"""Shape models that recover complete lumbar vertebrae."""
