"""The web server of the view, and the one line it says when it cannot start."""

from __future__ import annotations

import socket

import viser

from usx_common.errors import UsxError


def start_server(host: str, port: int) -> viser.ViserServer:
    """A viser server on exactly this address. Raises UsxError when it is taken or not this machine's.

    viser itself would silently move on to the next free port, and the address printed would be wrong.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UsxError(f"parameter 'port' = {port}: cannot listen on {host}:{port} ({error.strerror}); "
                           "choose another with -p port:=PORT") from error
    return viser.ViserServer(host=host, port=port, label="usx", verbose=False)
