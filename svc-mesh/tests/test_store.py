"""How long the store keeps what nodes said, on a real store."""

from __future__ import annotations

import pytest

from patchbay.store import Store
from patchbay_mesh.store import MESSAGES, READINGS, MeshStore


@pytest.mark.parametrize("collection", [READINGS, MESSAGES])
async def test_values_and_messages_are_kept_for_as_long_as_the_setting_says_now(
    store: Store, collection: str
) -> None:
    for seconds in (2_592_000, 3600, 86_400):
        await MeshStore(store, 3600, seconds).prepare()
        indexes = await store.collection(collection).index_information()
        assert indexes["at_1"]["expireAfterSeconds"] == seconds
