"""`usx topic`: list topics, show their messages and rates."""
