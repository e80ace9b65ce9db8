"""Attaching to Ray: an address where nobody listens is told at once."""

from __future__ import annotations

import pytest

from raybench.fleet.cluster import ClusterError, attached
from raybench.serving.ports import free_port


@pytest.mark.parametrize("form", ["127.0.0.1:{}", "ray://127.0.0.1:{}"])
def test_an_address_where_nobody_listens_is_one_clear_line(form: str) -> None:
    address = form.format(free_port())
    with pytest.raises(ClusterError, match="cannot be reached") as caught, attached(address):
        raise AssertionError
    assert address in str(caught.value) and "\n" not in str(caught.value)
