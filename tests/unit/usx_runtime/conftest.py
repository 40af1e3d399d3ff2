"""The runtime's tests look at the whole graph, so they have a domain where no other test leaves a node."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(scope="module", autouse=True)
def own_domain():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_DOMAIN_ID", str(201 + os.getpid() % 14))
        yield
