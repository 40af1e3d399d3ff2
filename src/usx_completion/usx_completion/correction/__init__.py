"""The project's own completion: a complete prior in correspondence, corrected by what ultrasound and X-ray show."""
