"""What everybody sees of a node is never more than what the store has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from patchbay.chaos.store_link import Refusal, StoreLink
from patchbay.store import Store
from patchbay.testing import until
from patchbay_mesh.wire.content import Value

if TYPE_CHECKING:
    from conftest import House

GPS = bytes.fromhex("02f001be9200")


async def test_a_state_is_published_only_when_it_is_saved(
    house: House, store: Store, linked_store: Store, store_link: StoreLink
) -> None:
    house.store = linked_store
    house.replace(state_interval_s=1.0)
    await house.start()
    await house.report(5)
    await until(lambda: house.states.get("node-5", {}).get("readings") == 1)
    await house.report(5)  # saved; it is published with the next state, in a second
    store_link.refuse_writes(Refusal(how="hangs", collections={"nodes"}, times=1))
    await house.root.report(5, Value(b"GPS", GPS))
    await until(lambda: store_link.refused)
    await until(lambda: house.states["node-5"]["readings"] > 1)
    assert house.states["node-5"]["readings"] == await saved(store)
    await until(lambda: house.states["node-5"]["readings"] == 3)


async def saved(store: Store) -> int:
    """How many values of the node the store knows of."""
    [node] = await store.find("nodes", {})
    return int(node["readings"])
