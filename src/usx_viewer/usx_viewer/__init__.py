"""The browser view of a usx session, where there is no RViz."""
