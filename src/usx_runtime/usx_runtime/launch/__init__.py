"""`usx launch`: declarative ROS 2 launch files (XML), the same that `ros2 launch` takes.

`reader` turns a file into a list of `processes.Process`; `supervisor` runs them."""
