"""Launch files, configuration, the demo and its report."""
