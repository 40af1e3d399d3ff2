"""Cone-beam CT to ultrasound, placing the X-ray, splitting levels and the quality gate."""
