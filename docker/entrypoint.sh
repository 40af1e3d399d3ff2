#!/bin/bash
# Sources ROS, the environment and the workspace, then becomes the command.
set -e
source /opt/ros/jazzy/setup.bash
source /opt/usx/bin/activate
source /usx/install/setup.bash
export PYTHONPATH="$(python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))'):$PYTHONPATH"
exec "$@"
