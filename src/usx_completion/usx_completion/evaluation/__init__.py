"""How good completions are: methods against test cases, tables, statistics, robustness. Trains nothing."""
