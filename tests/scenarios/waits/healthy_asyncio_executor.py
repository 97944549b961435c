# SPDX-License-Identifier: MIT
# expect: none
"""A task awaits a blocking call in the executor, which takes its time."""
import asyncio
import time


async def main():
    print("ready", flush=True)
    while True:
        await asyncio.get_running_loop().run_in_executor(None, time.sleep, 3)


asyncio.run(main())
