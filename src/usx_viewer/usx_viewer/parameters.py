"""Parameters of the viewer."""

from __future__ import annotations

from usx_common.parameters import Parameter

TABLE = (
    Parameter("port", 8080, "port of the web page", minimum=1, maximum=65535, read_only=True),
    Parameter("host", "127.0.0.1", "address to listen on; 0.0.0.0 opens the page to the network", read_only=True),
    Parameter("root_frame", "world", "frame in which everything is shown", read_only=True),
    Parameter("opacity", 0.92, "opacity of completed vertebrae", minimum=0.05, maximum=1.0),
    Parameter("point_size", 0.9, "size of points, mm", minimum=0.1, maximum=10.0),
    Parameter("slice_period", 0.1, "least time between two live frames shown, s", minimum=0.02, maximum=5.0),
)
