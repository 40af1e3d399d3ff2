"""What is timed, against whom. Never run by the tests."""
