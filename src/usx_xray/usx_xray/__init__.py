"""X-ray and cone-beam CT: receiving, reading and vertebral bodies."""
