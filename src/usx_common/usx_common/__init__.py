"""Geometry in millimetres, time, point clouds and the one ROS edge of the usx suite."""
