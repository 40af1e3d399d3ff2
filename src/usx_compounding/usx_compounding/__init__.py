"""Tracked ultrasound frames to a bone surface and a volume."""
