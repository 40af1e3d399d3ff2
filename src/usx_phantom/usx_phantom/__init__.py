"""Digital lumbar spine phantom: shapes, ultrasound and X-ray simulation, acquisitions."""
