"""The window: how many documents are in flight, and how it follows what it sees."""

from __future__ import annotations

import asyncio

from headrace.pipelines.inference.window import LEAST_SHARE, MOST_SHARE, POOL_SHARE, Window


async def hold(window: Window, tokens: int, until: asyncio.Event) -> None:
    async with window.room(tokens):
        await until.wait()


async def held(window: Window, *sizes: int) -> tuple[list[asyncio.Task[None]], asyncio.Event]:
    done = asyncio.Event()
    tasks = [asyncio.ensure_future(hold(window, size, done)) for size in sizes]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks, done


def test_documents_wait_while_the_pool_is_full_and_enter_in_order() -> None:
    async def go() -> None:
        window = Window(1000, 100)
        tasks, done = await held(window, 300, 300, 300, 300, 10)
        assert window.inside == 3
        done.set()
        await asyncio.gather(*tasks)
        assert window.inside == 0

    asyncio.run(go())


def test_a_document_larger_than_the_pool_goes_alone() -> None:
    async def go() -> None:
        window = Window(1000, 100)
        tasks, done = await held(window, 5000, 10)
        assert window.inside == 1
        done.set()
        await asyncio.gather(*tasks)

    asyncio.run(go())


def test_a_cancelled_document_leaves_no_room_taken() -> None:
    async def go() -> None:
        window = Window(1000, 100)
        tasks, done = await held(window, 900, 900, 900)
        tasks[1].cancel()
        await asyncio.sleep(0)
        done.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert window.inside == 0
        async with window.room(900):
            assert window.inside == 1

    asyncio.run(go())


def test_reuse_that_does_not_come_shrinks_the_window_and_no_further_than_the_least() -> None:
    window = Window(1000, 100)
    window.observe(due=100, missing=50)
    assert window.share < POOL_SHARE
    for _ in range(100):
        window.observe(due=100, missing=50)
    assert window.share == LEAST_SHARE


def test_it_grows_only_while_documents_wait_and_reuse_comes() -> None:
    window = Window(1000, 100)
    for _ in range(100):
        window.observe(due=100, missing=0)
    assert window.share == POOL_SHARE

    async def go() -> None:
        tasks, done = await held(window, 900, 900)
        for _ in range(100):
            window.observe(due=100, missing=0)
        assert window.share == MOST_SHARE
        done.set()
        await asyncio.gather(*tasks)

    asyncio.run(go())


def test_it_judges_by_a_whole_windows_work_and_not_by_one_document() -> None:
    async def go() -> None:
        window = Window(1000, 100)
        tasks, done = await held(window, *[50] * 10)
        for _ in range(9):
            window.observe(due=100, missing=100)
        assert window.share == POOL_SHARE
        window.observe(due=100, missing=100)
        assert window.share < POOL_SHARE
        done.set()
        await asyncio.gather(*tasks)

    asyncio.run(go())


def test_a_fixed_window_stays_as_it_is() -> None:
    window = Window(1000, 100, adaptive=False)
    for _ in range(10):
        window.observe(due=100, missing=100)
    assert window.share == POOL_SHARE


def test_time_is_full_only_while_a_document_waits() -> None:
    async def go() -> None:
        window = Window(1000, 100)
        async with window.room(900):
            await asyncio.sleep(0.05)
            assert window.full_seconds == 0
            waiting = asyncio.ensure_future(hold(window, 900, asyncio.Event()))
            await asyncio.sleep(0.05)
            waiting.cancel()
        assert 0.04 < window.full_seconds < window.busy_seconds

    asyncio.run(go())
