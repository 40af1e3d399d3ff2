"""The network of US-X Complete, rebuilt from its description, to compare with."""
