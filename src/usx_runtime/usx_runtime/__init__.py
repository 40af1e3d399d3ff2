"""ROS 2 for machines without ROS 2: rclpy's API on Eclipse Cyclone DDS."""
