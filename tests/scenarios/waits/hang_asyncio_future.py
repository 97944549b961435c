# SPDX-License-Identifier: MIT
# expect: hang|deadlock
# threads: wait_for_reply
# option: --hang-after 3
"""A loop that can never wake: it has no timer, no descriptor, and nobody to set the future."""
import asyncio


async def wait_for_reply():
    reply = asyncio.get_running_loop().create_future()
    print("ready", flush=True)
    return await reply


async def main():
    await wait_for_reply()


asyncio.run(main())
