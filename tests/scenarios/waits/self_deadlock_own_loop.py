# SPDX-License-Identifier: MIT
# expect: self-deadlock|deadlock
# threads: fetch_now
"""run_coroutine_threadsafe(…).result() in the thread of the loop that would have to run it."""
import asyncio


async def fetch():
    return 1


def fetch_now(loop):
    reply = asyncio.run_coroutine_threadsafe(fetch(), loop)
    print("ready", flush=True)
    return reply.result()


async def main():
    return fetch_now(asyncio.get_running_loop())


asyncio.run(main())
